"""A worker's notice that it is about to be ended: by SIGTERM, with its node, or with its job.

Spot instances and Kubernetes send SIGTERM. A worker may get it itself; `ray start --block` drains
its node then, which leaves the workers there 30 seconds; and a job's driver asks all its workers to
save their state before it ends (see :func:`saving_on_sigterm`).
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator

import ray
from ray._private.state import state as cluster_state

from ssd_dist.distributed import head_store
from ssd_dist.terminal import JobFailedError

SAVE_WITHIN_S = 20.0
"""How long a driver that got SIGTERM waits for its workers to have saved their state."""
HEARD_WITHIN_S = 2.0
"""How long it goes on then, to hear of the last epochs that they finished: Ray Train asks its
workers every half second."""
_ENDED_WITHIN_S = 60.0
_INTERVAL_S = 1.0


class Notice:
    """Whether this worker is about to be ended; see :func:`notice_of_end`."""

    def __init__(self, descriptor: int, key: str) -> None:
        self._descriptor, self._key = descriptor, key
        self._others = threading.Event()
        self._over = threading.Event()

    def given(self) -> bool:
        """Takes two microseconds."""
        return self._others.is_set() or self._by_sigterm()

    def wait_for_end(self) -> None:
        """Once the state is saved: waits to be ended along with the node or the job, as an error
        would be taken for one of the training's; returns once its last epoch has been heard of if
        it was SIGTERM's, or late."""
        _forget(self._key)
        time.sleep(HEARD_WITHIN_S if self._by_sigterm() else _ENDED_WITHIN_S)

    def watch(self) -> None:
        """Looks for what others know until :meth:`close`."""
        asked, node = _asked_key(), ray.get_runtime_context().get_node_id()
        while not self._over.wait(_INTERVAL_S):
            with contextlib.suppress(Exception):  # the cluster's head may be away for a while
                if node in cluster_state.get_draining_nodes() or head_store.exists(asked):
                    self._others.set()
                    return

    def close(self) -> None:
        """Ends :meth:`watch`."""
        self._over.set()

    def _by_sigterm(self) -> bool:
        return os.fstat(self._descriptor).st_size > 0


@contextlib.contextmanager
def notice_of_end(name: str, *, saves: bool) -> Iterator[Notice]:
    """Takes SIGTERM to this process meanwhile, and watches its node and its job.

    Args:
        name: of the training, as no other of the job.
        saves: whether it is this worker that saves the training's state.
    """
    key = f"{_working_key()}{name}" if saves else ""
    with tempfile.TemporaryFile() as told:
        notice = Notice(told.fileno(), key)
        # Python's own handlers run in the main thread alone, which is Ray's and busy. This one runs
        # wherever the signal comes, and writes the stack to the file: that is the notice.
        faulthandler.register(signal.SIGTERM, told, all_threads=False, chain=False)
        if saves:
            head_store.put(key)
        watcher = threading.Thread(target=notice.watch, daemon=True)
        watcher.start()
        try:
            yield notice
        finally:
            notice.close()
            watcher.join()
            faulthandler.unregister(signal.SIGTERM)
            _forget(key)


@contextlib.contextmanager
def saving_on_sigterm(name: str) -> Iterator[None]:
    """For a driver: SIGTERM meanwhile lets the job's workers save their state, and then ends what
    is under way, and `name` names, by a JobFailedError: also where it ended by itself meanwhile, as
    what comes after it was asked to stop, too. Does nothing but in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came, saved, over = threading.Event(), threading.Event(), threading.Event()

    def save() -> None:
        with contextlib.suppress(Exception):
            head_store.put(_asked_key())
            until = time.monotonic() + SAVE_WITHIN_S
            while time.monotonic() < until and head_store.keys_below(_working_key()):
                if over.wait(0.1):
                    return
            over.wait(HEARD_WITHIN_S)
        if over.is_set():
            return
        saved.set()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    saving = threading.Thread(target=save, daemon=True)

    def handle(number: int, frame: object) -> None:
        if saved.is_set() and not over.is_set():
            raise KeyboardInterrupt  # no Exception: Ray Tune would take that for a trial's
        if not came.is_set():
            came.set()
            saving.start()

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
        over.set()  # here already: a signal in `finally` would go past `except`
    except KeyboardInterrupt:
        if not saved.is_set():
            raise
    finally:
        over.set()
        if came.is_set():
            saving.join(1.0)  # its signal is no one else's; a head that is away is not waited for
        signal.signal(signal.SIGTERM, before)
        _forget(_asked_key())
    if came.is_set():
        raise JobFailedError(
            f"the {name} was asked to stop by SIGTERM, and has saved its state: go on with it by "
            "--resume"
        )


def _asked_key() -> str:
    return f"asked/{_job()}"


def _working_key() -> str:
    return f"working/{_job()}/"


def _job() -> str:
    return str(ray.get_runtime_context().get_job_id())


def _forget(key: str) -> None:
    if key:
        with contextlib.suppress(Exception):  # of a head that is away: it costs a driver's patience
            head_store.delete(key)

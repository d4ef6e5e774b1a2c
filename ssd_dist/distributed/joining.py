"""Joining a Ray that runs, or starting one: a refusal is told in one sentence."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeVar

import ray
from ray._private.services import canonicalize_bootstrap_address
from ray.exceptions import AuthenticationError

from ssd_dist import allocator
from ssd_dist.distributed import names_no_ray
from ssd_dist.distributed.access import keep_token_private, token_place
from ssd_dist.distributed.lean_node import lean_node

T = TypeVar("T")

_CONNECT_TIMEOUT_S = 10.0
_REFUSED = "InvalidAuthToken"
_WITHOUT_DASHBOARD = {
    # What nobody looks at without Ray's dashboard: the state of processes every five seconds, what
    # they measure, how long events took, what became of each task. A fiftieth of a core.
    "REPORTER_UPDATE_INTERVAL_MS": "3600000",
    "RAY_enable_metrics_collection": "0",
    "RAY_event_stats": "0",
    "RAY_task_events_report_interval_ms": "0",
    # Processes that Ray has started ahead are kept until the job needs them.
    "RAY_idle_worker_killing_time_threshold_ms": "60000",
}
"""The environment of a Ray that is started here without it, where its user has not said otherwise.
"""


def join_ray(*, dashboard: bool = False) -> Any:
    """`ray.init`, quietly: what Ray tells its process of the cluster.

    `dashboard`: whether a Ray that is started here has Ray's own. It takes three seconds of the
    processors at the start and a twentieth of one all the time.

    Raises ConnectionError, in one sentence, if the Ray that RAY_ADDRESS names does not answer, or
    asks for another token.
    """
    address = "this machine" if names_no_ray() else os.environ["RAY_ADDRESS"]
    if names_no_ray():
        keep_token_private()
    else:
        _check_listens(address)
    written = ""
    try:
        with _standard_error() as file, _environment_of_processes(dashboard) as runtime_env:
            try:
                return ray.init(
                    # None: a Ray whose dashboard can't be started does without. No effect on one
                    # that is joined.
                    include_dashboard=None if dashboard else False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    ignore_reinit_error=True,
                    runtime_env=runtime_env,
                )
            finally:
                file.seek(0)
                written = file.read().decode(errors="replace")
    except AuthenticationError as error:
        sentence = str(error).partition(". ")[0]
        raise ConnectionError(f"the Ray at {address} can't be joined: {sentence}") from None
    except ConnectionError:
        raise ConnectionError(
            _wrong_token(address) if _REFUSED in written else _nobody(address)
        ) from None
    except BaseException:
        sys.stderr.write(written)
        raise


def started_here() -> bool:
    """Whether this job started the Ray that it has joined: then it is alone there, on this one
    machine, and Ray ends with it."""
    node = ray._private.worker._global_node
    return node is not None and bool(node.is_head())


def join_while_importing(
    *modules: str, dashboard: bool = False, meanwhile: Callable[[], T] | None = None
) -> T | None:
    """Joins Ray while a thread imports what is needed next: each takes seconds, and Ray's start is
    mostly waiting. :func:`join_ray` then finds it joined.

    None of the modules may import Ray, of which this thread imports parts meanwhile.

    Args:
        modules: their names.
        dashboard: see `join_ray`.
        meanwhile: called as soon as Ray is there, if it was started here.

    Returns what `meanwhile` does. Raises what `join_ray` raises.
    """

    def import_all() -> None:
        for module in modules:
            importlib.import_module(module)

    importing = threading.Thread(target=import_all)
    importing.start()
    try:
        join_ray(dashboard=dashboard)
        return meanwhile() if meanwhile is not None and started_here() else None
    finally:
        importing.join()


@contextlib.contextmanager
def _environment_of_processes(dashboard: bool) -> Iterator[dict[str, Any] | None]:
    """The runtime environment by which workers get the allocator's environment, where their user
    has not said otherwise.

    A Ray that is started here inherits it from this process, meanwhile: a runtime environment would
    cost the start of every process half a second, and no process that Ray starts ahead has one.
    """
    starts_one = _starts_one()
    lean = starts_one and not dashboard
    wanted = allocator.ENVIRONMENT | (_WITHOUT_DASHBOARD if lean else {})
    missing = {name: v for name, v in wanted.items() if name not in os.environ}
    if not starts_one:
        said = {name: os.environ[name] for name in wanted if name not in missing}
        yield {"env_vars": {**missing, **said}}
        return
    os.environ.update(missing)
    try:
        with lean_node() if lean else contextlib.nullcontext():
            yield None
    finally:
        for name in missing:
            del os.environ[name]


def _starts_one() -> bool:
    """Whether `ray.init` will start a Ray, and not join one."""
    if not names_no_ray():
        return False
    address = os.environ.get("RAY_ADDRESS") or None
    return canonicalize_bootstrap_address(address) is None  # type: ignore[arg-type]


def _check_listens(address: str) -> None:
    """Raises ConnectionError if nobody listens at `host:port`: Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()) or "/" in host:  # such as `auto`, or another way to Ray
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT_S).close()
    except OSError:
        raise ConnectionError(_nobody(address)) from None


def _nobody(address: str) -> str:
    return (
        f"no Ray answers at {address}: start one by `ray start --head`, or unset RAY_ADDRESS and "
        "the job starts its own"
    )


def _wrong_token(address: str) -> str:
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return f"the Ray at {address} asks for a token: set RAY_AUTH_MODE=token and give it its own"
    return (
        f"the Ray at {address} asks for another token than that in {token_place()}: take that of "
        "its head node, as `ray get-auth-token` prints it there"
    )


@contextlib.contextmanager
def _standard_error() -> Iterator[IO[bytes]]:
    """Takes up what goes to standard error meanwhile, that of Ray's C++ part as well: it repeats
    every second what it can't do."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield file
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)

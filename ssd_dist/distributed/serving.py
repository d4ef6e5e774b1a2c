"""A detector as a service: its workers on Ray Serve, its door in this process.

The door is one process on one machine, which turns pictures into nothing more than bytes on their
way to a worker; who needs several starts several services behind a balancer.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from ssd_dist.checkpoint import load_checkpoint
from ssd_dist.distributed.cluster import connect, fitting_workers, silence
from ssd_dist.distributed.prediction_stream import told_failures
from ssd_dist.distributed.serving_end import EndingServer
from ssd_dist.distributed.serving_http import Limits, build_app
from ssd_dist.distributed.serving_replicas import Replicas, running_workers
from ssd_dist.distributed.serving_token import is_loopback, read_token
from ssd_dist.model.restored import restored
from ssd_dist.terminal import Terminal

_BATCH_SIZE = {"cpu": 4, "cuda": 16}
_BACKLOG = 2048
_KEEP_ALIVE_S = 30


def run_service(
    checkpoint_folder: Path,
    terminal: Terminal,
    *,
    host: str,
    port: int,
    token_file: Path | None,
    limits: Limits,
    min_workers: int,
    max_workers: int | None,
    batch_size: int | None,
    batch_wait_ms: float,
) -> None:
    """Serves a checkpoint until SIGINT (Ctrl-C) or SIGTERM, and then answers what is under way.

    Args:
        checkpoint_folder: see checkpoint.py; this process alone reads it.
        terminal: where the address is shown.
        host: address to listen on; other than a loopback one only with a token.
        port: 0 takes a free one.
        token_file: see serving_token.py; None: everybody on this machine may ask.
        limits: what is taken at most.
        min_workers: processes that hold the network, whatever the load.
        max_workers: under load; None: one a GPU, or one a CPU core where there is no GPU.
        batch_size: pictures that meet the network together; None: 4 on a CPU, 16 on a GPU.
        batch_wait_ms: what the first of them waits for others.

    Raises:
        ValueError, OSError: what was asked for can't be.
        JobFailedError: the workers could not be started.
    """
    if token_file is None and not is_loopback(host):
        raise ValueError(f"on {host} others can ask, too: give --token-file, or leave out --host")
    if batch_wait_ms < 0 or (batch_size is not None and batch_size < 1):
        raise ValueError("--batch-wait-ms must be at least 0 and --batch-size at least 1")
    if min_workers < 1 or (max_workers is not None and min_workers > max_workers):
        bound = "" if max_workers is None else f" and at most --max-workers {max_workers}"
        raise ValueError(f"--min-workers must be at least 1{bound}, not {min_workers}")
    token = None if token_file is None else read_token(token_file)
    checkpoint = load_checkpoint(checkpoint_folder)
    restored(checkpoint)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listener(host, port))
        cluster = connect(terminal, dashboard=True)
        stack.enter_context(_terminated_as_interrupted())  # Ray has just set its own way
        most = fitting_workers(max_workers, cluster, cluster.num_slots())
        if min_workers > most:
            raise ValueError(
                f"--min-workers must be at most {most}, as there is room for, not {min_workers}"
            )
        replicas = Replicas(
            least=min_workers,
            most=most,
            batch_size=batch_size or _BATCH_SIZE[cluster.device],
            batch_wait_s=batch_wait_ms / 1000,
            max_requests=limits.max_requests,
            max_pixels=limits.max_pixels,
        )
        with (
            silence(),
            told_failures("service"),
            running_workers(checkpoint, cluster, replicas) as workers,
        ):
            ending = threading.Event()
            app = build_app(
                workers.detect, workers.is_healthy, checkpoint.class_names, limits, token, ending
            )
            config = uvicorn.Config(
                app,
                # Nothing that is asked is logged.
                access_log=False,
                backlog=_BACKLOG,
                log_level="error",
                lifespan="off",
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
            )
            # From here on nobody is refused, though uvicorn takes a moment to begin.
            listener.listen(_BACKLOG)
            url = _url(listener)
            terminal.heading(f"Serving on {url}")
            terminal.line(f"  page {url}/   questions {url}/docs   health {url}/healthz")
            asked = f"the token in {token_file}" if token_file else "nobody for a token"
            terminal.line(f"  asks {asked}; Ctrl-C ends it")
            # The signal is raised again once all that was under way is answered.
            with contextlib.suppress(KeyboardInterrupt):
                EndingServer(config, ending).run(sockets=[listener])
            terminal.line("answered all that was under way")


@contextlib.contextmanager
def _listener(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that is bound, and listens once it is served. Raises OSError, in one sentence."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"can't listen on {host}, port {port}: {reason}") from None
    with listener:
        listener.set_inheritable(False)
        yield listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM as Ctrl-C meanwhile: it unwinds what was started."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""Watching a search: Optuna's dashboard on its study, while it runs or afterwards."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna_dashboard
from optuna.artifacts import FileSystemArtifactStore

from ssd_dist.distributed.study import load_study
from ssd_dist.distributed.study_storage import (
    StudyPlace,
    existing_place,
    open_storage,
    repeats_place,
)
from ssd_dist.terminal import Terminal

FIRST_PORT, NUM_PORTS = 8080, 20

_Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def serve_dashboard(
    folder: Path,
    terminal: Terminal,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    study_storage: str | None = None,
) -> None:
    """Serves Optuna's dashboard on an experiment's study until it is interrupted.

    It shows and changes nothing: what would rename, annotate or delete is refused, as whoever
    reaches the port gets in, and a search may be running.

    Args:
        folder: the experiment's.
        terminal: is told the address.
        host: the address to listen on.
        port: None: the first free one from 8080 on.
        study_storage: URL of the study's database, where study.json does not say it all.

    Raises:
        FileNotFoundError: there is no such experiment, or it has no study.
        ValueError, OSError: the database or the port can't be used.
    """
    place = existing_place(folder, study_storage)
    studies = _studies(place)
    application = optuna_dashboard.wsgi(
        open_storage(place),
        artifact_store=FileSystemArtifactStore(place.artifacts) if place.artifacts else None,
    )
    with _listen(host, port, _read_only(application)) as server:
        address = f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}"
        terminal.line(f"the study is in {place.shown}")
        for name, study_id in studies.items():
            terminal.line(f"{name}: {address}/dashboard/studies/{study_id}")
        if host not in ("127.0.0.1", "::1", "localhost"):
            terminal.line(f"note: whoever reaches {host} can read it: there is no password")
        terminal.line("Ctrl-C ends it")
        server.serve_forever()


def _studies(place: StudyPlace) -> dict[str, int]:
    """The number in the storage of the search's study, and of its repeats' where there is one."""
    found = {"the search": load_study(place)._study_id}
    with contextlib.suppress(FileNotFoundError):
        found["its repeats"] = load_study(repeats_place(place))._study_id
    return found


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    # A port on which another server still listens must not count as free.
    allow_reuse_port = False


class _IPv6Server(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """No line for each request."""


def _listen(host: str, port: int | None, application: _Application) -> WSGIServer:
    server_class = _IPv6Server if ":" in host else _Server
    candidates = range(FIRST_PORT, FIRST_PORT + NUM_PORTS) if port is None else (port,)
    for candidate in candidates:
        try:
            return make_server(host, candidate, application, server_class, _Quiet)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
    tried = f"port {port}" if port is not None else f"no port from {FIRST_PORT} on"
    raise OSError(f"can't listen on {host}, {tried}: {reason}")


def _read_only(application: _Application) -> _Application:
    def reading(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return application(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "application/json")])
        return [b'{"reason": "this dashboard only shows; nothing is changed through it"}']

    return reading

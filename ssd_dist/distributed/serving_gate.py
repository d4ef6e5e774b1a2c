"""Before every request: who asks, from where, and how late; after it: what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ssd_dist.distributed.serving_metrics import Metrics
from ssd_dist.distributed.serving_token import admits

_OPEN = ("/", "/healthz", "/docs", "/openapi.json")
"""Paths that need no token: they tell nothing of pictures or of use."""
_OPEN_BELOW = "/static-offline-docs/"
_DISCARD_S = 5.0
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_HEADERS = {
    # Nothing is loaded from elsewhere, and no other page shows this one within itself.
    "content-security-policy": (
        "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class Gate:
    """ASGI middleware: the token, or without one that the request was meant for this machine, and
    that the service goes on."""

    def __init__(
        self, app: ASGIApp, token: str | None, ending: threading.Event, metrics: Metrics
    ) -> None:
        """`token`: None where everybody on this machine may ask; `ending`: set once nothing new is
        to be let in."""
        self._app, self._token, self._ending, self._metrics = app, token, ending, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, let through or refused."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    *((name.encode(), value.encode()) for name, value in _HEADERS.items()),
                ]
                if self._ending.is_set():  # nobody is to ask again on this connection
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            headers = Headers(scope=scope)
            if self._ending.is_set():
                await _discard(receive)
            app = self._app if (refusal := self._refusal(scope, headers)) is None else refusal
            await app(scope, receive, send_on)
        finally:
            self._metrics.ended(scope["path"], status, time.perf_counter() - started)

    def _refusal(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        if self._ending.is_set():
            return _no(503, "this service is ending", {"Retry-After": "1"})
        if self._token is None:
            # Without a token a page on the internet could ask in its reader's name: under a name of
            # its own that leads to 127.0.0.1, or straight, from the reader's browser.
            host = headers.get("host", "")
            name = host[: host.find("]") + 1] if host[:1] == "[" else host.partition(":")[0]
            if name not in _LOOPBACK_NAMES:
                return _no(403, "without a token this answers to localhost only")
            if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
                return _no(403, "without a token no other page may ask")
            return None
        path = scope["path"]
        if path in _OPEN or path.startswith(_OPEN_BELOW):
            return None
        if admits(headers.get("authorization"), self._token):
            return None
        return _no(
            401, "a token is needed: Authorization: Bearer …", {"WWW-Authenticate": "Bearer"}
        )


async def _discard(receive: Receive) -> None:
    """Reads a body to its end: a connection that is closed before would be reset, and the answer
    lost on its way."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_S):
            while (await receive()).get("more_body", False):
                pass


def _no(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)

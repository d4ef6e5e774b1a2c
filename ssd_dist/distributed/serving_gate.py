"""Before every request: who asks, and from where; after it: what became of it."""

from __future__ import annotations

import time

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ssd_dist.distributed.serving_metrics import Metrics
from ssd_dist.distributed.serving_token import admits

_OPEN = ("/", "/healthz", "/docs", "/openapi.json")
"""Paths that need no token: they tell nothing of pictures or of use."""
_OPEN_BELOW = "/static-offline-docs/"
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
    """ASGI middleware: the token, or without one that the request was meant for this machine."""

    def __init__(self, app: ASGIApp, token: str | None, metrics: Metrics) -> None:
        """`token`: None where everybody on this machine may ask."""
        self._app, self._token, self._metrics = app, token, metrics

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
            await send(message)

        try:
            headers = Headers(scope=scope)
            app = self._app if (refusal := self._refusal(scope, headers)) is None else refusal
            await app(scope, receive, send_on)
        finally:
            self._metrics.ended(scope["path"], status, time.perf_counter() - started)

    def _refusal(self, scope: Scope, headers: Headers) -> JSONResponse | None:
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


def _no(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)

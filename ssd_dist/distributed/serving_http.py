"""The service's pages and its one question, as an ASGI application; no Ray.

The application runs beside the deployment's handle and not behind Ray Serve's own proxy: that takes
in a whole body, however large, before anybody can refuse it, answers a full queue with 503, and is
one process more on the way of every picture.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST

from ssd_dist.distributed.serving_answers import DetectionResponse, Problem, response_of
from ssd_dist.distributed.serving_gate import Gate
from ssd_dist.distributed.serving_inference import Answer, Refusal
from ssd_dist.distributed.serving_metrics import DETECT, Metrics
from ssd_dist.distributed.serving_upload import read_picture

_PAGE = Path(__file__).with_name("serving_page.html")
_DESCRIPTION = (
    "Post a picture to /detect, as the body or as a file of a form, and get what is in it. "
    "JPEG, PNG, BMP, TIFF, WebP and GIF are read; an EXIF orientation is applied."
)
_PICTURE = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "properties": {"picture": {"type": "string", "format": "binary"}},
        "required": ["picture"],
    }
}
_REFUSALS = {
    400: "a form that can't be read, or an upload that was broken off",
    401: "no token, or a wrong one",
    408: "the picture did not arrive in time",
    413: "too many bytes",
    422: "no picture, a broken one, or too many pixels",
    429: "too many requests under way; ask again after `Retry-After` seconds",
    503: "no worker could answer, or the service is ending",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is taken at most."""

    max_bytes: int = 20_000_000
    """Of a body."""
    max_pixels: int = 50_000_000
    """Of a picture, by its header."""
    max_requests: int = 64
    """Requests under way: uploading, waiting or being answered. All further ones are refused at
    once, before their body is read: memory stays below `max_requests` times `max_bytes`."""
    upload_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} must be above 0, not {getattr(self, name)}")


class NoWorkerError(RuntimeError):
    """No worker could answer."""


def build_app(
    detect: Callable[[bytes], Awaitable[Answer | Refusal]],
    is_healthy: Callable[[], Awaitable[bool]],
    class_names: tuple[str, ...],
    limits: Limits,
    token: str | None,
    ending: threading.Event,
) -> FastAPI:
    """The application.

    Args:
        detect: takes an encoded picture to a worker and back; raises NoWorkerError.
        is_healthy: whether pictures can be answered.
        class_names: name of class i + 1 at position i.
        limits: what is taken at most; `max_pixels` is the worker's concern.
        token: what `Authorization: Bearer` must give; None: everybody on this machine may ask.
        ending: set once nothing new is to be let in.
    """
    app = FastAPIOffline(
        title="ssd_dist",
        description=_DESCRIPTION,
        version="1",
        redoc_url=None,
        # Swagger would send the page's address to a validator on the internet.
        swagger_ui_parameters={"validatorUrl": None, "defaultModelsExpandDepth": -1},
    )
    metrics = Metrics()
    under_way = 0
    refusals: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem, "description": why} for status, why in _REFUSALS.items()
    }

    @app.post(
        DETECT,
        summary="What is in a picture?",
        response_model=DetectionResponse,
        responses=refusals,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"image/*": _PICTURE, "multipart/form-data": _FORM},
            },
            **({"security": [{"token": []}]} if token is not None else {}),
        },
    )
    async def detect_objects(
        request: Request,
        score_threshold: Annotated[
            float, Query(ge=0, le=1, description="lowest score of a detection")
        ] = 0.3,
    ) -> Response:
        nonlocal under_way
        if under_way >= limits.max_requests:
            raise HTTPException(
                429, f"{under_way} requests are under way, ask again later", {"Retry-After": "1"}
            )
        under_way += 1
        metrics.under_way.set(under_way)
        try:
            content = await read_picture(
                request, max_bytes=limits.max_bytes, timeout_s=limits.upload_seconds
            )
            started = time.perf_counter()
            answer = await detect(content)
        except NoWorkerError as error:
            raise HTTPException(503, str(error), {"Retry-After": "1"}) from None
        finally:
            under_way -= 1
            metrics.under_way.set(under_way)
        if isinstance(answer, Refusal):
            raise HTTPException(422, answer.sentence)
        metrics.answered(answer)
        total_ms = 1000 * (time.perf_counter() - started)
        content = msgspec.json.encode(response_of(answer, class_names, score_threshold, total_ms))
        return Response(content, media_type="application/json")

    @app.exception_handler(RequestValidationError)
    async def bad_parameter(_: Request, error: RequestValidationError) -> JSONResponse:
        """One sentence, as of every other refusal, where FastAPI gives a list."""
        first = error.errors()[0]
        return JSONResponse({"detail": f"{first['loc'][-1]}: {first['msg']}"}, 422)

    @app.get("/healthz", summary="Can pictures be answered?", responses={503: {"model": Problem}})
    async def healthz() -> dict[str, str]:
        if not await is_healthy():
            raise HTTPException(503, "no worker is ready")
        return {"status": "ok"}

    @app.get("/metrics", summary="Numbers for Prometheus", response_class=Response)
    async def metrics_text() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(_PAGE.read_bytes())

    if token is not None:
        _declare_token(app)
    app.add_middleware(Gate, token=token, ending=ending, metrics=metrics)
    return app


def _declare_token(app: FastAPI) -> None:
    """Puts the token into the OpenAPI description, so that its page asks for it."""
    describe = app.openapi

    def described() -> dict[str, Any]:
        schema = describe()
        components = schema.setdefault("components", {})
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        return schema

    app.openapi = described  # type: ignore[method-assign]

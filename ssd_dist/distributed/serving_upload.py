"""The picture in a request's body: raw or as a form's file, never more of it than is allowed."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect

_MOST_FIELDS = 16


async def read_picture(request: Request, *, max_bytes: int, timeout_s: float) -> bytes:
    """The bytes of the picture that was posted.

    A body is refused by its `Content-Length` before any of it is read, and one that does not say
    its length as soon as it is too long.

    Args:
        request: with the picture as its whole body, or with a form (multipart/form-data) that has
            it as its one file.
        max_bytes: of the body.
        timeout_s: for all of it to arrive.

    Raises HTTPException: 400 for a length that is no number, a form that can't be read or an upload
    that was broken off, 408 for a body that takes too long, 413 for one that is too large, 422 for
    one without a picture.
    """
    declared = request.headers.get("content-length")
    if declared is not None and not (declared.isascii() and declared.isdigit()):
        raise HTTPException(400, "Content-Length is not a number")
    if declared is not None and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise _too_large(max_bytes)
    except TimeoutError:
        raise HTTPException(408, f"the picture did not arrive within {timeout_s:g} s") from None
    except ClientDisconnect:  # nobody reads the answer, but it is counted
        raise HTTPException(400, "the upload was broken off") from None
    content = bytes(body)
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        content = await _file_of_form(request, content)
    if not content:
        raise HTTPException(422, "no picture: post its bytes as the body, or as a file of a form")
    return content


async def _file_of_form(request: Request, body: bytes) -> bytes:
    async def received() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    again = Request(request.scope, received)
    async with again.form(max_files=1, max_fields=_MOST_FIELDS, max_part_size=len(body)) as form:
        files = [value for value in form.values() if isinstance(value, UploadFile)]
        return await files[0].read() if files else b""


def _too_large(max_bytes: int) -> HTTPException:
    return HTTPException(413, f"more than {max_bytes:,} bytes, the most that is taken")

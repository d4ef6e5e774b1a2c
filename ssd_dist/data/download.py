"""Fetches a file over HTTP: goes on where it was cut off, keeps nothing with a wrong checksum."""

from __future__ import annotations

import errno
import hashlib
import http.client
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from ssd_dist.data.signed_urls import publishable

OnBytes = Callable[[float, float], None]
"""Called with the bytes that are here, and those in all (0: not known)."""

MAX_BYTES = 256 * 2**30
"""Largest file that is fetched."""
_ATTEMPTS = 5
_TIMEOUT_S = 60.0
_FIRST_PAUSE_S = 1.0
_CHUNK = 2**20


class _CutOffError(OSError):
    """The connection ended before the file did."""


def download(
    url: str, target: Path, checksum: str | None = None, on_bytes: OnBytes | None = None
) -> str:
    """Fetches `url` into `target`, which then is whole; returns its SHA-256.

    What has come of a file lies beside `target` until it is whole. A connection that ends early is
    taken up again from there, five times, and so is a call that was cut off; if the server says
    that the file has changed meanwhile, from its beginning.

    Args:
        url: http or https.
        target: is replaced.
        checksum: `sha256=…` or `md5=…`, in hexadecimal; None: none is known.
        on_bytes: progress.

    Raises ValueError for a checksum that differs, after which nothing is left; OSError, in one
    sentence, where the server or the disk does not do it.
    """
    shown = publishable(url)
    part = target.with_name(f"{target.name}.part")
    version = target.with_name(f"{target.name}.version")
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _fetch(url, part, version, on_bytes)
            break
        except urllib.error.HTTPError as error:
            refused = error.code in (401, 403)
            helps = ": if it takes a signature or token, give --data with it" if refused else ""
            raise OSError(
                f"{shown}: the server answers {error.code} {error.reason}{helps}"
            ) from None
        except (_CutOffError, urllib.error.URLError, http.client.HTTPException, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG):
                raise
            if attempt == _ATTEMPTS:
                here = part.stat().st_size if part.exists() else 0
                reason = getattr(error, "reason", None) or error
                kept = (
                    f"; the {here:,} bytes that have come are kept, and the same command goes on "
                    "from there"
                )
                raise OSError(
                    f"{shown}: not to be fetched in {_ATTEMPTS} attempts: {reason}"
                    f"{kept if here else ''}"
                ) from None
            time.sleep(_FIRST_PAUSE_S * 2 ** (attempt - 1))
    sha256 = _digest(part, "sha256")
    if checksum is not None:
        kind, _, expected = checksum.partition("=")
        found = sha256 if kind == "sha256" else _digest(part, kind)
        if found != expected.lower():
            part.unlink()
            version.unlink(missing_ok=True)
            raise ValueError(
                f"{shown}: its {kind} is {found}, not {expected.lower()}: it is another file, or "
                "was damaged on its way; nothing of it is kept"
            )
    part.replace(target)
    version.unlink(missing_ok=True)
    return sha256


def _fetch(url: str, part: Path, version: Path, on_bytes: OnBytes | None) -> None:
    """Appends to `part` what is missing of the file. `version` holds what the server called the
    version of which `part` is the beginning; without it, it is fetched anew."""
    start = part.stat().st_size if part.exists() and version.exists() else 0
    headers = {"User-Agent": "ssd_dist", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": version.read_text(encoding="utf-8")}
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        version.unlink()  # `part` is as long as the file, or longer: what it is, is not known
        raise _CutOffError("the server has no such part") from None
    with response:
        if response.status != 206 or not _begins_at(response, start):
            start = 0
        version.unlink(missing_ok=True)
        known = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if known and not known.startswith("W/"):
            version.write_text(known, encoding="utf-8")
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else 0
        _check_room(url, part, max(total - start, 0), total)
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            here = start
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                here += len(chunk)
                if here > MAX_BYTES:
                    raise _too_large(url)
                if on_bytes is not None:
                    on_bytes(here, max(total, here))
    if here < total:
        raise _CutOffError(f"the connection ended after {here:,} of {total:,} bytes")


def _begins_at(response: http.client.HTTPResponse, start: int) -> bool:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return found is not None and int(found[1]) == start


def _check_room(url: str, part: Path, needed: int, total: int) -> None:
    if total > MAX_BYTES:
        raise _too_large(url)
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{publishable(url)} needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free",
            str(part.parent),
        )


def _too_large(url: str) -> OSError:
    return OSError(errno.EFBIG, f"more than {MAX_BYTES / 2**30:.0f} GiB", publishable(url))


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()

"""URLs that carry the right to fetch what they name: that right is nobody else's business, and it
expires, so it is no part of the name."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_SIGNATURE = re.compile(
    "X-(Amz|Goog|Oss|Ms)-.*|AWSAccessKeyId|GoogleAccessId|OSSAccessKeyId|Signature|Expires|Policy"
    "|Key-Pair-Id",
    re.IGNORECASE,
)
"""Parameters by which object stores and content networks sign a URL for some time."""
_AZURE = re.compile("sig|s[eiprtv]|ss|srt|spr|sip|sk[a-z]+|sdd|ses", re.IGNORECASE)
"""The same of Azure's, where one of them is `sig`."""
_SECRET = re.compile(".*(token|passw|secret|credential|api_?key).*|auth|rlkey|pwd", re.IGNORECASE)
"""Parameters by which others do; in some services they also tell one file from another."""


def unsigned(url: str) -> str:
    """The URL without a signature that expires: signed anew, it names the same file."""
    return _without(url, _SIGNATURE)


def publishable(data: str) -> str:
    """What `--data` was given, as it may be written down: of a URL no signature, token or password.
    Anything else stays as it is."""
    return _without(data, _SIGNATURE, _SECRET)


def _without(url: str, *names: re.Pattern[str]) -> str:
    if not url.startswith(("http://", "https://")):
        return url
    parts = urlsplit(url)
    parameters = [part for part in parts.query.split("&") if part]
    if any(part.lower().startswith("sig=") for part in parameters):
        names = (*names, _AZURE)
    kept = [
        part
        for part in parameters
        if not any(name.fullmatch(part.partition("=")[0]) for name in names)
    ]
    if kept == parameters:
        return url
    return parts._replace(query="&".join(kept)).geturl()

"""URLs that carry the right to fetch what they name: that right is nobody else's business, and it
expires, so it is no part of the name."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

_SIGNATURE = re.compile(r"X-(Amz|Goog)-.*|X-Oss-(?!process).*", re.IGNORECASE)
"""Parameters by which object stores sign a URL for some time."""
_SIGNER = re.compile("(AWS|OSS|Google)?Access(Key)?Id|Key-Pair-Id", re.IGNORECASE)
_SIGNED = re.compile("Signature|Expires|Policy|security-token", re.IGNORECASE)
"""The same, where one of them is `_SIGNER`; alone they may mean anything."""
_AZURE = re.compile("sig|s[eiprtv]|ss|srt|spr|sip|sk[a-z]+|sdd|ses|saoid|suoid|scid", re.IGNORECASE)
"""The same of Azure's, where one of them is `sig`."""
_SECRET = re.compile(
    ".*(token|passw|secret|credential|signature|auth|hmac|jwt|api_?key|access_?key).*"
    "|key|pwd|sas|sig|rlkey|hdnts|q-ak",
    re.IGNORECASE,
)
"""Parameters by which others do; in some services they also tell one file from another."""


def unsigned(url: str) -> str:
    """The URL without a signature that expires: signed anew, it names the same file."""
    names = [_SIGNATURE]
    parameters = _parameters(url)
    if any(_SIGNER.fullmatch(_name(each)) for each in parameters):
        names += [_SIGNER, _SIGNED]
    if any(_name(each).lower() == "sig" for each in parameters):
        names.append(_AZURE)
    return _without(url, names)


def publishable(data: str) -> str:
    """What `--data` was given, as it may be written down: of a URL no signature, token or password.
    Anything else stays as it is."""
    return _without(unsigned(data), [_SECRET])


def _without(url: str, names: list[re.Pattern[str]]) -> str:
    before = _parameters(url)
    kept = [each for each in before if not any(name.fullmatch(_name(each)) for name in names)]
    return url if kept == before else urlsplit(url)._replace(query="&".join(kept)).geturl()


def _parameters(url: str) -> list[str]:
    """As they stand in the URL; none of what is no URL."""
    if not url.startswith(("http://", "https://")):
        return []
    return [each for each in urlsplit(url).query.split("&") if each]


def _name(parameter: str) -> str:
    return unquote(parameter.partition("=")[0])

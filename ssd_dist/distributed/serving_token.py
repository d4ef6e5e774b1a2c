"""Who may ask a service: everybody on this machine, or who has its token."""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
from pathlib import Path

_LEAST_LENGTH = 16
_NUM_BYTES = 32


def read_token(path: Path) -> str:
    """The token in a file, without the blanks around it; a file that is not there is made with a
    new one, for its owner alone to read.

    A token is never given on the command line, where every user of the machine could read it.

    Raises ValueError if it is shorter than 16 characters or has others than visible ASCII ones;
    OSError if the file can't be read or made.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: there is no folder {path.parent} to make a token's file in"
        ) from None
    except FileExistsError:
        token = path.read_text(encoding="utf-8", errors="replace").strip()
    else:
        token = secrets.token_urlsafe(_NUM_BYTES)
        with os.fdopen(handle, "w") as file:
            file.write(f"{token}\n")
    if len(token) < _LEAST_LENGTH or not all("!" <= character <= "~" for character in token):
        raise ValueError(
            f"{path}: a token is at least {_LEAST_LENGTH} ASCII letters, digits and signs, on one "
            "line; name a file that is not there, and one is made"
        )
    return token


def admits(authorization: str | None, token: str) -> bool:
    """Whether a request's `Authorization` header is `Bearer` and the token."""
    kind, _, given = (authorization or "").partition(" ")
    # In a time that does not tell how much of it is right.
    return kind.lower() == "bearer" and hmac.compare_digest(
        given.strip().encode("utf-8", "replace"), token.encode()
    )


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

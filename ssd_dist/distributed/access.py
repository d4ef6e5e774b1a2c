"""Who may come in: the token that Ray asks for."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import grpc

_TIMEOUT_S = 10.0
_ANY_REQUEST = "/ray.rpc.NodeInfoGcsService/CheckAlive"


def token_place() -> str:
    """Where this process's token comes from, in Ray's order: a variable's name, or a file's."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN"
    return os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"


def keep_token_private() -> None:
    """Sees to a token in Ray's own place that this account alone can read.

    Ray makes one where there is none, but leaves it to everybody to read. A token that is named by
    RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH is the user's business.
    """
    if os.environ.get("RAY_AUTH_MODE") != "token" or not token_place().startswith("~"):
        return
    path = Path(token_place()).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
    with contextlib.suppress(PermissionError):  # another account's
        path.chmod(0o600)


def is_open(address: str) -> bool:
    """Whether the Ray at `address` (host:port of its control store) answers without a token; False
    also where that can't be found out."""
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary(_ANY_REQUEST)(b"", timeout=_TIMEOUT_S)
        except grpc.RpcError:
            return False
    return True

"""The key-value store of Ray's head, where our processes leave each other word.

Ray has no public way to it; what is called here of Ray's inside is called nowhere else. All raise
RayError where the head does not answer, after Ray's own time-out.
"""

from __future__ import annotations

from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_exists,
    _internal_kv_get,
    _internal_kv_list,
    _internal_kv_put,
)

_NAMESPACE = "ssd_dist"


def put(key: str, value: str = "") -> None:
    """Stores `value`, in place of what `key` had."""
    _internal_kv_put(key, value, namespace=_NAMESPACE)


def get(key: str) -> bytes | None:
    """What `key` has; None if it is not there."""
    value: bytes | None = _internal_kv_get(key, namespace=_NAMESPACE)
    return value


def exists(key: str) -> bool:
    """Whether `key` is there."""
    return bool(_internal_kv_exists(key, namespace=_NAMESPACE))


def keys_below(prefix: str) -> list[str]:
    """All keys that begin so, sorted."""
    return sorted(key.decode() for key in _internal_kv_list(prefix, namespace=_NAMESPACE))


def delete(key: str) -> None:
    """Takes `key` away, if it is there."""
    _internal_kv_del(key, namespace=_NAMESPACE)


def delete_below(prefix: str) -> None:
    """Takes away all keys that begin so."""
    _internal_kv_del(prefix, del_by_prefix=True, namespace=_NAMESPACE)

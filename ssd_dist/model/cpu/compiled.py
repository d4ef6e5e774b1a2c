"""Loops over a map's values, compiled by numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba.extending
import torch
from numba import njit
from torch import Tensor

intrinsic: Any = numba.extending.intrinsic
"""Of what it makes numba's types say that it is called as it is written, which it is not."""

_OPTIONS: dict[str, Any] = {
    "cache": True,  # beside the source or in the user's folder of caches: compiled once
    "nogil": True,
    "error_model": "numpy",
    # Not "nnan": a loss that is not finite must be seen.
    "fastmath": {"contract", "nsz", "arcp", "reassoc"},
}


Loop = TypeVar("Loop", bound=Callable[..., object])


def compiled(function: Loop) -> Loop:
    """`function` in machine code, which is kept on disk where there is a place for it."""
    try:
        result: Loop = njit(**_OPTIONS)(function)
    except RuntimeError:  # no folder to write to
        result = njit(**(_OPTIONS | {"cache": False}))(function)
    return result


def can_run(*tensors: Tensor) -> bool:
    """Whether such loops can take the place of PyTorch's operations.

    They know float32 on a CPU and run in one thread, which is what a worker has; PyTorch's
    operations use as many as there are.
    """
    return (
        not torch.compiler.is_compiling()
        and all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
        and torch.get_num_threads() == 1
        and not torch.is_autocast_enabled("cpu")
    )

"""Products of matrices in numba's loops, by the routine that PyTorch itself calls."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import get_cython_function_address
from numba.np.arrayobj import make_array
from numpy.typing import NDArray

from ssd_dist.model.cpu.compiled import compiled, intrinsic

_INT, _FLOAT = ir.IntType(32), ir.FloatType()


def _address() -> int:
    """Of BLAS's sgemm: MKL's, which is part of PyTorch on x86; elsewhere SciPy's."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        address = ctypes.cast(ctypes.CDLL(str(library)).sgemm_, ctypes.c_void_p).value
    except (OSError, AttributeError):
        address = None
    found: int = address or get_cython_function_address("scipy.linalg.cython_blas", "sgemm")
    return found


SGEMM = _address()
"""What the functions below take first: an address in their code could not be kept on disk."""


@intrinsic
def _sgemm(
    _: Any,
    address: Any,
    transposed: types.UniTuple,
    sizes: types.UniTuple,
    one: types.Array,
    other: types.Array,
    beta: Any,
    output: types.Array,
) -> tuple[Any, Callable[..., Any]]:
    """Fortran's: output (m, n) = one (m, k) · other (k, n) + beta · output, by columns.

    `transposed`: of one and other; `sizes`: m, n, k and the lengths of the three's columns.
    """

    def code(context: Any, builder: Any, signature: Any, values: Any) -> None:
        address, transposed, sizes, *rest = values
        beta = rest.pop(2)
        letters = [
            builder.select(flag, ir.Constant(ir.IntType(8), 84), ir.Constant(ir.IntType(8), 78))
            for flag in cgutils.unpack_tuple(builder, transposed)
        ]
        m, n, k, *lengths = (
            builder.trunc(size, _INT) for size in cgutils.unpack_tuple(builder, sizes)
        )
        arrays = [signature.args[3], signature.args[4], signature.args[6]]
        pointers = [
            make_array(array)(context, builder, value).data
            for array, value in zip(arrays, rest, strict=True)
        ]

        def at(value: Any) -> Any:
            return cgutils.alloca_once_value(builder, value)

        one, other, output = zip(pointers, map(at, lengths), strict=True)
        alpha = at(ir.Constant(_FLOAT, 1.0))
        arguments = [*map(at, letters), *map(at, (m, n, k)), alpha, *one, *other, at(beta), *output]
        of = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        builder.call(builder.inttoptr(address, of.as_pointer()), arguments)

    flags, numbers = types.UniTuple(types.boolean, 2), types.UniTuple(types.int64, 6)
    return types.void(types.int64, flags, numbers, one, other, types.float32, output), code


@compiled
def rows_by_rows(
    sgemm: int,
    cells: int,
    one: NDArray[np.float32],
    other: NDArray[np.float32],
    output: NDArray[np.float32],
) -> None:
    """Writes `one`, as (cells, N), times `other` (C, N), transposed, to `output` as (cells, C)."""
    columns, depth = other.shape
    sizes = (columns, cells, depth, depth, depth, columns)
    _sgemm(sgemm, (True, False), sizes, other, one, np.float32(0), output)


@compiled
def rows_by_columns(
    sgemm: int,
    cells: int,
    one: NDArray[np.float32],
    other: NDArray[np.float32],
    output: NDArray[np.float32],
) -> None:
    """Writes `one`, as (cells, C), times `other` (C, N) to `output` as (cells, N)."""
    depth, columns = other.shape
    sizes = (columns, cells, depth, columns, depth, columns)
    _sgemm(sgemm, (False, False), sizes, other, one, np.float32(0), output)


@compiled
def add_columns_by_columns(
    sgemm: int,
    cells: int,
    one: NDArray[np.float32],
    other: NDArray[np.float32],
    output: NDArray[np.float32],
) -> None:
    """Adds `one`, as (cells, C), transposed, times `other`, as (cells, N), to `output` (C, N)."""
    rows, columns = output.shape
    sizes = (columns, rows, cells, columns, rows, columns)
    _sgemm(sgemm, (False, True), sizes, other, one, np.float32(1), output)

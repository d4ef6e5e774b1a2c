"""Eight float32 at once, for numba's loops where LLVM does not find out by itself that it may.

It vectorises a loop only if it can tell, by the few comparisons it allows itself, that what is
written overlaps with nothing that is read. Depthwise convolutions read too much for that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import models, register_model
from numba.np.arrayobj import make_array

from ssd_dist.model.cpu.compiled import intrinsic

WIDTH = 8


class _Vector(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"float32x{WIDTH}")


_VECTOR = _Vector()
_LLVM_VECTOR = ir.VectorType(ir.FloatType(), WIDTH)


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, of: _Vector) -> None:
        super().__init__(manager, of, _LLVM_VECTOR)


def _pointer(context: Any, builder: Any, array: types.Array, value: Any, index: Any) -> Any:
    data = make_array(array)(context, builder, value).data
    return builder.bitcast(cgutils.gep(builder, data, index), _LLVM_VECTOR.as_pointer())


@intrinsic
def load(_: Any, array: types.Array, index: Any) -> tuple[Any, Callable[..., Any]]:
    """The values at `index` and after it of a contiguous one-dimensional array of float32."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(_pointer(context, builder, signature.args[0], *values), align=4)

    return _VECTOR(array, types.intp), code


@intrinsic
def store(
    _: Any, array: types.Array, index: Any, vector: _Vector
) -> tuple[Any, Callable[..., Any]]:
    """Writes them there."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        to, index, vector = values
        builder.store(vector, _pointer(context, builder, signature.args[0], to, index), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), code


@intrinsic
def spread(_: Any, value: Any) -> tuple[Any, Callable[..., Any]]:
    """A number in all places."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        alone = builder.insert_element(
            ir.Constant(_LLVM_VECTOR, ir.Undefined), values[0], ir.Constant(ir.IntType(32), 0)
        )
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
        return builder.shuffle_vector(alone, ir.Constant(_LLVM_VECTOR, ir.Undefined), everywhere)

    return _VECTOR(types.float32), code


@intrinsic
def add(_: Any, one: _Vector, other: _Vector) -> tuple[Any, Callable[..., Any]]:
    """Their sum."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fadd(*values)

    return _VECTOR(one, other), code


@intrinsic
def times(_: Any, one: _Vector, other: _Vector) -> tuple[Any, Callable[..., Any]]:
    """Their product."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fmul(*values)

    return _VECTOR(one, other), code


@intrinsic
def times_plus(
    _: Any, one: _Vector, other: _Vector, summand: _Vector
) -> tuple[Any, Callable[..., Any]]:
    """one · other + summand, in one operation where the processor has it."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        product = builder.fmul(*values[:2], flags=("contract",))
        return builder.fadd(product, values[2], flags=("contract",))

    return _VECTOR(one, other, summand), code


@intrinsic
def if_less(
    _: Any, one: _Vector, other: _Vector, then: _Vector, otherwise: _Vector
) -> tuple[Any, Callable[..., Any]]:
    """`then` where one < other, else `otherwise`, which is so for NaN."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        is_less = builder.fcmp_ordered("<", *values[:2])
        return builder.select(is_less, *values[2:])

    return _VECTOR(one, other, then, otherwise), code

"""What one operation of a network costs: Eq. 3, other arithmetic, and the bytes that it moves.

A convolution or linear layer l costs n_{l-1} · f² · n_l · m_l² / groups multiply-accumulates
(MACs), n being channels, f the filter's side and m the output's. As in He and Sun's study (2015)
nothing else counts into Eq. 3; batch norm, activations, pooling, attention's products, sums and
copies have figures of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

Pair = tuple[int, int]

# By PyTorch's names of its own operations, without the underscore of those that work in place.
_NAMES_OF_KIND = {
    "convolution": "convolution",
    "linear": "mm addmm",
    "attention": "bmm baddbmm",
    "batch_norm": "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training",
    "other_norm": "native_layer_norm native_group_norm linalg_vector_norm _fused_rms_norm",
    "activation": "relu threshold hardtanh hardswish hardsigmoid silu gelu sigmoid tanh elu "
    "leaky_relu mish softplus _prelu_kernel",
    "pooling": "max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d mean",
    "softmax": "_softmax _safe_softmax _log_softmax logsumexp",
    "dropout": "native_dropout bernoulli",
    "resizing": "upsample_nearest2d upsample_bilinear2d upsample_bicubic2d",
    "copy": "cat clone copy _to_copy constant_pad_nd gather index stack roll fill zero zeros "
    "new_zeros zeros_like ones_like full scalar_tensor arange",
}
_KIND_OF_NAME = {name: kind for kind, names in _NAMES_OF_KIND.items() for name in names.split()}

_MODULES_OWN = ("convolution", "linear", "batch_norm")
"""Kinds that are what their module is for, also where it has others inside it (timm's batch norm
has its activation)."""

_OPERATIONS_PER_ELEMENT = {"batch_norm": 2, "other_norm": 5, "softmax": 5, "copy": 0}
"""By kind, else 1. Batch norm in inference is a product and a sum; a softmax is a maximum, a
difference, exp, a sum and a quotient, and layer norm about as much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One operation as PyTorch runs it; all figures for the batch that it ran on."""

    name: str
    """Of the module; for what runs between modules, of the module around it and of the operation
    (`backbone.features.layer1.0.add`)."""
    kind: str
    """`convolution`, `linear`, `attention` (products of two activations), `batch_norm`,
    `other_norm`, `activation`, `pooling`, `softmax`, `dropout`, `resizing`, `copy` or
    `elementwise`."""
    in_channels: int
    """n_{l-1}. Outside convolutions and linear layers: the second dimension of a tensor of four or
    more, the last of a smaller one."""
    out_channels: int
    """n_l."""
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    groups: int = 1
    output_hw: Pair
    """Rows and columns of the output; of a linear layer on N positions, (N, 1)."""
    params: int
    """Parameters that it is the first to read."""
    macs: int = 0
    """Eq. 3, for convolutions and linear layers."""
    input_gradient_macs: int = 0
    """Of the backward pass: as many as `macs`, or 0 where nothing before the layer trains."""
    weight_gradient_macs: int = 0
    """Of the backward pass: as many as `macs`, or 0 where the weights are frozen."""
    other_ops: int = 0
    """Operations outside Eq. 3: about so many an element, but attention's products exactly."""
    activations: int
    """Elements of the output."""
    bytes_read: int
    """Of all inputs, weights among them, each once."""
    bytes_written: int
    """Of all outputs."""

    @property
    def intensity(self) -> float:
        """See :class:`Cost`."""
        return total([self]).intensity


@dataclass(frozen=True, slots=True)
class Cost:
    """What several operations cost together."""

    macs: int
    """Multiply-accumulates of Eq. 3; in a backward pass, of gradients."""
    other_ops: int
    """All other operations."""
    bytes_read: int
    bytes_written: int

    @property
    def bytes_moved(self) -> int:
        """Read and written."""
        return self.bytes_read + self.bytes_written

    @property
    def intensity(self) -> float:
        """Arithmetic intensity: operations a byte moved, a multiply-accumulate being two of them; 0
        where nothing moves."""
        return (2 * self.macs + self.other_ops) / self.bytes_moved if self.bytes_moved else 0.0


def total(parts: Iterable[Layer | Cost]) -> Cost:
    """The sum of layers or costs."""
    rows = [(p.macs, p.other_ops, p.bytes_read, p.bytes_written) for p in parts]
    return Cost(*map(sum, zip(*rows, strict=True))) if rows else Cost(0, 0, 0, 0)


def with_intensity(part: Layer | Cost) -> dict[str, Any]:
    """The fields and the intensity, for JSON."""
    return {**asdict(part), "intensity": part.intensity}


def describe(
    operation: Any,
    args: Sequence[Any],
    result: Any,
    *,
    path: str,
    is_leaf: bool,
    params: int,
    has_weights: bool,
) -> Layer:
    """The layer that a call of one of PyTorch's own operations is.

    Args:
        operation: what ran, as a `TorchDispatchMode` sees it (`aten.convolution`); no view.
        args: all its arguments.
        result: what it returned: a tensor, or several with the output first.
        path: of the module that it ran in.
        is_leaf: whether that module has none inside it.
        params: parameters among the arguments that nothing read before.
        has_weights: whether any argument is a parameter or a view of one.
    """
    inputs, outputs = distinct_tensors(args), distinct_tensors(result)
    called = operation.__name__.removesuffix("_")
    kind = _KIND_OF_NAME.get(called.removesuffix("_backward"), "elementwise")
    if kind == "attention" and has_weights:
        kind = "linear"  # on tokens, PyTorch now and then runs one as a batched product
    if called == "convolution":
        figures = _convolution(args, outputs[0])
    elif kind == "linear":
        figures = _linear(*(args[1:3] if called.startswith(("addmm", "baddbmm")) else args[:2]))
    else:
        figures = _elementwise(kind, inputs, outputs[0])
        if called in ("max_pool2d_with_indices", "avg_pool2d"):
            figures |= _window(args, outputs[0])
        elif kind == "attention":
            figures["other_ops"] = flop_registry[operation](*args, out_val=result)
        elif called == "convolution_backward":
            figures["other_ops"] = 0  # the forward pass has counted it as gradients' MACs
    return Layer(
        name=path if is_leaf or kind in _MODULES_OWN else f"{path}.{called}".removeprefix("."),
        kind=kind,
        params=params,
        activations=outputs[0].numel(),
        bytes_read=sum(map(num_bytes, inputs)),
        bytes_written=sum(map(num_bytes, outputs)),
        **figures,
    )


def distinct_tensors(values: Any) -> list[Tensor]:
    """The tensors in nested lists and tuples, each once."""
    return list(
        {id(leaf): leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)}.values()
    )


def storage_of(tensor: Tensor) -> int:
    """Names the memory that a tensor shares with its views."""
    return tensor.untyped_storage()._cdata


def num_bytes(tensor: Tensor) -> int:
    """Of the elements that a tensor shows, or of its memory where it repeats them (`expand`)."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _convolution(args: Sequence[Any], output: Tensor) -> dict[str, Any]:
    image, weight, _, stride, _, dilation, transposed, _, groups = args[:9]
    in_channels, out_channels = image.shape[1], output.shape[1]
    kernel = _pair(weight.shape[2:])
    # Each output cell sums over the filter; of a transposed convolution, each input cell.
    num_cells = len(image) * prod((image if transposed else output).shape[2:])
    macs = in_channels * prod(kernel) * out_channels * num_cells // groups
    return {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "kernel": kernel,
        "stride": _pair(stride),
        "dilation": _pair(dilation),
        "groups": groups,
        "output_hw": _pair(output.shape[2:]),
        "macs": macs,
        "input_gradient_macs": macs * image.requires_grad,
        "weight_gradient_macs": macs * weight.requires_grad,
    }


def _linear(inputs: Tensor, weight: Tensor) -> dict[str, Any]:
    in_channels, out_channels = weight.shape[-2:]
    macs = inputs.numel() * out_channels
    return {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "output_hw": (inputs.numel() // in_channels, 1),
        "macs": macs,
        "input_gradient_macs": macs * inputs.requires_grad,
        "weight_gradient_macs": macs * weight.requires_grad,
    }


def _elementwise(kind: str, inputs: Sequence[Tensor], output: Tensor) -> dict[str, Any]:
    first = inputs[0] if inputs else output
    num_elements = max(tensor.numel() for tensor in (first, output))
    return {
        "in_channels": _channels_hw(first)[0],
        "out_channels": _channels_hw(output)[0],
        "output_hw": _channels_hw(output)[1],
        "other_ops": _OPERATIONS_PER_ELEMENT.get(kind, 1) * num_elements,
    }


def _window(args: Sequence[Any], output: Tensor) -> dict[str, Any]:
    """Of pooling over a window; to pool a whole map is to read each of its elements once."""
    kernel = _pair(args[1])
    stride = _pair(args[2]) if len(args) > 2 and args[2] else kernel
    return {"kernel": kernel, "stride": stride, "other_ops": prod(kernel) * output.numel()}


def _channels_hw(tensor: Tensor) -> tuple[int, Pair]:
    """Channels, and rows and columns, where the number of dimensions tells them."""
    shape = tuple(tensor.shape)
    if len(shape) >= 4:
        return shape[1], (shape[-2], shape[-1])
    return (shape[-1], (prod(shape[:-1]), 1)) if shape else (1, (1, 1))


def _pair(values: Sequence[int]) -> Pair:
    """(rows, columns); a one-dimensional convolution has one column."""
    return (values[0], values[1]) if len(values) > 1 else (values[0], 1)

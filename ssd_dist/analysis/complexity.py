"""Eq. 3: how many multiplications and additions one image costs, layer by layer.

The forward pass of layer l costs n_{l-1} · f² · n_l · m_l² / groups multiply-accumulate operations
(MACs), n being channels, f the kernel's side and m the output's. Only convolutions and linear
layers are counted, as in He and Sun's study (2015); activations, batch norm, pooling and the
products within attention are not.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ssd_dist.model.ssd import SSD


@dataclass(frozen=True, slots=True)
class Layer:
    """One convolution or linear layer, for one image."""

    name: str
    kind: str
    """`conv` or `linear`."""
    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    groups: int
    output_hw: tuple[int, int]
    """Rows and columns of the output; a linear layer on N tokens has (N, 1)."""
    params: int
    """Weights and biases."""
    macs: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the network: `backbone`, `extras` or `heads`."""

    macs: int
    params: int


@dataclass(frozen=True, slots=True)
class Complexity:
    """Operations and parameters of a model at one image size."""

    layers: tuple[Layer, ...]
    """In the order of the forward pass."""
    segments: dict[str, Segment]
    """They add up to the totals. `extras`: the 1x1 convolutions and stride-2 maps after the
    backbone (in torchvision's SSD300 the module `extra`, from VGG's conv5 on)."""
    total_macs: int
    total_params: int
    """All parameters of the model, batch norm's too."""

    def to_json(self) -> dict[str, Any]:
        """The same as plain dicts, lists and numbers."""
        return {
            "total_macs": self.total_macs,
            "total_params": self.total_params,
            "layers": [asdict(layer) for layer in self.layers],
            "segments": {name: asdict(segment) for name, segment in self.segments.items()},
        }


def count_complexity(model: SSD, image_size: int) -> Complexity:
    """Counts the model's operations on one image of `image_size` pixels a side.

    A forward pass on tensors without memory shows the shapes; the model is left as it was.
    """
    layers: list[Layer] = []

    def record(name: str, module: nn.Conv2d | nn.Linear, output: Tensor) -> None:
        layers.append(
            _conv_layer(name, module, output)
            if isinstance(module, nn.Conv2d)
            else _linear_layer(name, module, output)
        )

    handles = [
        module.register_forward_hook(lambda m, _, output, name=name: record(name, m, output))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    was_training = model.training
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    on_meta = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    images = torch.empty(1, 3, image_size, image_size, device="meta")
    try:
        with torch.no_grad():
            functional_call(model.eval(), on_meta, (images,))
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()

    macs: Counter[str] = Counter()
    params: Counter[str] = Counter()
    for layer in layers:
        macs[_segment(layer.name)] += layer.macs
    for name, parameter in model.named_parameters():
        params[_segment(name)] += parameter.numel()
    segments = {name: Segment(macs[name], params[name]) for name in ("backbone", "extras", "heads")}
    return Complexity(tuple(layers), segments, macs.total(), params.total())


def _conv_layer(name: str, module: nn.Conv2d, output: Tensor) -> Layer:
    kernel = (module.kernel_size[0], module.kernel_size[1])
    rows, columns = output.shape[-2:]
    macs = (
        module.in_channels
        * kernel[0]
        * kernel[1]
        * module.out_channels
        * rows
        * columns
        // module.groups
    )
    return Layer(
        name,
        "conv",
        module.in_channels,
        module.out_channels,
        kernel,
        (module.stride[0], module.stride[1]),
        module.groups,
        (rows, columns),
        _num_params(module),
        macs,
    )


def _linear_layer(name: str, module: nn.Linear, output: Tensor) -> Layer:
    positions = output.numel() // module.out_features
    return Layer(
        name,
        "linear",
        module.in_features,
        module.out_features,
        (1, 1),
        (1, 1),
        1,
        (positions, 1),
        _num_params(module),
        module.in_features * module.out_features * positions,
    )


def _num_params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters(recurse=False))


def _segment(name: str) -> str:
    if name.startswith("head."):
        return "heads"
    return "extras" if name.startswith(("backbone.extra.", "backbone.neck.")) else "backbone"

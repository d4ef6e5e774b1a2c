"""timm's blocks of mobile networks: layers one after the other, whose input is added at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeGuard

from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import Tensor, nn

Block: TypeAlias = DepthwiseSeparableConv | InvertedResidual

_LAYERS: dict[type[nn.Module], str] = {
    DepthwiseSeparableConv: "conv_dw bn1 aa se conv_pw bn2",
    InvertedResidual: "conv_pw bn1 conv_dw bn2 aa se conv_pwl bn3",
}
"""In the order in which they are called."""


def is_block(module: nn.Module) -> TypeGuard[Block]:
    """Whether it is one whose layers are known here."""
    return type(module) in _LAYERS and module.conv_s2d is None


def layers_of(block: Block) -> list[nn.Module]:
    """What it does to its input, before that is added."""
    return [getattr(block, name) for name in _LAYERS[type(block)].split()]


@dataclass(frozen=True, slots=True)
class Residual:
    """In place of a block's `forward`."""

    layers: Callable[[Tensor], Tensor]
    block: Block

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → what the block gives."""
        output = self.layers(x)
        return self.block.drop_path(output) + x if self.block.has_skip else output

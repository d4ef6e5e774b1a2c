"""Batch normalisation in training, with the activation behind it, where no chain takes them up.

PyTorch passes over a map nine times for both, forward and backward, and keeps two more for the
backward pass. Here it is five times and none: activation and slope are computed where the norm is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ssd_dist.model.cpu.compiled import can_run
from ssd_dist.model.cpu.lazy_maps import LazyMap, Normalised, as_array, as_tensor
from ssd_dist.model.cpu.norm_kernels import Activation, add_moments

ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.Identity: Activation(),
    nn.ReLU: Activation(low=np.float32(0)),
    nn.ReLU6: Activation(low=np.float32(0), high=np.float32(6)),
    nn.Hardswish: Activation(hard_swish=True),
}


def can_normalise(norm: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    """Whether it is a batch norm that can be computed here."""
    return (
        isinstance(norm, nn.BatchNorm2d)
        and type(norm) in (nn.BatchNorm2d, BatchNormAct2d)
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and own_activation(norm) is not None
    )


def own_activation(norm: nn.Module) -> Activation | None:
    """What timm's norms do to what they have normalised, and others don't; None if it is nothing
    that is known here."""
    act: nn.Module = getattr(norm, "act", nn.Identity())
    drops = not isinstance(getattr(norm, "drop", None), nn.Identity | None)
    return None if drops else ACTIVATIONS.get(type(act))


@dataclass(frozen=True, slots=True)
class NormLayers:
    """A norm and the activation behind it, in place of their modules."""

    norm: nn.BatchNorm2d
    activation: nn.Module | None = None
    """None if there is none or the norm itself activates."""

    def __call__(self, input: Tensor) -> Tensor:
        """(B, C, H, W) → what the modules give."""
        norm = self.norm
        # Of a single value a channel the norm itself says what is wrong.
        has_moments = norm.training and input.numel() > input.shape[1]
        if has_moments and can_run(input, norm.weight):
            output: Tensor = NormActivation.apply(
                input, norm.weight, norm.bias, norm, ACTIVATIONS[type(self._acts())]
            )
            return output
        # Its own `forward` may be this.
        input = type(norm).forward(norm, input)
        return input if self.activation is None else self.activation(input)

    def _acts(self) -> nn.Module:
        own: nn.Module = getattr(self.norm, "act", nn.Identity())
        return self.activation or own


class NormActivation(torch.autograd.Function):
    """A batch norm and the activation behind it. By this name a profiler knows it."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor,
        norm: nn.BatchNorm2d,
        activation: Activation,
    ) -> Tensor:
        """(B, C, H, W) → the same, both float32 with the channels last. Updates the running
        statistics of `norm`; γ and β, `weight` and `bias`, are (C)."""
        map = LazyMap(as_array(input))
        moments = np.zeros((3, map.columns))
        add_moments(map.rows(map.stored), moments)
        ctx.norm = Normalised.of(norm, moments, activation)
        ctx.save_for_backward(input)
        return as_tensor(LazyMap(map.stored, ctx.norm).values())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of input, γ and β."""
        map, towards = LazyMap(as_array(*ctx.saved_tensors), ctx.norm), as_array(gradient)
        of_weight, of_bias, to_input = ctx.norm.gradients(map.sums(towards))
        of_input = as_tensor(map.stored_gradient(towards, to_input))
        return of_input, torch.from_numpy(of_weight), torch.from_numpy(of_bias), None, None

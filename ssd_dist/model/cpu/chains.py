"""Convolutions one behind the other in training, with the norms and activations in between.

On a CPU a mobile network's time is spent on reading and writing its maps, some megabytes each.
PyTorch passes over a map fifteen times, layer by layer, and keeps three copies for the backward
pass. Here a map is written once, as its convolution gives it, and its moments are taken while it
lies in a core's cache; whoever reads it normalises and activates what it reads. The backward pass
does so again, so that nothing else is kept, and takes the sums that a norm's gradient needs along
with the gradient of the convolution behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchvision.ops import SqueezeExcitation

from ssd_dist.model.cpu import depthwise, products
from ssd_dist.model.cpu.compiled import can_run
from ssd_dist.model.cpu.gates import Gate, gate_parameters
from ssd_dist.model.cpu.lazy_maps import LazyMap, Normalised, as_array, as_tensor
from ssd_dist.model.cpu.norm_kernels import Activation
from ssd_dist.model.folding import NormedConvolution

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stage:
    """A convolution and what is done to its output."""

    convolution: nn.Conv2d
    """1 x 1 or depthwise; see `products.is_product` and `depthwise.is_depthwise`."""
    norm: nn.BatchNorm2d | None
    """None where the convolution has a bias or, in a chain's last stage, nothing behind it; one
    whose statistics are held is the convolution's."""
    activation: Activation
    gate: SqueezeExcitation | None = None
    """Not in the last stage, nor before a depthwise convolution."""

    @property
    def is_lazy(self) -> bool:
        """Whether bias, norm and activation are left to whoever reads what it stores."""
        return (
            self.norm is not None
            or self.activation != Activation()
            or not products.is_product(self.convolution)
        )

    @property
    def has_bias(self) -> bool:
        """Whether its second parameter is one, behind the filters."""
        convolution = self.convolution
        return isinstance(convolution, NormedConvolution) or convolution.bias is not None

    @property
    def parameters(self) -> list[Tensor]:
        """All that it has, or what they make: of a norm whose statistics are held, the filters and
        the bias of both."""
        convolution, norm, gate = self.convolution, self.norm, self.gate
        parameters = [convolution.weight, convolution.bias]
        if isinstance(convolution, NormedConvolution):
            parameters = [*convolution.folded()]
        if norm is not None:
            parameters += [norm.weight, norm.bias]
        if gate is not None:
            parameters += gate_parameters(gate)
        return [p for p in parameters if p is not None]


@dataclass(frozen=True, slots=True)
class Chain:
    """Stages, in place of the modules they are made of."""

    stages: tuple[Stage, ...]
    modules: tuple[nn.Module, ...]
    """What is done one by one where the stages can't be."""

    def __call__(self, input: Tensor) -> Tensor:
        """(B, C, H, W) → what the modules give."""
        if not self._can_run(input):
            for module in self.modules:
                input = module(input)
            return input
        by_stage = [stage.parameters for stage in self.stages]
        numbers = [len(parameters) for parameters in by_stage]
        flat = [p for parameters in by_stage for p in parameters]
        output: Tensor = ConvolutionChain.apply(input, self.stages, numbers, *flat)
        return output

    def _can_run(self, input: Tensor) -> bool:
        if not can_run(input, self.stages[0].convolution.weight) or input.ndim != 4:
            return False
        norms = [stage.norm for stage in self.stages if stage.norm is not None]
        if not all(each.training for each in (self.stages[0].convolution, *norms)):
            return False
        height, width = input.shape[2:]
        for stage in self.stages:
            if not products.is_product(stage.convolution):
                height, width = depthwise.output_size(stage.convolution, height, width)
        # Of a single value a channel the norm itself says what is wrong.
        return min(height, width) > 0 and (not norms or len(input) * height * width > 1)


class ConvolutionChain(torch.autograd.Function):
    """By this name a profiler knows it."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, stages: Sequence[Stage], numbers: list[int], *parameters: Tensor
    ) -> Tensor:
        """(B, C, H, W), channels last → the last stage's values. Updates the norms' statistics.

        Each stage has so many of the parameters as `numbers` say.
        """
        maps = [LazyMap(as_array(input))]
        norms: list[Normalised | None] = [None]
        gates: list[Gate | None] = []
        for stage, (filters, *others) in zip(stages, _by_stage(parameters, numbers), strict=True):
            layer = stage.convolution
            stored, moments = _way(layer).convolve(
                maps[-1], layer, filters.detach().numpy(), take_moments=stage.norm is not None
            )
            norm = None
            if stage.norm is not None:
                norm = Normalised.of(stage.norm, moments, stage.activation)
            elif stage.is_lazy:
                norm = Normalised.shifted(others[0].detach().numpy(), stage.activation)
            norms.append(norm)
            maps.append(LazyMap(stored, norm))
            if stage.has_bias and not stage.is_lazy:
                maps[-1].add(others[0].detach().numpy())
            gate = None
            if stage.gate is not None:
                gate = Gate(stage.gate, maps[-1])
                maps[-1].factors = gate.factors
            gates.append(gate)
        _, *kept = (torch.from_numpy(map.stored) for map in maps)
        if not maps[-1].is_lazy:
            kept.pop()  # it is the output itself, and not asked for
        ctx.save_for_backward(input, *kept, *parameters)
        ctx.stages, ctx.gates, ctx.norms = stages, gates, norms
        ctx.numbers, ctx.num_kept = numbers, 1 + len(kept)
        return as_tensor(maps[-1].values())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of input and parameters."""
        towards = as_array(gradient)
        input, *kept = ctx.saved_tensors[: ctx.num_kept]
        stored = [as_array(input), *(each.numpy() for each in kept)]
        if len(kept) < len(ctx.stages):
            stored.append(towards)  # of the last map the shape alone is asked for
        maps = [LazyMap(*each) for each in zip(stored, ctx.norms, strict=True)]
        for map, gate in zip(maps[1:], ctx.gates, strict=True):
            if gate is not None:
                map.factors = gate.factors
        parameters = _by_stage(ctx.saved_tensors[ctx.num_kept :], ctx.numbers)
        of_input, _, _, *asked = ctx.needs_input_grad
        by_stage = _by_stage(asked, ctx.numbers)
        first = 0 if of_input else next(i for i, each in enumerate(by_stage) if any(each))

        found: list[NDArray[np.float32]] = []
        sums: NDArray[np.float64] | None = None
        for i in range(len(maps) - 2, first - 1, -1):
            stage, gate, input, output = ctx.stages[i], ctx.gates[i], *maps[i : i + 2]
            layer = stage.convolution
            of_gate: list[NDArray[np.float32]] = []
            of_scale_and_shift: list[NDArray[np.float32]] = []
            to_output = None
            if gate is not None:
                of_gate = gate.backpropagate(output, towards)
            if output.is_lazy:
                sums = output.sums(towards) if sums is None else sums
                *of_scale_and_shift, to_output = output.norm.gradients(sums)
            elif stage.has_bias:
                of_scale_and_shift = [output.summed(towards)]
            if stage.norm is None:
                del of_scale_and_shift[:-1]
            of_filters, by_input, sums = _way(layer).backpropagate(
                input,
                layer,
                parameters[i][0].detach().numpy(),
                output,
                towards,
                to_output,
                to_input=i > first or of_input,
            )
            found = [of_filters, *of_scale_and_shift, *of_gate, *found]
            if by_input is not None:
                towards = by_input
        gradients: list[NDArray[np.float32] | None] = [None] * (len(asked) - len(found))
        gradients += found
        return (
            as_tensor(towards) if of_input else None,
            None,
            None,
            *(
                torch.from_numpy(each) if is_asked and each is not None else None
                for each, is_asked in zip(gradients, asked, strict=True)
            ),
        )


def _way(layer: nn.Conv2d) -> ModuleType:
    """Where a stage's convolution and its gradients are computed."""
    return products if products.is_product(layer) else depthwise


def _by_stage(each: Sequence[T], numbers: Sequence[int]) -> list[list[T]]:
    """What there is one of for each parameter, stage by stage."""
    remaining = iter(each)
    return [list(islice(remaining, number)) for number in numbers]

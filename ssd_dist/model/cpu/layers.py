"""A network's layers on a CPU: which of them are computed in the ways of this package."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from ssd_dist.model.cpu.blocks import Residual, is_block, layers_of
from ssd_dist.model.cpu.chains import Chain, Stage
from ssd_dist.model.cpu.depthwise import is_depthwise
from ssd_dist.model.cpu.gates import is_gate
from ssd_dist.model.cpu.norm_kernels import Activation
from ssd_dist.model.cpu.norms import ACTIVATIONS, NormLayers, can_normalise, own_activation
from ssd_dist.model.cpu.products import is_product
from ssd_dist.model.cpu.winograd import use_winograd
from ssd_dist.model.folding import NormedConvolution


def use_quick_layers(model: nn.Module) -> None:
    """Has the layers of `model`, in place, computed in the ways of this package where those are
    quicker. No module, weight or name changes, nor what the model computes, but for rounding; hooks
    of layers that are computed together are not called."""
    use_winograd(model)
    for module in model.modules():
        if type(module) is BatchNormAct2d and can_normalise(module):
            module.__dict__["forward"] = NormLayers(module)
        elif _is_sequence(module):
            sequence = _Sequence(_steps(_leaves(module)))
            if sequence.is_quick:
                module.__dict__["forward"] = sequence
        elif is_block(module):
            sequence = _Sequence(_steps(_leaves(layers_of(module))))
            if sequence.is_quick:
                module.__dict__["forward"] = Residual(sequence, module)


@dataclass(frozen=True, slots=True)
class _Sequence:
    """Modules one after the other, as an `nn.Sequential`'s `forward`."""

    steps: list[Callable[[Tensor], Tensor]]

    @property
    def is_quick(self) -> bool:
        """Whether any of them is computed in the ways of this package."""
        return any(isinstance(step, Chain | NormLayers) for step in self.steps)

    def __call__(self, input: Tensor) -> Tensor:
        for step in self.steps:
            input = step(input)
        return input


def _is_sequence(module: nn.Module) -> TypeGuard[nn.Sequential]:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _leaves(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """Those that are called one after the other, those of sequences among them too."""
    leaves: list[nn.Module] = []
    for module in modules:
        if _is_sequence(module):
            leaves += _leaves(module)
        elif type(module) is not nn.Identity:
            leaves.append(module)
    return leaves


def _steps(leaves: Sequence[nn.Module]) -> list[Callable[[Tensor], Tensor]]:
    """What a sequence of `leaves` does: chains, as long as they can be, and what lies between."""
    steps: list[Callable[[Tensor], Tensor]] = []
    while leaves:
        chain = _chain(leaves)
        if chain is not None:
            steps.append(chain)
            leaves = leaves[len(chain.modules) :]
            continue
        first, *leaves = leaves
        if type(first) is nn.BatchNorm2d and can_normalise(first):
            activation = leaves.pop(0) if leaves and type(leaves[0]) in ACTIVATIONS else None
            steps.append(NormLayers(first, activation))
        else:
            steps.append(first)
    return steps


def _chain(leaves: Sequence[nn.Module]) -> Chain | None:
    """That which `leaves` begin with."""
    stages: list[Stage] = []
    length = 0
    while (found := _stage(leaves[length:])) is not None:
        stage, num_leaves = found
        stages.append(stage)
        length += num_leaves
        if not stage.is_lazy:
            break
    # A convolution alone is PyTorch's.
    if len(stages) < 2 and all(stage.norm is None for stage in stages):
        return None
    if stages[-1].gate is not None:  # what is behind it makes no stage
        stages[-1] = replace(stages[-1], gate=None)
        length -= 1
    return Chain(tuple(stages), tuple(leaves[:length]))


def _stage(leaves: Sequence[nn.Module]) -> tuple[Stage, int] | None:
    """That which `leaves` begin with, and how many of them it is."""
    if not leaves:
        return None
    convolution, *behind = leaves
    if not (is_product(convolution) or is_depthwise(convolution)):
        return None
    norm, activation, length = None, Activation(), 1
    has_bias = convolution.bias is not None
    first = behind[0] if behind else None
    if isinstance(convolution, NormedConvolution):
        own = own_activation(convolution.norm_behind)
        if first is not convolution.norm_behind or own is None:
            return None
        activation, length, has_bias = own, 2, True
    elif isinstance(first, nn.BatchNorm2d) and type(first) in (nn.BatchNorm2d, BatchNormAct2d):
        own = own_activation(first)
        if not can_normalise(first) or own is None or has_bias:
            return None
        norm, activation, length = first, own, 2
    elif not has_bias:
        return (Stage(convolution, None, activation), 1) if is_product(convolution) else None
    if activation == Activation() and len(leaves) > length and type(leaves[length]) in ACTIVATIONS:
        activation = ACTIVATIONS[type(leaves[length])]
        length += 1
    gate = leaves[length] if len(leaves) > length + 1 else None
    if gate is not None and is_gate(gate) and is_product(leaves[length + 1]):
        return Stage(convolution, norm, activation, gate), length + 1
    return Stage(convolution, norm, activation), length

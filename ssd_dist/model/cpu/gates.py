"""Squeeze and excitation: a lazy map times what is made of its values' means."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from ssd_dist.model.cpu.gate_kernels import scale_and_shift, sum_activations, sum_products
from ssd_dist.model.cpu.lazy_maps import LazyMap

Values: TypeAlias = NDArray[np.float32]


class _Function(NamedTuple):
    of: Callable[[Values], Values]
    slope: Callable[[Values], Values]


def _sigmoid(x: Values) -> Values:
    half = np.float32(0.5)
    return half * np.tanh(half * x) + half


_FUNCTIONS: dict[type[nn.Module], _Function] = {
    nn.ReLU: _Function(lambda x: np.maximum(x, 0), lambda x: (x > 0).astype(np.float32)),
    nn.SiLU: _Function(
        lambda x: x * _sigmoid(x), lambda x: _sigmoid(x) * (1 + x * (1 - _sigmoid(x)))
    ),
    nn.Sigmoid: _Function(_sigmoid, lambda x: _sigmoid(x) * (1 - _sigmoid(x))),
    nn.Hardsigmoid: _Function(
        lambda x: np.clip(x / 6 + np.float32(0.5), 0, 1),
        lambda x: (np.abs(x) < 3).astype(np.float32) / np.float32(6),
    ),
}


def is_gate(module: nn.Module) -> TypeGuard[SqueezeExcitation]:
    """Whether it is one that can be computed here."""
    return (
        type(module) is SqueezeExcitation
        and type(module.activation) in _FUNCTIONS
        and type(module.scale_activation) in _FUNCTIONS
    )


def gate_parameters(module: SqueezeExcitation) -> list[Tensor]:
    """Two products' weights and biases."""
    biases = module.fc1.bias, module.fc2.bias
    assert biases[0] is not None
    assert biases[1] is not None
    return [module.fc1.weight, biases[0], module.fc2.weight, biases[1]]


class Gate:
    """What a module made of one map's means, for both passes."""

    def __init__(self, module: SqueezeExcitation, map: LazyMap) -> None:
        """Computes the factors of a map."""
        self._hidden = _FUNCTIONS[type(module.activation)]
        self._scale = _FUNCTIONS[type(module.scale_activation)]
        squeeze, squeeze_bias, excite, excite_bias = (
            each.detach().numpy() for each in gate_parameters(module)
        )
        self._squeeze, self._excite = squeeze[..., 0, 0], excite[..., 0, 0]
        sums = np.zeros((map.batch, map.columns))
        sum_activations(map.pictures(map.stored), map.lines, map.norm.activation, sums)
        self._means = (map.folded(sums) / map.cells_in_a_picture).astype(np.float32)
        self._squeezed = self._means @ self._squeeze.T + squeeze_bias
        self._excited = self._hidden.of(self._squeezed) @ self._excite.T + excite_bias
        self.factors: Values = self._scale.of(self._excited)
        """(B, C)."""

    def backpropagate(self, map: LazyMap, gradient: Values) -> list[Values]:
        """The gradients of the module's parameters. Turns `gradient`, in place, from that of the
        map's values to that of its activations."""
        gradients = map.pictures(gradient)
        sums = np.zeros((map.batch, map.columns))
        sum_products(map.pictures(map.stored), map.lines, map.norm.activation, gradients, sums)
        of_excited = map.folded(sums).astype(np.float32) * self._scale.slope(self._excited)
        of_squeezed = of_excited @ self._excite * self._hidden.slope(self._squeezed)
        shares = of_squeezed @ self._squeeze / np.float32(map.cells_in_a_picture)
        scale_and_shift(gradients, map.wide(self.factors), map.wide(shares))
        return [
            (of_squeezed.T @ self._means)[..., None, None],
            of_squeezed.sum(0),
            (of_excited.T @ self._hidden.of(self._squeezed))[..., None, None],
            of_excited.sum(0),
        ]

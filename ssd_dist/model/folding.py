"""Batch norm whose statistics are held, computed by the convolutions before it.

γ · (w ∗ x − mean) / sqrt(variance + eps) + β = (γ / sqrt(variance + eps) · w) ∗ x + …: the weights
are scaled at each call in place of the map, which is hundreds of times larger. The function, the
parameters, their names and their gradients stay what they were.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from timm.layers import BatchNormAct2d, pad_same
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from ssd_dist.model.ssd import SSD


class _Norm(nn.BatchNorm2d):
    """Done by the convolution before it."""

    def forward(self, input: Tensor) -> Tensor:
        return input


class _NormActivation(BatchNormAct2d):
    """timm's, that activates too: the norm is done by the convolution before it."""

    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.act(self.drop(x))
        return activated


class NormedConvolution(nn.Conv2d):
    """A convolution and the batch norm behind it."""

    norm_behind: nn.BatchNorm2d
    """The norm, which is a module of somebody else."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, N, H, W) → what the norm would give."""
        return self._conv_forward(self._padded(input), *self.folded())

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the convolution that does both."""
        norm = self.norm_behind
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        scale = norm.weight * torch.rsqrt(variance + norm.eps)
        before = mean if self.bias is None else mean - self.bias
        return self.weight * scale.view(-1, 1, 1, 1), norm.bias - before * scale

    def _padded(self, input: Tensor) -> Tensor:
        return input


class NormedConvolutionSame(NormedConvolution):
    """timm's, that pads as TensorFlow does."""

    def _padded(self, input: Tensor) -> Tensor:
        return pad_same(input, list(self.kernel_size), list(self.stride), list(self.dilation))


_NORMS: dict[type[_BatchNorm], type[nn.BatchNorm2d]] = {
    nn.BatchNorm2d: _Norm,
    BatchNormAct2d: _NormActivation,
}
_CONVOLUTIONS: dict[type[nn.Conv2d], type[NormedConvolution]] = {
    nn.Conv2d: NormedConvolution,
    Conv2dSame: NormedConvolutionSame,
}


@torch.no_grad()
def fold_held_norms(model: SSD) -> None:
    """Has the convolutions of `model`, in place, compute the batch norms behind them, whose
    statistics are held; no module comes, goes or is named anew.

    A norm stays as it is where there is no plain convolution right before it, and every one does
    where the model would compute something else.
    """
    state = {name: value.clone() for name, value in model.state_dict().items()}
    was_training = model.training
    norms = {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm)}
    model.eval()
    try:
        _set_at_random(norms.values())  # those of an untrained model hardly do anything
        images = probe_images(model)
        convolutions, before = convolutions_before(model, norms, images)
        readers = Counter(convolutions.values())
        folded = [
            (convolution, norms[name])
            for name, convolution in convolutions.items()
            if readers[convolution] == 1 and _can_fold(convolution, norms[name])
        ]
        originals: list[tuple[nn.Module, type[nn.Module]]] = [
            (module, type(module)) for pair in folded for module in pair
        ]
        for convolution, norm in folded:
            convolution.__class__ = _CONVOLUTIONS[type(convolution)]
            norm.__class__ = _NORMS[type(norm)]
            # Not by `setattr`, which would make the norm a child of the convolution.
            convolution.__dict__["norm_behind"] = norm
        if not same_outputs(model(images), before):
            for module, original in originals:
                module.__class__ = original
                module.__dict__.pop("norm_behind", None)
    finally:
        model.load_state_dict(state)
        model.train(was_training)


@torch.no_grad()
def settle_held_norms(model: SSD) -> None:
    """What `fold_held_norms` has computed at each call is computed once, in place: for a model that
    will not be trained, and whose state dict is not asked for."""
    plain = {folded: original for original, folded in _CONVOLUTIONS.items()}
    for module in model.modules():
        if isinstance(module, NormedConvolution):
            module.weight, module.bias = map(nn.Parameter, module.folded())
            del module.__dict__["norm_behind"]
            convolution: nn.Conv2d = module
            convolution.__class__ = plain[type(module)]


def probe_images(model: SSD) -> Tensor:
    """(1, 3, S, S) float32 of noise, on the model's device: the same at each call."""
    generator = torch.Generator().manual_seed(0)
    images = 255 * torch.rand(1, 3, model.image_size, model.image_size, generator=generator)
    return images.to(model.priors_cxcywh.device)


def same_outputs(folded: tuple[Tensor, Tensor], before: tuple[Tensor, Tensor]) -> bool:
    """Whether they differ by rounding alone; taken for granted where tensors have no values."""
    return all(
        one.is_meta or bool((one - other).abs().max() <= 1e-3 * other.abs().max())
        for one, other in zip(folded, before, strict=True)
    )


def convolutions_before(
    model: SSD, norms: dict[str, _BatchNorm], images: Tensor
) -> tuple[dict[str, nn.Conv2d], tuple[Tensor, Tensor]]:
    """The convolution whose very output each batch norm takes, found by watching one forward pass;
    and what that pass gave."""
    producers: dict[
        int, tuple[nn.Conv2d, Tensor]
    ] = {}  # the tensor is kept so its id stays its own
    found: dict[str, nn.Conv2d] = {}

    def remember(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        producers[id(output)] = module, output

    handles = [
        module.register_forward_hook(remember)
        for module in model.modules()
        if isinstance(module, nn.Conv2d)
    ]
    for name, norm in norms.items():

        def look_up(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
            if id(inputs[0]) in producers:
                found[name] = producers[id(inputs[0])][0]

        handles.append(norm.register_forward_pre_hook(look_up))
    try:
        outputs = model(images)
    finally:
        for handle in handles:
            handle.remove()
    return found, outputs


def _set_at_random(norms: Iterable[_BatchNorm]) -> None:
    generator = torch.Generator().manual_seed(0)
    for norm in norms:
        for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
            if values is not None:
                values.copy_(0.5 + torch.rand(values.shape, generator=generator))


def _can_fold(convolution: nn.Conv2d, norm: _BatchNorm) -> bool:
    return (
        type(convolution) in _CONVOLUTIONS
        and type(norm) in _NORMS
        and convolution.padding_mode == "zeros"
        and norm.affine
        and norm.running_mean is not None
    )

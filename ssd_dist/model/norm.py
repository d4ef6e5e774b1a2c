"""Batch normalisation as a choice: `batch`, `frozen`, `sync` or `none`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ssd_dist.config import Norm

if TYPE_CHECKING:
    from ssd_dist.model.ssd import SSD


def apply_norm(model: SSD, norm: Norm) -> None:
    """Makes the model's batch-norm layers, in place, what `norm` says.

    - `batch`: left as they are; in training, statistics of each worker's batch.
    - `frozen`: the stored statistics in training too; γ and β are trained.
    - `sync`: `SyncBatchNorm`, statistics of all workers' batches; runs on GPUs only.
    - `none`: folded into the convolutions before them, which is the same function in eval mode and
      leaves no batch norm. Raises ValueError where a convolution can't take it up.

    To be applied once the weights are loaded: folding takes the statistics as they then are.
    """
    if norm == "frozen":
        model.norm_frozen = True
        hold_statistics(model)
    elif norm == "sync":
        convert_sync_batchnorm(model)
    elif norm == "none":
        _fold(model)


def hold_statistics(model: nn.Module) -> None:
    """Puts every batch-norm layer in eval mode, whatever the model's: it normalises by its stored
    statistics and leaves them unchanged, while γ and β still get their gradients."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.training = False


def check_single_pictures(model: SSD) -> None:
    """Raises ValueError, in one sentence, if the model can't train on one picture at a time: of a
    channel with a single value, batch normalisation has no variance. Spoils the statistics."""
    pictures = torch.zeros(1, 3, model.image_size, model.image_size, dtype=torch.uint8)
    try:
        with torch.no_grad():
            model.train()(pictures.to(model.priors_cxcywh.device))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            "model.norm: 'batch' can't normalise a single picture where a feature map has a single "
            "cell: let workers meet more at a time (a larger global_batch_size, a smaller "
            "accumulation, fewer workers), or choose frozen or none"
        ) from None


def has_batch_norm(model: nn.Module) -> bool:
    """Whether any batch-norm layer is left in the model."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


@torch.no_grad()
def _fold(model: SSD) -> None:
    norms = {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm)}
    if not norms:
        return
    was_training = model.training
    model.eval()
    generator = torch.Generator().manual_seed(0)
    images = 255 * torch.rand(1, 3, model.image_size, model.image_size, generator=generator)
    images = images.to(model.priors_cxcywh.device)
    convolutions, before = _convolutions_before(model, norms, images)
    for name, norm in norms.items():
        convolution = convolutions.get(name)
        mean, variance = norm.running_mean, norm.running_var
        if (
            convolution is None
            or mean is None
            or variance is None
            or list(convolutions.values()).count(convolution) > 1
        ):
            raise ValueError(
                f"model.norm: 'none' needs a convolution of its own right before every batch norm, "
                f"and {name} has none; choose frozen"
            )
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            mean,
            variance,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        convolution.bias.requires_grad_(True)  # born from a buffer, it would not train
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, _without_norm(norm))
    for folded, original in zip(model(images), before, strict=True):
        if not (folded - original).abs().max() <= 1e-3 * original.abs().max():
            raise ValueError(
                "model.norm: 'none' would change what this model computes, as its convolutions "
                "rescale their own weights or have other readers; choose frozen"
            )
    model.train(was_training)


def _convolutions_before(
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


def _without_norm(norm: _BatchNorm) -> nn.Module:
    """What a batch-norm layer does beside normalising: timm's also drops and activates."""
    rest = [getattr(norm, name, None) for name in ("drop", "act")]
    parts = [part for part in rest if part is not None and not isinstance(part, nn.Identity)]
    if len(parts) == 1:
        return parts[0]
    return nn.Sequential(*parts) if parts else nn.Identity()

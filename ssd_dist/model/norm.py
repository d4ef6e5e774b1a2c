"""Batch normalisation as a choice: `batch`, `frozen`, `sync` or `none`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ssd_dist.config import Norm
from ssd_dist.model.folding import (
    convolutions_before,
    fold_held_norms,
    probe_images,
    same_outputs,
)

if TYPE_CHECKING:
    from ssd_dist.model.ssd import SSD


def apply_norm(model: SSD, norm: Norm) -> None:
    """Makes the model's batch-norm layers, in place, what `norm` says.

    - `batch`: left as they are; in training, statistics of each worker's batch.
    - `frozen`: the stored statistics in training too; γ and β are trained. Computed by the
      convolutions before them (see folding.py).
    - `sync`: `SyncBatchNorm`, statistics of all workers' batches; runs on GPUs only.
    - `none`: folded into the convolutions before them, which is the same function in eval mode and
      leaves no batch norm. Raises ValueError where a convolution can't take it up.

    To be applied once the weights are loaded: folding takes the statistics as they then are.
    """
    if norm == "frozen":
        model.norm_frozen = True
        hold_statistics(model)
        fold_held_norms(model)
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
    images = probe_images(model)
    convolutions, before = convolutions_before(model, norms, images)
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
    if not same_outputs(model(images), before):
        raise ValueError(
            "model.norm: 'none' would change what this model computes, as its convolutions "
            "rescale their own weights or have other readers; choose frozen"
        )
    model.train(was_training)


def _without_norm(norm: _BatchNorm) -> nn.Module:
    """What a batch-norm layer does beside normalising: timm's also drops and activates."""
    rest = [getattr(norm, name, None) for name in ("drop", "act")]
    parts = [part for part in rest if part is not None and not isinstance(part, nn.Identity)]
    if len(parts) == 1:
        return parts[0]
    return nn.Sequential(*parts) if parts else nn.Identity()

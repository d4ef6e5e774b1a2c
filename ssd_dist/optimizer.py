"""What changes the weights: the optimizer, its learning rate, and their moving average."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ssd_dist.config import Config, OptimizerConfig
from ssd_dist.model.ssd import SSD
from ssd_dist.ops.loss import l2_weights


def build_optimizer(model: SSD, config: Config) -> torch.optim.Optimizer:
    """SGD or AdamW with Eq. 2 as weight decay: 2 lambda, on the weights of convolutions and linear
    layers alone.

    Each group of parameters has an `lr_scale`: `backbone_lr_scale` for the feature extractor, 1 for
    the layers that start from random weights.

    In SGD that is exactly the gradient of the L2 term; AdamW applies it beside its own scaling
    (decoupled), where it acts as the same pull of 2 lambda W times the learning rate.
    """
    decayed = {id(weight) for weight in l2_weights(model)}
    extractor = {id(p) for p in model.get_submodule("backbone.features").parameters()}
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            weight_decay = 2 * config.l2_lambda if id(parameter) in decayed else 0.0
            lr_scale = config.optimizer.backbone_lr_scale if id(parameter) in extractor else 1.0
            members.setdefault((weight_decay, lr_scale), []).append(parameter)
    groups = [
        {"params": parameters, "weight_decay": weight_decay, "lr_scale": lr_scale}
        for (weight_decay, lr_scale), parameters in members.items()
    ]
    momentum = config.optimizer.momentum
    if config.optimizer.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=momentum, fused=True)
    return torch.optim.AdamW(groups, lr=config.lr, betas=(momentum, 0.999), fused=True)


def learning_rate(step: int, *, peak: float, num_steps: int, warmup_steps: int, name: str) -> float:
    """The rate of step 0…num_steps-1: linear growth over `warmup_steps`, then `cosine` to nearly 0
    or `constant`. A function of the step alone: a resumed training needs no state for it."""
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    if name == "constant":
        return peak
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


class MovingAverage(AveragedModel):
    """The exponential moving average of a model's weights, as `module`; buffers are the model's.

    torch's own update sends its count, which is in the CPU's memory, to the device of the weights,
    a copy for which a GPU's steps would wait. Here nothing leaves the CPU but launches.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """A copy of `model`, of which nothing counts yet."""
        super().__init__(model)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Takes the first weights as they are; goes towards later ones by 1 - `decay`.

        Early on the decay is smaller, (1 + t) / (10 + t), so that the average forgets the start.
        """
        count = int(self.n_averaged)
        averaged: list[Tensor] = list(self.module.parameters())
        current: list[Tensor] = list(model.parameters())
        if count == 0:
            torch._foreach_copy_(averaged, current)
        else:
            decay = min(self.decay, (1 + count) / (10 + count))
            torch._foreach_lerp_(averaged, current, 1 - decay)
        for own, other in zip(self.module.buffers(), model.buffers(), strict=True):
            own.copy_(other)
        self.n_averaged += 1


def build_average(model: nn.Module, config: OptimizerConfig) -> MovingAverage | None:
    """The exponential moving average of the weights (None where `ema_decay` is 0)."""
    return MovingAverage(model, config.ema_decay) if config.ema_decay > 0 else None

"""One epoch of training, and prediction. torch only: no Ray, no files, no reports.

The same functions run in one process or in many (`torch.distributed`): the number of workers
changes the speed and not the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.profiler import record_function

from ssd_dist.config import Config, OptimizerConfig
from ssd_dist.divergence import LossWatch
from ssd_dist.interruption import EpochInterruptedError, EpochPart, agreed, never
from ssd_dist.model.mirror import averaged_output
from ssd_dist.model.ssd import SSD
from ssd_dist.ops.loss import l2_weights, multibox_loss, multibox_sums
from ssd_dist.ops.matching import match_priors
from ssd_dist.ops.postprocess import detect
from ssd_dist.structures import Annotation, Batch, Detections

OpenSection: TypeAlias = Callable[[str], AbstractContextManager[object]]
"""Takes the name of a section of the training step and gives the context that it runs in."""
SECTIONS = ("data", "matching", "forward", "loss", "communication", "backward", "optimizer")
"""The sections of a training step. `communication`, where there are several workers, lies within
`loss`: the sum of N; the gradients' exchange is part of `backward`, which it overlaps with."""
_START = EpochPart()


@dataclass(frozen=True, slots=True)
class Worker:
    """This process among those that train together."""

    device: torch.device
    rank: int = 0
    world_size: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochLosses:
    """Means over an epoch's steps of the whole (global) batch's values."""

    loss: float
    """Eq. 1: (L_conf + alpha · L_loc) / N."""
    loss_conf: float
    """L_conf / N."""
    loss_loc: float
    """L_loc / N, without alpha."""
    gradient_norm: float
    """Before clipping."""


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


def build_average(model: nn.Module, config: OptimizerConfig) -> AveragedModel | None:
    """The exponential moving average of the weights (None where `ema_decay` is 0).

    Early on the decay is smaller, (1 + t) / (10 + t), so that the average forgets the start.
    """
    if config.ema_decay == 0:
        return None

    def update(
        averaged: Sequence[Tensor], current: Sequence[Tensor], num_averaged: Tensor | int
    ) -> None:
        count = int(average.n_averaged)  # unlike `num_averaged` on the CPU: nothing waits for it
        decay = min(config.ema_decay, (1 + count) / (10 + count))
        torch._foreach_lerp_(list(averaged), list(current), 1 - decay)

    average = AveragedModel(model, multi_avg_fn=update)
    return average


def train_epoch(
    model: SSD,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Batch],
    *,
    config: Config,
    rate_at: Callable[[int], float],
    worker: Worker,
    average: AveragedModel | None = None,
    on_step: Callable[[int], None] | None = None,
    picture_name: Callable[[int], str] = str,
    part: EpochPart = _START,
    check_in: Callable[[], bool] = never,
    section: OpenSection = record_function,
) -> EpochLosses:
    """Trains on `batches` and returns the epoch's mean losses, the same on every worker.

    Args:
        model: on the worker's device; its priors are what targets are matched to.
        network: what is called: `model` itself, or `model` wrapped for data-parallel training.
        optimizer: from :func:`build_optimizer`.
        batches: this worker's part of each global batch; every worker has equally many.
        config: weights of the loss, threshold of matching, clipping, precision.
        rate_at: the learning rate of the epoch's step 0, 1, ….
        worker: this process among the others.
        average: updated after each step.
        on_step: called with the number of finished steps.
        picture_name: identifier of the picture at a position in the split, for the error.
        part: what is done of the epoch already; `batches` are those that are left.
        check_in: called in each step; True, on any worker, asks all to stop after it.
        section: opens each of `SECTIONS`; as it is, they are labels in a profiler's trace.

    Raises:
        NonFiniteLossError: naming the step, the learning rate, the gradient norm and the batch's
            pictures; on all workers alike, before the epoch's end (see divergence.py).
        EpochInterruptedError: it was asked to stop; on all workers alike.
    """
    if part.losses is not None:
        return EpochLosses(**part.losses)
    model.train()
    device = worker.device
    sums = torch.tensor(part.sums, device=device)
    num_steps = part.num_steps
    watch = LossWatch(device, worker.world_size, picture_name)
    parameters = [p for p in model.parameters() if p.requires_grad]
    for step, batch in enumerate(_arriving(batches, device, section), num_steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step) * group["lr_scale"]
        with section("matching"):
            targets = match_priors(
                batch.boxes_xyxy,
                batch.labels,
                batch.difficult,
                model.priors_cxcywh,
                config.loss.iou_threshold,
            )
        with section("forward"), autocast(config, device):
            loc, conf = network(laid_out(batch.images, config))
        with section("loss"):
            parts = multibox_sums(loc, conf, targets, config.loss.neg_pos_ratio)
            # N of Eq. 1 belongs to the whole batch: it is summed before anything is divided by it.
            # The losses along with it, so that all workers know if the pictures of one spoil them.
            asked = check_in()
            stop = torch.full((), float(asked), device=device)
            whole = torch.stack(
                [parts.conf.detach(), parts.loc.detach(), parts.num_positives, stop]
            )
            if worker.world_size > 1:
                with section("communication"):
                    dist.all_reduce(whole)
            conf_sum, loc_sum, num_positives, num_asked = whole.unbind()
            loss = multibox_loss(parts, config.alpha, num_positives, worker.world_size)
        with section("backward"):
            loss.backward()
        with section("optimizer"):
            norm = nn.utils.clip_grad_norm_(
                parameters, config.optimizer.gradient_clip or math.inf, foreach=True
            )
            scale = 1 / num_positives.clamp(min=1)
            means = torch.stack([conf_sum * scale, loc_sum * scale, norm])
            mean_loss = means[0] + config.alpha * means[1]
            watch.see(step, mean_loss, norm, rate_at(step), batch.indices)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if average is not None:
                average.update_parameters(model)

        sums += means
        num_steps = step + 1
        if on_step is not None:
            on_step(num_steps)
        if agreed(asked, num_asked, worker.world_size, step):
            watch.finish()
            raise EpochInterruptedError(EpochPart(num_steps=num_steps, sums=tuple(sums.tolist())))

    watch.finish()
    conf_mean, loc_mean, norm_mean = (sums / max(1, num_steps)).tolist()
    return EpochLosses(
        loss=conf_mean + config.alpha * loc_mean,
        loss_conf=conf_mean,
        loss_loc=loc_mean,
        gradient_norm=norm_mean,
    )


def _arriving(
    batches: Iterable[Batch], device: torch.device, section: OpenSection
) -> Iterator[Batch]:
    """The batches on `device`; drawing one and moving it is a step's section `data`."""
    iterator = iter(batches)
    while True:
        with section("data"):
            batch = next(iterator, None)
            if batch is None:
                return
            batch = batch.to(device)
        yield batch


def autocast(config: Config, device: torch.device) -> torch.autocast:
    """bf16 autocast where the configuration and the device agree on it, else a no-op.

    `auto` means bf16 on GPUs that have it; on CPUs it was slower than fp32.
    """
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    enabled = config.precision == "bf16" or (config.precision == "auto" and has_bf16)
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def place(model: SSD, config: Config, device: torch.device) -> SSD:
    """Moves the model to `device`, there with its weights in the layout of its images.

    On a CPU the weights stay as they are: the kernels reorder them anyway.
    """
    model.to(device)
    if config.channels_last and device.type == "cuda":
        model.to(memory_format=torch.channels_last)
    return model


def laid_out(images: Tensor, config: Config) -> Tensor:
    """(B, 3, S, S) images in the memory layout that the configuration asks for; the network's
    feature maps then follow."""
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    return images.contiguous(memory_format=layout)


@torch.inference_mode()
def detect_in(model: SSD, images: Tensor, config: Config) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(B, 3, S, S) images on the model's device → the relative boxes, labels and scores of each."""
    options = asdict(config.postprocess)
    mirror = options.pop("mirror")
    with autocast(config, images.device):
        loc, conf = averaged_output(model, laid_out(images, config), mirror)
    return detect(loc, conf, model.priors_cxcywh, **options)


@torch.inference_mode()
def predict(
    model: SSD,
    batches: Iterable[Batch],
    annotations: Sequence[Annotation],
    config: Config,
    device: torch.device,
) -> list[Detections]:
    """Detections of every picture in `batches`, in the pixels of its annotation.

    `annotations[i]` describes the picture at position i of the split.
    """
    model.eval()
    found = []
    for batch in batches:
        detections = detect_in(model, batch.images.to(device, non_blocking=True), config)
        for index, (boxes, labels, scores) in zip(batch.indices.tolist(), detections, strict=True):
            annotation = annotations[index]
            size = torch.tensor([annotation.width, annotation.height] * 2, dtype=torch.float32)
            found.append(
                Detections(
                    image_id=annotation.image_id,
                    boxes_xyxy=(boxes.cpu() * size).numpy(),
                    labels=labels.cpu().numpy(),
                    scores=scores.cpu().numpy(),
                )
            )
    return found

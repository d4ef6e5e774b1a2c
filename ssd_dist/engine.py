"""One epoch of training, and prediction. torch only: no Ray, no files, no reports.

The same functions run in one process or in many (`torch.distributed`): the number of workers
changes the speed and not the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.profiler import record_function

from ssd_dist.config import Config
from ssd_dist.divergence import LossWatch
from ssd_dist.exchange import DataParallel, begin_sum, wait_for, without_exchange
from ssd_dist.interruption import EpochInterruptedError, EpochPart, agreed, never
from ssd_dist.model.mirror import averaged_output
from ssd_dist.model.ssd import SSD
from ssd_dist.ops.loss import multibox_loss, multibox_sums
from ssd_dist.ops.matching import match_priors
from ssd_dist.ops.postprocess import detect
from ssd_dist.structures import Annotation, Batch, Detections, Targets

OpenSection: TypeAlias = Callable[[str], AbstractContextManager[object]]
"""Takes the name of a section of the training step and gives the context that it runs in."""
SECTIONS = ("data", "matching", "forward", "loss", "communication", "backward", "optimizer")
"""The sections of a training step. `communication`, where there are several workers, is what is
left to wait for the sum of N, which begins before `forward`, for that of the losses, before
`backward`, and on a CPU for those of the gradients, which begin in it; on a GPU they end in it."""
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
    meanwhile: Callable[[], bool] = never,
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
        meanwhile: called while this worker waits for others; see `exchange.wait_for`.
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
        asked = check_in()
        whole = _add_gradients(
            network, batch.images, targets, asked, config, worker, meanwhile, section
        )
        num_positives, num_asked, conf_sum, loc_sum = whole.unbind()
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


def _add_gradients(
    network: nn.Module,
    images: Tensor,
    targets: Targets,
    asked: bool,
    config: Config,
    worker: Worker,
    meanwhile: Callable[[], bool],
    section: OpenSection,
) -> Tensor:
    """Adds the gradient of Eq. 1 on the global batch to that of the parameters, which is none yet,
    and returns (4,) float32: N, how many workers `asked`, L_conf and L_loc, over all workers.

    The network meets the batch in `config.accumulation` parts, one after the other: memory for
    one. Gradients are exchanged once, with the last part's. Nothing else here has a worker wait for
    the slowest: N belongs to the whole batch, and its sum over the workers is under way while the
    network computes; that of the losses, by which all know if the pictures of one spoil them, ends
    with the gradients'.
    """
    counts, losses = torch.zeros(2, 2, device=worker.device)
    counts[0] = (targets.labels > 0).sum()
    counts[1] = float(asked)
    has_others = worker.world_size > 1
    counting = [begin_sum(counts)] if has_others else []
    under_way = network.under_way if isinstance(network, DataParallel) else []

    def wait(works: list[dist.Work]) -> None:
        if works:
            with section("communication"):
                wait_for(works, meanwhile)

    num_parts = min(config.accumulation, len(images))
    parts = zip(
        images.tensor_split(num_parts),
        targets.labels.tensor_split(num_parts),
        targets.loc.tensor_split(num_parts),
        strict=True,
    )
    for number, (pictures, labels, offsets) in enumerate(parts, 1):
        is_last = number == num_parts
        with without_exchange(network) if not is_last else nullcontext():
            with section("forward"), autocast(config, worker.device):
                loc, conf = network(laid_out(pictures, config))
            with section("loss"):
                sums = multibox_sums(loc, conf, Targets(labels, offsets), config.loss.neg_pos_ratio)
                losses += torch.stack([sums.conf.detach(), sums.loc.detach()])
                wait(counting)
                if has_others and is_last:
                    under_way.append(begin_sum(losses))
                loss = multibox_loss(sums, config.alpha, counts[0])
            with section("backward"):
                loss.backward()
    wait(under_way)
    return torch.cat([counts, losses])


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

    `auto` means bf16 on GPUs that have it; on CPUs, and where it is emulated, it is slower than
    fp32.
    """
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    enabled = config.precision == "bf16" or (config.precision == "auto" and has_bf16)
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def place(model: SSD, config: Config, device: torch.device) -> SSD:
    """Moves the model to `device` and has it compute there in the quickest way.

    On a GPU its weights take the layout of its images; on a CPU they stay as they are, as the
    kernels reorder them anyway, and layers are computed in ways of ours (model/cpu).
    """
    model.to(device)
    if config.channels_last and device.type == "cuda":
        model.to(memory_format=torch.channels_last)
    if device.type == "cpu":
        # Here, for numba's import takes a third of a second that GPUs have no use for.
        from ssd_dist.model.cpu.layers import use_quick_layers

        use_quick_layers(model)
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

"""A training from its data to its checkpoints, read from top to bottom.

One process runs it alone, or several run it together over `torch.distributed`. It knows neither
Ray Train nor Ray Tune: both hand it a function that takes what an epoch left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ssd_dist.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_into,
    load_training_state,
    save_checkpoint,
)
from ssd_dist.config import SYNC_NEEDS_GPUS, Config
from ssd_dist.data import open_split
from ssd_dist.data.ahead import BatchesAhead
from ssd_dist.data.cache import open_cache
from ssd_dist.data.dataset import DetectionDataset, Loader, steps_per_epoch, training_keys
from ssd_dist.data.signed_urls import publishable
from ssd_dist.engine import Worker, place, train_epoch
from ssd_dist.exchange import DataParallel, take_buffers_of_first
from ssd_dist.interruption import (
    EpochInterruptedError,
    EpochPart,
    TrainingInterruptedError,
    never,
)
from ssd_dist.model.mirror import mirrored_order
from ssd_dist.model.ssd import build_model
from ssd_dist.ops.loss import l2_term, l2_weights
from ssd_dist.optimizer import build_average, build_optimizer, learning_rate
from ssd_dist.structures import Batch, Split
from ssd_dist.validation import Validation, accuracy, validate


@dataclass(frozen=True, slots=True)
class EpochReport:
    """What an epoch leaves: its metrics, and a way to write its checkpoint."""

    metrics: dict[str, float]
    """`epoch` (finished), `map_11pt`, `best_map_11pt` (of the epochs so far) and, for each class,
    `ap_11pt/<class>`, `loss`, `loss_conf`, `loss_loc`, `l2_term`, `lr`, `gradient_norm`,
    `images_per_second`, `seconds`; the accuracy on worker 0 alone."""
    save: Callable[[Path], None]
    """Writes the checkpoint folder; worker 0's business."""
    validation: Validation | None
    """What that accuracy was computed from; None on all workers but 0."""


def train(
    config: Config,
    data: str,
    worker: Worker,
    on_epoch: Callable[[EpochReport], None],
    *,
    resume: Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
    check_in: Callable[[], bool] = never,
) -> None:
    """Trains as `config` says on `data` and calls `on_epoch` after each epoch, on every worker.

    Args:
        config: the whole configuration.
        data: a data set, as `open_split` takes it.
        worker: this process; with several, `torch.distributed` is initialised.
        on_epoch: takes the epoch's report.
        resume: a checkpoint folder of this same training to go on from.
        on_step: called with (steps finished in this training, steps in all).
        tell: takes a sentence for people.
        check_in: called in each step and before each batch of a validation, a sign of life; True
            asks to stop.

    Raises TrainingInterruptedError, with a checkpoint to write, if it was asked to stop; ValueError
    if `resume` is of another model or of other classes, or if the model can't train here.
    """
    torch.manual_seed(config.seed)
    train_data = open_dataset(config, data, config.data.train_split, training=True)
    val_data = open_dataset(
        config, data, config.data.val_split, class_names=train_data.split.class_names
    )
    class_names = train_data.split.class_names
    if config.model.norm == "sync" and worker.device.type != "cuda":
        raise ValueError(SYNC_NEEDS_GPUS)
    model = build_model(
        config.model, len(class_names), load_weights=resume is None, class_names=class_names
    )
    place(model, config, worker.device)
    optimizer = build_optimizer(model, config)
    average = build_average(model, config.optimizer)
    history: list[dict[str, float]] = []
    part = EpochPart()
    if resume is not None:
        checkpoint = load_checkpoint(resume)
        _check_data(checkpoint, str(resume), train_data.split, tell)
        history = [dict(epoch) for epoch in checkpoint.history]
        state = load_training_state(resume)
        trained = state["weights"] if average is not None else checkpoint.weights
        load_into(model, trained, str(resume))
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            load_into(average.module, checkpoint.weights, str(resume))
            average.n_averaged.fill_(state["num_averaged"])
        part = EpochPart(**state["epoch_part"])
    network: torch.nn.Module = model
    if worker.world_size > 1:
        network = DataParallel(model)

    num_epoch_steps = steps_per_epoch(len(train_data), config.global_batch_size)
    num_steps = config.epochs * num_epoch_steps
    warmup_steps = min(num_steps // 2, round(config.optimizer.warmup_epochs * num_epoch_steps))
    num_processes = loader_processes(config, worker)
    train_loader = Loader(train_data, num_processes, pin_memory=worker.device.type == "cuda")
    val_loader = Loader(val_data, num_processes)

    def rate_at(step: int) -> float:
        return learning_rate(
            step,
            peak=config.lr,
            num_steps=num_steps,
            warmup_steps=warmup_steps,
            name=config.optimizer.schedule,
        )

    evaluated = model if average is None else average.module

    def save(folder: Path, part: EpochPart) -> None:
        state: dict[str, Any] = {"optimizer": optimizer.state_dict(), "epoch_part": asdict(part)}
        if average is not None:
            state["weights"] = model.state_dict()
            state["num_averaged"] = int(average.n_averaged)
        checkpoint = Checkpoint(
            config=config,
            class_names=class_names,
            data=publishable(data),
            data_fingerprint=train_data.split.fingerprint,
            epoch=len(history),
            metrics=history[-1] if history else {},
            history=tuple(history),
            weights=evaluated.state_dict(),
        )
        save_checkpoint(folder, checkpoint, state)

    with train_loader, val_loader:
        for epoch in range(len(history), config.epochs):
            started = time.perf_counter() - part.seconds
            first_step = epoch * num_epoch_steps
            keys = training_keys(
                train_data,
                epoch=epoch,
                first_step=part.num_steps,
                global_batch_size=config.global_batch_size,
                rank=worker.rank,
                world_size=worker.world_size,
            )
            batches = train_loader.batches(keys)
            try:
                losses = train_epoch(
                    model,
                    network,
                    optimizer,
                    _seeded(batches, config.seed, first_step + part.num_steps, worker),
                    config=config,
                    rate_at=lambda step, first=first_step: rate_at(first + step),  # type: ignore[misc]
                    worker=worker,
                    average=average,
                    on_step=_counter(on_step, first_step, num_steps),
                    picture_name=lambda index: train_data.split.annotations[index].image_id,
                    part=part,
                    check_in=check_in,
                    meanwhile=batches.make_one if isinstance(batches, BatchesAhead) else never,
                )
                seconds = time.perf_counter() - started
                if worker.world_size > 1:
                    # Batch norm's statistics are each worker's own; those of worker 0 are saved, so
                    # all validate with them.
                    take_buffers_of_first(evaluated)
                part = EpochPart(num_steps=num_epoch_steps, losses=asdict(losses))
                validation = validate(evaluated, val_loader, config, worker, part, check_in)
            except EpochInterruptedError as interrupted:
                done = replace(interrupted.part, seconds=time.perf_counter() - started)
                raise TrainingInterruptedError(epoch, done, partial(save, part=done)) from None
            metrics = {
                "epoch": epoch + 1,
                **({} if validation is None else accuracy(validation.result, history)),
                **asdict(losses),
                "l2_term": float(l2_term(l2_weights(model), config.l2_lambda)),
                "lr": rate_at(first_step + num_epoch_steps - 1),
                "images_per_second": num_epoch_steps * config.global_batch_size / seconds,
                "seconds": time.perf_counter() - started,
            }
            history.append(metrics)
            part = EpochPart()
            on_epoch(EpochReport(metrics, partial(save, part=part), validation))


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a training is about to work on."""

    class_names: tuple[str, ...]
    num_train: int
    num_val: int
    problems: tuple[str, ...]
    """What the reader dropped or repaired, a sentence each."""
    first_weights: str | None = None
    """What of the first weights was loaded and what was not; None: the weights are random."""


def prepare(config: Config, data: str) -> Preparation:
    """Does once, before anything is started, all that can fail: reads both splits, decodes their
    pictures for the workers of this machine, builds the model with its first weights.

    Raises FileNotFoundError or ValueError, in one sentence.
    """
    train_data = open_dataset(config, data, config.data.train_split, training=True)
    class_names = train_data.split.class_names
    val_data = open_dataset(config, data, config.data.val_split, class_names=class_names)
    steps_per_epoch(len(train_data), config.global_batch_size)
    if all(annotation.difficult.all() for annotation in val_data.split.annotations):
        raise ValueError(
            f"{publishable(data)}: the split {config.data.val_split!r} has no object that "
            "counts: no epoch could be told from another by its mAP"
        )
    model = build_model(config.model, len(class_names), class_names=class_names)
    if config.postprocess.mirror != "none":
        mirrored_order(model, axis=0)
    problems = dict.fromkeys((*train_data.split.problems, *val_data.split.problems))
    return Preparation(
        class_names, len(train_data), len(val_data), tuple(problems), model.first_weights
    )


def open_dataset(
    config: Config,
    data: str,
    split: str,
    *,
    training: bool = False,
    class_names: tuple[str, ...] | None = None,
) -> DetectionDataset:
    """The decoded pictures of a split, ready to draw batches from; decodes them if no process on
    this machine has done so yet."""
    names = class_names or config.data.class_names
    opened = open_split(data, split, names, data_format=config.data.format)
    size = config.model.image_size
    # Training enlarges parts of a picture, so it wants more pixels than its input has.
    cache = open_cache(opened, max_side=size * 3 // 2 if training else size)
    augmentation = config.data.augmentation if training else None
    return DetectionDataset(opened, cache, size, augmentation, config.seed)


def loader_processes(config: Config, worker: Worker) -> int:
    """Loader processes of a worker: as configured, or 4 on a GPU and none on a CPU, whose cores are
    all at work already."""
    if config.data.num_loader_processes is not None:
        return config.data.num_loader_processes
    return 4 if worker.device.type == "cuda" else 0


def _check_data(
    checkpoint: Checkpoint, source: str, split: Split, tell: Callable[[str], None] | None
) -> None:
    """Raises ValueError if a checkpoint's classes are not the training split's: labels are numbers,
    and those of a renamed or reordered class would be learned as another's without a word."""
    if checkpoint.class_names != split.class_names:
        raise ValueError(
            f"{source}: a training of the classes {', '.join(checkpoint.class_names)}, and the "
            f"data now has {', '.join(split.class_names)}: go on with the data as it was, or train "
            "anew"
        )
    # Told and not refused: a copy of the same files has another one.
    if tell is not None and checkpoint.data_fingerprint != split.fingerprint:
        tell("the training data is not what it was when the checkpoint was written, or is a copy")


def _counter(
    on_step: Callable[[int, int], None] | None, first: int, num_steps: int
) -> Callable[[int], None] | None:
    if on_step is None:
        return None
    return lambda finished: on_step(first + finished, num_steps)


def _seeded(batches: Iterable[Batch], seed: int, step: int, worker: Worker) -> Iterator[Batch]:
    """The batches from the training's `step` on. Dropout and the like draw anew in each step and
    worker, and the same again after a restart."""
    for batch in batches:
        drawn = hash((seed, step, worker.rank)) % 2**63
        torch.default_generator.manual_seed(
            drawn
        )  # torch.manual_seed takes a fifth of a millisecond
        if worker.device.type == "cuda":
            torch.cuda.manual_seed(drawn)
        yield batch
        step += 1

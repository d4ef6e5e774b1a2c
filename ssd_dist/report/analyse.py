"""What a report says of a detector's cost: counted and timed, as much as is asked for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ssd_dist.analysis.complexity import count_complexity
from ssd_dist.analysis.law import measure_law
from ssd_dist.analysis.timing import time_inference
from ssd_dist.analysis.timing_report import TimingBudget, measure_timing
from ssd_dist.config import Config
from ssd_dist.data.cache import open_cache
from ssd_dist.data.dataset import DetectionDataset
from ssd_dist.model.norm import check_single_pictures
from ssd_dist.model.ssd import SSD
from ssd_dist.structures import Annotation, Split

Scope = Literal["none", "quick", "full"]
"""`none`: the count, and the time of a picture, in seconds. `quick`: the training step and the
inference segment by segment as well, in about half a minute. `full`: also every device, the law of
running time and data-parallel scaling, in about five minutes."""

TRACE = "trace.json"
_NUM_PICTURES = 64
_NUM_TIMED = 50
_QUICK = TimingBudget(steps=8, inference=4, profiler=4)
_LAW_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Analysis:
    """What :class:`ssd_dist.report.content.ReportContent` holds under these names."""

    complexity: dict[str, Any]
    timing: dict[str, Any]
    law: dict[str, Any] | None


def analyse(
    model: SSD,
    config: Config,
    split: Split,
    device: torch.device,
    *,
    scope: Scope,
    out_dir: Path,
    data_name: str,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Analysis:
    """Counts and times a detector on pictures of a split, of which the weights learn nothing.

    What is counted is a step on the configuration's batch, what is timed one on as many of these
    pictures as the split has. Where these are too few for the model to train on, its training is
    not timed, and `timing` says so under `left_out`.

    Args:
        model: on `device`; in eval mode afterwards.
        config: of the model.
        split: its first pictures are what the detector is timed on.
        device: where.
        scope: how much is measured.
        out_dir: for the profiler's trace, `TRACE`; nothing is written there with `none`.
        data_name: what to call the split.
        on_progress: takes a line before each part.
    """
    dataset = _first_pictures(split, config)
    batch_size = min(config.global_batch_size, len(dataset))
    counted = count_complexity(model, config.model.image_size, config)
    left_out = None if scope == "none" else _why_untrained(model, config, batch_size)
    if scope == "none" or left_out is not None:
        timing = _time_of_a_picture(model, config, dataset, device)
    else:
        timing = measure_timing(
            model,
            config,
            device,
            batch_size=batch_size,
            dataset=dataset,
            data_name=data_name,
            trace=out_dir / TRACE,
            # The prediction is of a whole batch.
            predicted_bytes=(
                counted.training.memory.peak if batch_size == config.global_batch_size else None
            ),
            with_devices=scope == "full",
            budget=TimingBudget() if scope == "full" else _QUICK,
            on_progress=on_progress,
        ).to_json()
    if left_out is not None:
        on_progress(f"timing: {left_out}")
        timing["left_out"] = left_out
    law = None
    if scope == "full":
        on_progress("law: the sweep over detectors")
        law = measure_law(device=device, time_budget_s=_LAW_SECONDS, on_progress=on_progress)
    return Analysis(counted.to_json(), timing, None if law is None else law.to_json())


def _why_untrained(model: SSD, config: Config, batch_size: int) -> str | None:
    """Why a training step on `batch_size` pictures can't be timed; None where it can."""
    if batch_size // min(config.accumulation, batch_size) > 1:
        return None
    try:
        check_single_pictures(copy.deepcopy(model))
    except ValueError:
        pictures = f"{batch_size} picture{'s' if batch_size > 1 else ''}"
        parts = f" in {config.accumulation} parts" if config.accumulation > 1 else ""
        return (
            f"the training step was left out: {pictures}{parts} would reach batch normalisation "
            "one by one, and a map of one cell has no variance then"
        )
    return None


def _time_of_a_picture(
    model: SSD, config: Config, dataset: DetectionDataset, device: torch.device
) -> dict[str, Any]:
    """The keys that every timing has."""
    images = [dataset[index].image for index in range(min(len(dataset), _NUM_TIMED))]
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "num_threads": torch.get_num_threads(),
        "inference_ms_per_image": asdict(time_inference(model, images, config, device)),
        "num_inferences": len(images),
    }


@dataclass(frozen=True, eq=False)
class _FirstPictures(Split):
    """The first pictures of another split."""

    name: str
    class_names: tuple[str, ...]
    annotations: Sequence[Annotation]
    problems: tuple[str, ...]
    fingerprint: str
    whole: Split

    def read_image(self, index: int) -> np.ndarray:
        return self.whole.read_image(index)


def _first_pictures(split: Split, config: Config) -> DetectionDataset:
    """As training would see them: enough for a batch, or as many as there are."""
    count = min(max(_NUM_PICTURES, config.global_batch_size), len(split.annotations))
    first = _FirstPictures(
        split.name,
        split.class_names,
        split.annotations[:count],
        (),
        f"{split.fingerprint}-{count}",
        split,
    )
    size = config.model.image_size
    cache = open_cache(first, max_side=size * 3 // 2)  # as `training.open_dataset` does to train
    return DetectionDataset(first, cache, size, config.data.augmentation, config.seed)

"""What a picture costs before the network sees it, beside torchvision's transforms.

python benchmarks/loading.py --data VOC

Ours: `training_batches` on the data set that a training opens, from the second epoch on: pictures
out of the decoded cache, augmentation, collation. Theirs: the JPEG files, the SSD preset of
torchvision's reference script (photometric distortion, zoom-out, IoU crop, flip) with a resize to
the input's size behind it, so that pictures can be stacked; on PIL's pictures and on tensors, of
which the faster counts. Every probability and range is the same; theirs also swaps channels, which
costs next to nothing. Both end with a batch of floats from 0 to 1. One process, one thread, no
loader processes, whole epochs by turns. Ends with status 1 if theirs takes less than 4 times as
long.

Ours begins with pictures that were shrunk to one and a half times the input's size: that is part of
the cache, and of the comparison.
"""

from __future__ import annotations

import itertools
import os
import platform
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
import torchvision
import tyro
from job_runs import copy_part
from paired import Paired, by_turns
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from torchvision_loop import Backend, Pictures

from ssd_dist.allocator import keep_freed_memory
from ssd_dist.config import AugmentationConfig, Config, DataConfig, ModelConfig
from ssd_dist.data.dataset import training_batches
from ssd_dist.data.transforms import FILL_RGB
from ssd_dist.training import open_dataset

NEEDED = 4.0
# RandomIoUCrop leaves the picture as it is in one of seven cases; in Config that is a probability.
AUGMENTATION = AugmentationConfig(
    photometric=0.5, zoom_out=0.5, max_zoom_out=4.0, iou_crop=6 / 7, min_crop_scale=0.3
)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Time the loading of pictures beside torchvision's transforms."""

    data: Path
    """VOC folder, every picture of whose split `train` has an object."""
    size: int = 320
    """Side of the input, in pixels."""
    batch: int = 8
    pictures: int = 64
    """Of an epoch, the first of the split."""
    turns: int = 11
    """Epochs of each."""
    keep_memory: bool = True
    """Freed memory stays with the process, as in our trainings; helps both."""


def preset(size: int, backend: Backend) -> v2.Transform:
    """The reference script's preset of SSD, and what makes its pictures ready to be stacked. The
    resize works on 8 bits, which is quicker than on floats."""
    steps: list[v2.Transform] = [v2.PILToTensor()] if backend == "tensor" else []
    steps += [
        v2.RandomPhotometricDistort(),
        v2.RandomZoomOut(fill=FILL_RGB),
        v2.RandomIoUCrop(),
        v2.RandomHorizontalFlip(0.5),
        v2.Resize((size, size)),
    ]
    if backend == "pil":
        steps.append(v2.PILToTensor())
    steps += [v2.ToDtype(torch.float, scale=True), v2.SanitizeBoundingBoxes(), v2.ToPureTensor()]
    return v2.Compose(steps)


def stacked(samples: list[tuple[Tensor, Any]]) -> tuple[Tensor, list[Any]]:
    """Pictures as one tensor; targets differ in length."""
    images, targets = zip(*samples, strict=True)
    return torch.stack(images), list(targets)


def check(images: Tensor, arguments: Arguments) -> None:
    """Both hand over the same kind of thing."""
    expected = (arguments.batch, 3, arguments.size, arguments.size)
    assert tuple(images.shape) == expected, images.shape
    assert images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1


def compare(arguments: Arguments, data: Path) -> dict[Backend, Paired]:
    """Seconds of an epoch of ours and theirs, for each of torchvision's backends."""
    config = Config(
        global_batch_size=arguments.batch,
        model=ModelConfig(image_size=arguments.size),
        data=DataConfig(augmentation=AUGMENTATION),
    )
    dataset = open_dataset(config, str(data), "train", training=True)
    epochs = itertools.count(1)

    def ours() -> None:
        batches = training_batches(
            dataset,
            epoch=next(epochs),
            global_batch_size=arguments.batch,
            rank=0,
            world_size=1,
        )
        for batch in batches:
            # The network's first layer does this, on the device; here it is part of ours.
            last = batch.images.to(torch.float32).div_(255)
        check(last, arguments)

    def loader(backend: Backend) -> DataLoader[Any]:
        return DataLoader(
            Pictures(data, preset(arguments.size, backend)),
            batch_size=arguments.batch,
            shuffle=True,
            collate_fn=stacked,
            drop_last=True,
        )

    results = {}
    for backend in get_args(Backend):
        batches = loader(backend)

        def theirs(batches: DataLoader[Any] = batches) -> None:
            for images, _ in batches:
                last = images
            check(last, arguments)

        results[backend] = by_turns(ours, theirs, arguments.turns, torch.device("cpu"), warm_up=1)
    return results


def main(arguments: Arguments) -> None:
    """Times both, and prints the ratio."""
    torch.set_num_threads(1)
    if arguments.keep_memory:
        keep_freed_memory()
    count = arguments.pictures // arguments.batch * arguments.batch
    console = Console(width=110, highlight=False)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["SSD_DIST_CACHE"] = str(Path(scratch) / "cache")
        data = copy_part(arguments.data, Path(scratch) / "data", count)
        results = compare(arguments, data)
    table = Table(title=f"{count} pictures an epoch, to {arguments.size} pixels; ms a picture")
    for column in ("torchvision on", "ours", "torchvision", "times as long (middle half)"):
        table.add_column(column, justify="right")
    for backend, paired in results.items():
        means = (1e3 * statistics.median(run) / count for run in (paired.ours, paired.theirs))
        table.add_row(backend, *(f"{mean:.2f}" for mean in means), paired.cells()[2])
    console.print(
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, Python "
        f"{platform.python_version()}, {torch.backends.cpu.get_cpu_capability()}, one thread"
    )
    console.print(table)
    ratio = min(paired.ratio for paired in results.values())
    console.print(f"torchvision's best takes {ratio:.2f} times as long, {NEEDED} needed")
    sys.exit(ratio < NEEDED)


if __name__ == "__main__":
    main(tyro.cli(Arguments))

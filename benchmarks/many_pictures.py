"""What it takes to open a data set of 100,000 pictures, and what it then costs a worker.

python benchmarks/many_pictures.py --data VOC

The data set is drawn from a given one: a VOC folder in which its pictures and annotations stand
again and again under other names, by hard links, so that the reader finds 100,000 files of each and
the disk holds a few. The cache of decoded pictures is a file of the right length without content:
its pages are not the worker's. A fresh process opens the split and the cache, as a worker does, and
draws fifty batches of an epoch; another one does the same after it. The first opening reads every
annotation and stores the split, the later one finds it stored, as every further worker, trial and
resumed training does. Everything is in the system's own cache of files.

Memory is anonymous memory, which no file backs, beyond what the process had before. Ends with
status 1 if the later opening takes more than 5 s, or a worker more than 200 MiB.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import tyro
from job_runs import copy_part
from rich.console import Console
from rich.table import Table

from ssd_dist.allocator import keep_freed_memory
from ssd_dist.config import AugmentationConfig
from ssd_dist.data import open_split
from ssd_dist.data.cache import ImageCache, shrunk_size
from ssd_dist.data.dataset import DetectionDataset, training_batches
from ssd_dist.data.stored_split import SETTLED_S

ALLOWED_S, ALLOWED_MIB = 5.0, 200.0
NUM_BATCHES, BATCH = 50, 8


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Open a data set of many pictures."""

    data: Path
    """VOC folder with splits `train` and `val`, whose first pictures are repeated."""
    pictures: int = 100_000
    distinct: int = 100
    """Files of the given data set that are repeated; a file system allows some 60,000 links of
    each."""
    size: int = 320
    """Side of the input, in pixels; the cached pictures are half as large again."""
    scratch: Path | None = None
    """Where to make the data set; the system's folder for temporary files if not given."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What a process needed, in seconds and MiB."""

    split_s: float
    """To open the split."""
    rest_s: float
    """To map the cache and make the data set."""
    opened_mib: float
    """Held once it is open."""
    drawn_mib: float
    """Held in the middle of an epoch."""
    peak_mib: float
    """The most at any time, mapped pages of the cache among it."""
    objects: int


def repeat(data: Path, folder: Path, arguments: Arguments) -> Path:
    """The VOC folder with its pictures repeated; its split is `train`."""
    part = copy_part(data, folder / "part", arguments.distinct)
    ids = (part / "ImageSets" / "Main" / "train.txt").read_text("utf-8").split()
    files = [
        (next((part / "JPEGImages").glob(f"{each}.*")), part / "Annotations" / f"{each}.xml")
        for each in ids
    ]
    root = folder / "root"
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    names = [f"{i:06d}" for i in range(arguments.pictures)]
    for name, (picture, annotation) in zip(names, itertools.cycle(files), strict=False):
        (root / "JPEGImages" / f"{name}{picture.suffix}").hardlink_to(picture)
        (root / "Annotations" / f"{name}.xml").hardlink_to(annotation)
    (root / "ImageSets" / "Main" / "train.txt").write_text("\n".join(names), "utf-8")
    time.sleep(SETTLED_S)  # or the first opening would not store what it reads
    return root


def anonymous_mib() -> float:
    memory = psutil.Process().memory_info()
    return float(memory.rss - memory.shared) / 2**20


def open_as_worker(root: Path, size: int, cache_file: Path) -> Opened:
    """In this process, which should have done nothing else before."""
    keep_freed_memory()
    before, peak_before = anonymous_mib(), _peak_mib()
    started = time.perf_counter()
    split = open_split(root, "train")
    split_s = time.perf_counter() - started
    sizes = [shrunk_size(each.width, each.height, size * 3 // 2) for each in split.annotations]
    num_bytes = sum(3 * width * height for width, height in sizes)
    cache_file.touch()
    os.truncate(cache_file, num_bytes)
    started = time.perf_counter()
    cache = ImageCache(cache_file, sizes)
    dataset = DetectionDataset(split, cache, size, AugmentationConfig(), seed=0)
    rest_s = time.perf_counter() - started
    opened = anonymous_mib()
    epoch = training_batches(dataset, epoch=0, global_batch_size=BATCH, rank=0, world_size=1)
    for _ in itertools.islice(epoch, NUM_BATCHES):
        pass
    return Opened(
        split_s=split_s,
        rest_s=rest_s,
        opened_mib=opened - before,
        drawn_mib=anonymous_mib() - before,
        peak_mib=_peak_mib() - peak_before,
        objects=sum(len(each.labels) for each in split.annotations),
    )


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def in_fresh_process(root: Path, size: int, cache_file: Path) -> Opened:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(open_as_worker, (root, size, cache_file))


def main(arguments: Arguments) -> None:
    """Makes the data set, opens it twice, and prints the table."""
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        folder = Path(scratch)
        os.environ["SSD_DIST_CACHE"] = str(folder / "cache")
        root = repeat(arguments.data, folder, arguments)
        cache_file = folder / "pictures"
        try:
            runs = {
                turn: in_fresh_process(root, arguments.size, cache_file)
                for turn in ("first", "later")
            }
        except OSError as error:
            gigabytes = cache_file.stat().st_size / 1e9 if cache_file.exists() else 0.0
            sys.exit(f"with a cache of {gigabytes:.1f} GB the data set can't be opened: {error}")
    first, later = runs["first"], runs["later"]
    table = Table(
        title=f"{arguments.pictures:,} pictures, {later.objects:,} objects, one process after the "
        "other"
    )
    columns = "opening", "split s", "cache s", "MiB when open", "MiB in an epoch", "peak MiB"
    for column in columns:
        table.add_column(column, justify="right")
    for turn, run in runs.items():
        memory = (f"{each:.0f}" for each in (run.opened_mib, run.drawn_mib, run.peak_mib))
        table.add_row(turn, f"{run.split_s:.2f}", f"{run.rest_s:.2f}", *memory)
    console = Console(width=110, highlight=False)
    console.print(table)
    seconds = later.split_s + later.rest_s
    mib = max(later.opened_mib, later.drawn_mib)
    console.print(
        f"the first opening takes {first.split_s + first.rest_s:.1f} s, a later one {seconds:.1f} "
        f"s, {ALLOWED_S:.0f} allowed; it costs a worker {mib:.0f} MiB, {ALLOWED_MIB:.0f} allowed"
    )
    sys.exit(seconds > ALLOWED_S or mib > ALLOWED_MIB)


if __name__ == "__main__":
    main(tyro.cli(Arguments))

"""What each way to run a detector finds in a split, and how long it takes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from rich.table import Table

from ssd_dist.analysis.timing import Percentiles
from ssd_dist.evaluation.voc_ap import evaluate_voc
from ssd_dist.structures import Detections, Split

Detect: TypeAlias = Callable[[str, np.ndarray], Detections]
"""Takes a picture's name and its pixels (H, W, 3) uint8."""

_WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run the detector, and what it gave."""

    name: str
    time: Percentiles
    """Milliseconds a picture, on one thread, from its decoded pixels to its detections."""
    num_bytes: int | None
    """Of the file; None for PyTorch."""
    map_11pt: float | None = None
    """None where it was not evaluated."""


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Meanwhile torch computes on one thread."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def mean_average_precision(detect: Detect, split: Split, positions: Sequence[int]) -> float:
    """11-point mAP of what `detect` finds in these pictures of a split."""
    annotations = [split.annotations[position] for position in positions]
    found = [
        detect(annotation.image_id, split.read_image(position))
        for position, annotation in zip(positions, annotations, strict=True)
    ]
    return evaluate_voc(annotations, found, split.class_names).map_11pt


def time_by_turns(
    ways: Mapping[str, Detect], pictures: Sequence[np.ndarray], *, num_rounds: int = 20
) -> dict[str, Percentiles]:
    """Milliseconds a picture of each way, by turns, so that whatever else the machine does meets
    all of them alike.

    Args:
        ways: by their names; those of files are to run on one thread, torch is put on one here.
        pictures: decoded, (H, W, 3) uint8; at least one.
        num_rounds: pictures that each way is timed on, after a warm-up.
    """
    laps: dict[str, list[float]] = {name: [] for name in ways}
    with one_thread():
        for turn in range(_WARM_UP + num_rounds):
            picture = pictures[turn % len(pictures)]
            for name, detect in ways.items():
                started = time.perf_counter()
                detect("", picture)
                laps[name].append(1000 * (time.perf_counter() - started))
    return {name: _percentiles(times[_WARM_UP:]) for name, times in laps.items()}


def measure(
    ways: Mapping[str, Detect],
    num_bytes: Mapping[str, int],
    split: Split,
    positions: Sequence[int],
    *,
    with_map: bool,
) -> tuple[Variant, ...]:
    """All of it for each way; mAP where `with_map`, on the pictures at `positions`."""
    pictures = [split.read_image(position) for position in positions[:5]]
    times = time_by_turns(ways, pictures)
    variants = [Variant(name, times[name], num_bytes.get(name)) for name in ways]
    if not with_map:
        return tuple(variants)
    return tuple(
        replace(one, map_11pt=mean_average_precision(ways[one.name], split, positions))
        for one in variants
    )


def variant_rows(variants: Sequence[Variant]) -> list[tuple[str, str, str, str]]:
    """Name, mAP, milliseconds a picture with their spread, and megabytes; a heading first."""
    rows = [("", "11-point mAP", "ms a picture (p10–p90)", "MB")]
    for one in variants:
        rows.append(
            (
                one.name,
                "-" if one.map_11pt is None else f"{one.map_11pt:.4f}",
                f"{one.time.median:.1f} ({one.time.p10:.1f}–{one.time.p90:.1f})",
                "-" if one.num_bytes is None else f"{one.num_bytes / 1e6:.1f}",
            )
        )
    return rows


def variant_table(variants: Sequence[Variant]) -> Table:
    """The same for a terminal."""
    heading, *rows = variant_rows(variants)
    table = Table(title="One picture at a time, one thread", title_justify="left")
    for column in heading:
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _percentiles(times: Sequence[float]) -> Percentiles:
    p10, median, p90 = np.percentile(times, [10, 50, 90]).tolist()
    return Percentiles(median, p10, p90)

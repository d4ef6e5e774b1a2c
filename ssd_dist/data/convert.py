"""`python -m ssd_dist.data convert`: a data set in another format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from ssd_dist.data.screen import Screen

_MOST_PROBLEMS = 10


@dataclass(frozen=True, kw_only=True)
class ConvertArguments:
    """Write a data set in another format, every box as it stands: read again it is the same to
    1e-6 of a pixel, which is tried before the folder appears. What a training would refuse is
    refused; what the other format can't say is told."""

    data: Annotated[str, tyro.conf.Positional]
    """What to read, as a training's `--data`."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder for it, which must not exist."""
    to: Literal["voc", "coco", "yolo"]
    """The format to write."""
    format: str = "auto"
    """The format to read: `voc`, `coco`, `yolo`, or `auto`: told by looking at the folder."""
    split: tuple[str, ...] = ()
    """Which splits; without it, all there are."""
    one_based: bool = False
    """VOC's corners, read or written, count from 1 and include the last pixel, as VOC's own do:
    xmin and ymin are 1 less in the other formats. Without it numbers stay as they are."""
    drop_difficult: bool = False
    """Leave out difficult objects and crowds."""
    copy: bool = False
    """Copy the pictures; without it they are hard links where the disk allows it."""


def convert(arguments: ConvertArguments, screen: Screen) -> None:
    """Reads, writes beside `out`, reads that again, and renames it.

    Raises ValueError or OSError for what can't be read or written; `out` then does not exist.
    """
    from ssd_dist.data.conversion import read_exactly, write_as
    from ssd_dist.data.sources import fetch_shown
    from ssd_dist.durable import new_folder

    if arguments.out.exists():
        raise FileExistsError(f"{arguments.out} exists already; name a folder that does not")
    fetch_shown(arguments.data, screen)
    conversion = read_exactly(
        arguments.data,
        arguments.split,
        arguments.format,
        one_based=arguments.one_based,
        drop_difficult=arguments.drop_difficult,
        link=not arguments.copy,
    )
    with screen.bar("pictures"), new_folder(arguments.out) as folder:
        lost = write_as(
            arguments.to,
            conversion,
            folder,
            one_based=arguments.one_based,
            on_picture=screen.advance,
        )
    for note in conversion.problems[:_MOST_PROBLEMS]:
        screen.line(f"note: {note}")
    if (more := len(conversion.problems) - _MOST_PROBLEMS) > 0:
        screen.line(f"note: … and {more:,} more like these")
    for note in lost:
        screen.line(f"note: {note}")
    for split in conversion.splits:
        count = sum(len(picture.annotation.labels) for picture in split.pictures)
        screen.line(f"{split.name}: {len(split.pictures):,} pictures, {count:,} objects")
    screen.heading(f"Written as {arguments.to}: {arguments.out}")

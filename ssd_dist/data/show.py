"""`python -m ssd_dist.data show`: its arguments. What it does is the report's, which draws."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class ShowArguments:
    """Write a page of pictures with their boxes, and figures by class, size and aspect, with the
    share of objects that the model's priors can reach: one file, which opens offline."""

    data: Annotated[str, tyro.conf.Positional]
    """A data set, as a training's `--data`."""
    split: tuple[str, ...] = ()
    """Which splits; without it, all there are."""
    config: Path | None = None
    """Configuration whose classes and priors are meant; without it, the default ones."""
    format: str | None = None
    """`voc`, `coco` or `yolo`; without it, as the configuration says, or by looking at the folder.
    """
    out: Path = Path("data.html")
    """The page; one that is there is replaced."""
    pictures: int = 12
    """How many of each split, spread evenly over it."""

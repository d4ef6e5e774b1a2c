"""What an evaluation needs of a data set: its annotations, without a picture being opened."""

from __future__ import annotations

from dataclasses import dataclass

from ssd_dist.structures import Annotation


@dataclass(frozen=True, slots=True, eq=False)
class GroundTruth:
    """The annotations of a split as its files have them.

    Boxes are float64 and unclipped: other than in training, where a box must lie in its picture,
    what an annotation file says is what detections are compared with. A box without area (x1 >= x2
    or y1 >= y2), which no detection could find, is dropped and told, as in training.
    """

    source: str
    """The file or folder that was read, and the split where it has several; for messages."""
    annotations: tuple[Annotation, ...]
    """Width and height are 0 where the files do not tell them."""
    class_names: tuple[str, ...]
    """Name of class i + 1 at position i."""
    category_ids: tuple[int, ...]
    """Number by which a results file names class i + 1: COCO's category id, or 1…C."""
    problems: tuple[str, ...]
    """What was dropped, a sentence each, with the file's name."""

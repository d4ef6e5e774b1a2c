"""From the user's `--data` to a split: which reader reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ssd_dist.data.coco import read_coco
from ssd_dist.data.ground_truth import GroundTruth
from ssd_dist.data.synthetic import synthetic_split
from ssd_dist.data.voc import (
    is_voc_root,
    nested_voc_roots,
    read_voc,
    read_voc_ground_truth,
)
from ssd_dist.structures import Split


def open_split(data: str, split: str, class_names: Sequence[str] | None = None) -> Split:
    """Opens one split of a data set.

    Args:
        data: `synthetic`, or the root folder of a data set in PASCAL VOC layout.
        split: its name; for VOC a file `ImageSets/Main/<split>.txt`.
        class_names: the classes, label 1 first. None: those of the data set, sorted by name, the
            same list for each of its splits. Give a checkpoint's classes to evaluate it.

    Raises FileNotFoundError for a path or file that does not exist, and ValueError for a split that
    does not exist (naming those that do), a layout that is not known, a class that is not in
    `class_names`, or an annotation that can't be read (naming the file).
    """
    if data == "synthetic":
        return synthetic_split(split, class_names=class_names)
    root = Path(data).expanduser()
    if not root.is_dir():
        kind = "is a file, not a folder" if root.exists() else "does not exist"
        raise FileNotFoundError(
            f"data {data!r} {kind}; give 'synthetic' or the root folder of a VOC data set"
        )
    _check_voc_root(root)
    return read_voc(root, split, class_names)


def open_ground_truth(path: Path, split: str) -> GroundTruth:
    """Opens the annotations of a data set, without its pictures.

    Args:
        path: the root folder of a data set in PASCAL VOC layout, or a COCO annotation file.
        split: for VOC a file `ImageSets/Main/<split>.txt`; a COCO file is one split and has no
            others, so that this is not looked at.

    Raises FileNotFoundError for a path or file that does not exist, and ValueError for a split that
    does not exist (naming those that do), a layout that is not known, or an annotation that can't
    be read (naming the file).
    """
    if path.is_dir():
        _check_voc_root(path)
        return read_voc_ground_truth(path, split)
    if not path.exists():
        raise FileNotFoundError(
            f"ground truth {path} does not exist; give the root folder of a VOC data set, or a "
            "COCO annotation file"
        )
    return read_coco(path)


def _check_voc_root(root: Path) -> None:
    if not is_voc_root(root):
        nested = nested_voc_roots(root)
        hint = f"; did you mean {nested[0]}?" if nested else ""
        raise ValueError(f"{root} holds no data set: ImageSets/Main/*.txt is missing{hint}")

"""Reads data sets in PASCAL VOC layout: `Annotations`, `ImageSets/Main`, `JPEGImages`.

Coordinates stay as they stand in the file. VOC's own are 1-based and inclusive; other tools write
0-based corners into the same layout, and nothing in a file tells which, so nothing is shifted.
Detections are compared with boxes in these same coordinates, so half a pixel cancels out.

The classes are all those in the annotations of any split, sorted by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ssd_dist.data.file_split import ListedPicture, Listing
from ssd_dist.data.problems import ProblemList
from ssd_dist.data.root_files import MAX_TEXT_BYTES, usable_file
from ssd_dist.data.voc_layout import (
    Ids,
    annotation_path,
    find_pictures,
    is_root,
    read_splits,
    split_names,
)
from ssd_dist.data.voc_xml import VocFile, read_voc_file

__all__ = ["LAYOUT", "is_root", "read", "split_names"]

LAYOUT = "ImageSets/Main/*.txt"


def read(
    root: Path,
    split: str,
    class_names: Sequence[str] | None,
    problems: ProblemList,
    *,
    with_pictures: bool,
) -> Listing:
    """`ImageSets/Main/<split>.txt` with its annotations; see `file_split.Reader`."""
    ids = read_splits(root, split, problems)
    files = {image_id: _read_annotation(root, split, image_id, problems) for image_id in ids[split]}
    names = class_names if class_names is not None else _known_classes(root, files, ids, problems)
    if not names:
        problems.add("no_class", root, "no class: the annotations hold no object")
    paths = find_pictures(root, problems) if with_pictures else {}
    pictures = [
        ListedPicture(
            image_id=image_id,
            path=paths.get(image_id, root / "JPEGImages" / f"{image_id}.jpg"),
            missing=f"no such picture (nor .png and the like), which split {split!r} names",
            file=file.path,
            objects=file.objects,
            size=file.size,
            size_name="<size>",
            size_line=file.size_line,
        )
        for image_id, file in files.items()
        if file is not None and paths is not None
    ]
    return Listing(tuple(names), pictures)


def _read_annotation(
    root: Path, split: str, image_id: str, problems: ProblemList
) -> VocFile | None:
    path = annotation_path(root, image_id)
    missing = f"no annotation {path.name}, which split {split!r} names"
    if not usable_file(path, root, problems, missing=missing, max_bytes=MAX_TEXT_BYTES):
        return None
    return read_voc_file(path, problems)


def _known_classes(
    root: Path,
    already_read: Mapping[str, VocFile | None],
    ids: Mapping[str, Ids],
    problems: ProblemList,
) -> tuple[str, ...]:
    """The classes in the annotations of all splits; a split may be without (VOC's test servers)."""
    files = list(already_read.values())
    seen = set(already_read)
    for split, its_ids in ids.items():
        for image_id in its_ids:
            if image_id not in seen and annotation_path(root, image_id).exists():
                files.append(_read_annotation(root, split, image_id, problems))
            seen.add(image_id)
    return tuple(sorted({found.class_name for file in files if file for found in file.objects}))

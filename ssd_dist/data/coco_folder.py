"""Reads data sets in COCO's format: annotation files with the pictures beside them.

A box is x, y, width, height in pixels, 0-based: (x, y, x + width, y + height) here. Crowd regions
(`iscrowd`) become `difficult`: no targets in training, and what is found in them counts neither
way. The classes are the categories of all splits, sorted by name; ids, which may have gaps, number
them in the file alone. A picture is called by its id, as in COCO's results files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ssd_dist.data.annotations import AnnotatedObject, class_name_problem
from ssd_dist.data.coco_json import CocoFile, CocoImage, Outline, read_coco_file, read_outline
from ssd_dist.data.coco_layout import (
    ROBOFLOW_FILE,
    CocoSplit,
    choose,
    find_splits,
    is_inside,
    picture_folder,
)
from ssd_dist.data.file_split import ListedPicture, Listing
from ssd_dist.data.problems import ProblemList, quoted
from ssd_dist.data.root_files import usable_file
from ssd_dist.data.shared_pictures import Entry, tell_shared

LAYOUT = f"annotations/*.json and no */{ROBOFLOW_FILE}"
MAX_JSON_BYTES = 4 * 2**30
"""Largest annotation file; that of COCO's 118,000 training pictures has 448 MB."""


def is_root(root: Path) -> bool:
    """Whether `root` holds at least one annotation file."""
    return bool(find_splits(root))


def split_names(root: Path) -> list[str]:
    """The root's splits; see `coco_layout.CocoSplit`."""
    return [split.name for split in find_splits(root)]


def read(
    root: Path,
    split: str,
    class_names: Sequence[str] | None,
    problems: ProblemList,
    *,
    with_pictures: bool,
) -> Listing:
    """A split's annotation file; see `file_split.Reader`."""
    splits = find_splits(root)
    chosen = choose(splits, split)
    if chosen is None:
        known = ", ".join(each.name for each in splits)
        raise ValueError(f"no split {split!r} in {root}; there are: {known}")
    file = _read_file(root, chosen, problems)
    outlines: dict[str, Outline] = {}
    if file is not None:
        outlines[chosen.name] = (file.images, file.categories)
    for other in splits:
        if other is not chosen and _usable(root, other, problems):
            outlines[other.name] = read_outline(other.file, problems)
    tell_shared(
        chosen.name,
        {
            each.name: _entries(each, outlines[each.name][0])
            for each in splits
            if each.name in outlines
        },
        problems,
    )
    if class_names is None:
        names = {each.name for _, categories in outlines.values() for each in categories}
        class_names = sorted(name for name in names if class_name_problem(name) is None)
    pictures = _pictures(chosen, file, problems) if file else []
    return Listing(tuple(class_names), pictures)


def _usable(root: Path, split: CocoSplit, problems: ProblemList) -> bool:
    missing = "no such annotation file"
    return usable_file(split.file, root, problems, missing=missing, max_bytes=MAX_JSON_BYTES)


def _read_file(root: Path, split: CocoSplit, problems: ProblemList) -> CocoFile | None:
    return read_coco_file(split.file, problems) if _usable(root, split, problems) else None


def _entries(split: CocoSplit, images: Iterable[CocoImage]) -> dict[str, Entry]:
    """The pictures of a split by their files."""
    named = {i: each.file_name for i, each in enumerate(images) if each.file_name is not None}
    folder = picture_folder(split, list(named.values()))
    return {
        str(folder / name): Entry(name, split.file, place=f"images[{i}]")
        for i, name in named.items()
    }


def _pictures(split: CocoSplit, file: CocoFile, problems: ProblemList) -> list[ListedPicture]:
    """The pictures in the order of the file, each with its objects in that order."""
    objects: list[list[AnnotatedObject]] = [[] for _ in file.images]
    names = [category.name for category in file.categories]
    boxes_xyxy = file.boxes_xywh.copy()
    boxes_xyxy[:, 2:] += boxes_xyxy[:, :2]
    rows = zip(
        file.image_of.tolist(),
        file.labels.tolist(),
        boxes_xyxy.tolist(),
        file.is_crowd.tolist(),
        file.positions.tolist(),
        strict=True,
    )
    for image, label, (x1, y1, x2, y2), is_crowd, i in rows:
        objects[image].append(
            AnnotatedObject(names[label - 1], (x1, y1, x2, y2), is_crowd, place=f"annotations[{i}]")
        )
    folder = picture_folder(split, [each.file_name or "" for each in file.images])
    pictures = []
    for image, found, i in zip(file.images, objects, file.image_positions, strict=True):
        place = f"images[{i}]"
        if image.file_name is None:
            message = f"{place} has no 'file_name'"
            problems.add("broken_annotation", split.file, message, place=place)
            continue
        if not is_inside(image.file_name):
            message = (
                f"{place}.file_name is {quoted(image.file_name)}, which leads out of the folder of "
                "pictures; give the name of a file in it"
            )
            problems.add("outside_root", split.file, message, place=f"{place}.file_name")
            continue
        pictures.append(
            ListedPicture(
                image_id=str(image.id),
                path=folder / image.file_name,
                missing=f"no such picture, which {place} of {split.file.name} names",
                file=split.file,
                objects=tuple(found),
                size=image.size,
                size_place=place,
            )
        )
    return pictures

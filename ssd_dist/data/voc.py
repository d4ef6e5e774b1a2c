"""Reads data sets in PASCAL VOC layout: `Annotations`, `ImageSets/Main`, `JPEGImages`.

Coordinates stay as they stand in the file. VOC's own are 1-based and inclusive; other tools write
0-based corners into the same layout, and nothing in a file tells which, so nothing is shifted.
Detections are compared with boxes in these same coordinates, so half a pixel cancels out.

What is wrong in the files is either refused, with the file's name (broken or missing files, unknown
classes, coordinates that are no numbers), or repaired and told in `VocSplit.problems` (boxes that
leave the picture, boxes without area, identifiers listed twice).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ssd_dist.data.ground_truth import GroundTruth
from ssd_dist.data.voc_xml import VocFile, read_voc_file
from ssd_dist.structures import Annotation, Split

_SPLITS_FOLDER = Path("ImageSets", "Main")
_PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, eq=False)
class VocSplit(Split):
    """One split of a VOC root; see `structures.Split` for the fields."""

    name: str
    class_names: tuple[str, ...]
    annotations: tuple[Annotation, ...]
    problems: tuple[str, ...]
    fingerprint: str
    picture_paths: tuple[Path, ...] = field(repr=False)
    """The file of each annotation's picture."""

    def read_image(self, index: int) -> np.ndarray:
        """The picture of `annotations[index]`: (H, W, 3) uint8, RGB.

        Pixels come as stored: an EXIF orientation is not applied, since VOC boxes refer to the
        stored pixels. Grey pictures and palettes are converted to RGB, transparency is dropped.
        Raises ValueError naming the file if it can't be decoded.
        """
        path = self.picture_paths[index]
        try:
            with Image.open(path) as picture:
                return np.array(picture.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path}: not readable as a picture: {error}") from error


def is_voc_root(root: Path) -> bool:
    """Whether `root` holds at least one split file."""
    return any((root / _SPLITS_FOLDER).glob("*.txt"))


def nested_voc_roots(root: Path) -> list[Path]:
    """VOC roots one or two levels below `root`, as in `VOCdevkit/VOC2007`."""
    below = [*root.glob("*/ImageSets"), *root.glob("*/*/ImageSets")]
    return sorted(folder.parent for folder in below if is_voc_root(folder.parent))


def read_voc(root: str | Path, split: str, class_names: Sequence[str] | None = None) -> VocSplit:
    """Reads `ImageSets/Main/<split>.txt` of a VOC root with its annotations.

    A split file names a picture a line; further columns (as in VOC's `aeroplane_train.txt`) are not
    read. Without `class_names` the classes are all those in the annotations of any split of the
    root, sorted, so that each split numbers them alike. Widths and heights are the pictures' own,
    whatever the annotation says.

    Raises FileNotFoundError for a missing folder, annotation or picture; ValueError for an unknown
    split, broken XML, an unreadable picture header, a class that is not in `class_names`, or a
    coordinate that is not a finite number. Each names the file.
    """
    root = Path(root)
    problems: list[str] = []
    files, names = _read_split(root, split, class_names, problems)
    label_of = {name: label for label, name in enumerate(names, start=1)}
    pictures = _find_pictures(root)

    annotations, paths = [], []
    for image_id, file in files.items():
        if image_id not in pictures:
            folder = root / "JPEGImages"
            raise FileNotFoundError(
                f"no picture {folder / image_id}.jpg (or .png), which split {split!r} names"
            )
        paths.append(pictures[image_id])
        size = _picture_size(pictures[image_id])
        annotations.append(_to_annotation(image_id, file, label_of, problems, picture_size=size))
    return VocSplit(
        name=split,
        class_names=names,
        annotations=tuple(annotations),
        problems=tuple(problems),
        fingerprint=_fingerprint(annotations, names, paths),
        picture_paths=tuple(paths),
    )


def read_voc_ground_truth(root: str | Path, split: str) -> GroundTruth:
    """Reads the annotations of a split without its pictures, which need not be there.

    The classes are those of `read_voc`; a results file numbers them from 1. Boxes come as they
    stand in the files, see `GroundTruth`. Widths and heights are those of the annotation files.

    Raises as `read_voc` does, pictures apart.
    """
    root = Path(root)
    problems: list[str] = []
    files, names = _read_split(root, split, None, problems)
    label_of = {name: label for label, name in enumerate(names, start=1)}
    return GroundTruth(
        source=f"{root}, split {split!r}",
        annotations=tuple(
            _to_annotation(image_id, file, label_of, problems, picture_size=None)
            for image_id, file in files.items()
        ),
        class_names=names,
        category_ids=tuple(label_of.values()),
        problems=tuple(problems),
    )


def _read_split(
    root: Path, split: str, class_names: Sequence[str] | None, problems: list[str]
) -> tuple[dict[str, VocFile], tuple[str, ...]]:
    """Image id → its annotation file, and the class names."""
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}")
    files = {
        image_id: read_voc_file(_annotation_path(root, image_id))
        for image_id in _read_ids(root, split, problems)
    }
    names = _known_classes(root, files) if class_names is None else tuple(class_names)
    _check_class_names(names, root)
    return files, names


def _split_names(root: Path) -> list[str]:
    """The root's splits, without VOC's per-class files (`aeroplane_train` beside `train`)."""
    names = {path.stem for path in (root / _SPLITS_FOLDER).glob("*.txt")}
    return sorted(n for n in names if "_" not in n or n.rsplit("_", 1)[1] not in names)


def _first_column(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not readable as text: {error}") from None
    return [line.split()[0] for line in lines if line.strip()]


def _read_ids(root: Path, split: str, problems: list[str]) -> list[str]:
    path = root / _SPLITS_FOLDER / f"{split}.txt"
    if not path.is_file():
        known = ", ".join(_split_names(root)) or "none"
        raise ValueError(f"no split {split!r} in {path.parent}; there are: {known}")
    listed = _first_column(path)
    if not listed:
        raise ValueError(f"{path}: the split names no picture")
    unique = list(dict.fromkeys(listed))
    if len(unique) < len(listed):
        twice = sorted(name for name, count in Counter(listed).items() if count > 1)
        shown = ", ".join(twice[:5]) + (", …" if len(twice) > 5 else "")
        problems.append(
            f"{path}: {len(listed) - len(unique)} repeated identifiers dropped ({shown})"
        )
    return unique


def _annotation_path(root: Path, image_id: str) -> Path:
    return root / "Annotations" / f"{image_id}.xml"


def _known_classes(root: Path, already_read: dict[str, VocFile]) -> tuple[str, ...]:
    """The classes in the annotations of all splits; a split may be without (VOC's test servers)."""
    in_a_split: set[str] = set()
    for split in _split_names(root):
        in_a_split.update(_first_column(root / _SPLITS_FOLDER / f"{split}.txt"))
    names = {found.class_name for file in already_read.values() for found in file.objects}
    for image_id in in_a_split - already_read.keys():
        path = _annotation_path(root, image_id)
        if path.is_file():
            names.update(found.class_name for found in read_voc_file(path).objects)
    return tuple(sorted(names))


def _check_class_names(class_names: Sequence[str], root: Path) -> None:
    if not class_names:
        raise ValueError(f"{root}: no class: the annotations hold no object, and none was given")
    if len(set(class_names)) < len(class_names):
        raise ValueError(f"the class names repeat themselves: {', '.join(class_names)}")


def _find_pictures(root: Path) -> dict[str, Path]:
    """Stem → picture; of several with one stem that of the earliest suffix in the list above."""
    folder = root / "JPEGImages"
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    found = [path for path in folder.iterdir() if path.suffix.lower() in _PICTURE_SUFFIXES]
    found.sort(key=lambda path: _PICTURE_SUFFIXES.index(path.suffix.lower()), reverse=True)
    return {path.stem: path for path in found}


def _picture_size(path: Path) -> tuple[int, int]:
    """(width, height) from the file's header; nothing is decoded."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not readable as a picture: {error}") from error


def _to_annotation(
    image_id: str,
    file: VocFile,
    label_of: dict[str, int],
    problems: list[str],
    *,
    picture_size: tuple[int, int] | None,
) -> Annotation:
    """For training, clipped to a picture of this (width, height), float32; None: for evaluation, as
    the file has it, float64."""
    width, height = picture_size or (math.inf, math.inf)
    left, top = (0.0, 0.0) if picture_size else (-math.inf, -math.inf)
    boxes, labels, difficult = [], [], []
    for found in file.objects:
        if found.class_name not in label_of:
            known = ", ".join(label_of)
            raise ValueError(f"{file.path}: unknown class {found.class_name!r}; known are: {known}")
        x1, y1, x2, y2 = found.box_xyxy
        clipped = (max(x1, left), max(y1, top), min(x2, width), min(y2, height))
        shown = f"{file.path}: {found.class_name!r} box ({x1:g}, {y1:g}, {x2:g}, {y2:g})"
        if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
            inside = f" inside the {width}x{height} picture" if picture_size else ""
            problems.append(f"{shown} dropped: no area{inside}")
            continue
        if clipped != found.box_xyxy:
            problems.append(f"{shown} clipped to the {width}x{height} picture")
        boxes.append(clipped)
        labels.append(label_of[found.class_name])
        difficult.append(found.difficult)
    width, height = picture_size or file.size
    return Annotation(
        image_id=image_id,
        width=width,
        height=height,
        boxes_xyxy=np.array(boxes, np.float32 if picture_size else np.float64).reshape(-1, 4),
        labels=np.array(labels, dtype=np.int64),
        difficult=np.array(difficult, dtype=bool),
    )


def _fingerprint(
    annotations: Iterable[Annotation], class_names: Iterable[str], paths: Iterable[Path]
) -> str:
    """Pictures enter by size and time of change: reading them all would cost minutes on VOC."""
    digest = hashlib.blake2b(repr(tuple(class_names)).encode(), digest_size=8)
    for annotation, path in zip(annotations, paths, strict=True):
        stat = path.stat()
        key = (annotation.image_id, annotation.width, annotation.height, len(annotation.labels))
        digest.update(repr((*key, stat.st_size, stat.st_mtime_ns)).encode())
        for array in (annotation.boxes_xyxy, annotation.labels, annotation.difficult):
            digest.update(array.tobytes())
    return digest.hexdigest()

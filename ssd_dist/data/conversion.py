"""From a data set in one format to one in another, every box as it stands."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from ssd_dist.data import coco_writer, voc_writer, yolo_writer
from ssd_dist.data.file_split import Reader, annotate
from ssd_dist.data.pictures import SUFFIXES
from ssd_dist.data.problems import ProblemList
from ssd_dist.data.readers import FORMATS, find_reader, open_split, split_names
from ssd_dist.data.writer import NamedPicture, NamedSplit, Writer
from ssd_dist.structures import Annotation, Split

WRITERS: Mapping[str, Writer] = {"voc": voc_writer, "coco": coco_writer, "yolo": yolo_writer}
"""Name of a format → what writes it."""
_TOLERANCE = 1e-6
"""In pixels: how near each coordinate is when what was written is read again."""
_SPACE = re.compile(r"[\s/\\]+")


@dataclass(frozen=True, slots=True)
class Conversion:
    """What is to be written, and what was found on the way."""

    class_names: tuple[str, ...]
    splits: tuple[NamedSplit, ...]
    problems: tuple[str, ...]
    """Of the data set that is read."""


def read_exactly(
    data: str,
    splits: Sequence[str],
    data_format: str,
    *,
    one_based: bool,
    drop_difficult: bool,
    link: bool,
) -> Conversion:
    """A data set with its boxes as they stand in the files, in float64 and unclipped.

    Args:
        data: as for a training.
        splits: which; none: all there are.
        data_format: as for a training.
        one_based: VOC's corners count from 1 and the last pixel belongs to a box.
        drop_difficult: leave out difficult objects and crowds.
        link: pictures are to be hard links where the disk allows it.

    Raises FileNotFoundError or ValueError as `open_split`.
    """
    problems = ProblemList(strict=True)
    names: tuple[str, ...] = ()
    found: list[tuple[str, list[tuple[Annotation, str, Callable[[Path], None]]]]] = []
    for split in splits or split_names(data, data_format):
        pictures: list[tuple[Annotation, str, Callable[[Path], None]]] = []
        if data == "synthetic":
            drawn = open_split(data, split)
            names = drawn.class_names
            for i, annotation in enumerate(drawn.annotations):
                pictures.append((annotation, f"{annotation.image_id}.png", _drawer(drawn, i)))
        else:
            root, reader = find_reader(data, data_format)
            listing = reader.read(root, split, names or None, problems, with_pictures=True)
            names = listing.class_names
            shift = -1.0 if one_based and reader is FORMATS["voc"] else 0.0
            for path, annotation in annotate(listing, root, problems, clip=False):
                pictures.append((_shifted(annotation, shift), str(path), _copier(path, link)))
        found.append((split, pictures))
    taken: dict[str, str] = {}
    written = []
    for split, pictures in found:
        named = []
        for annotation, source, copy in pictures:
            if drop_difficult:
                annotation = _chosen(annotation, ~annotation.difficult)
            annotation = replace(annotation, boxes_xyxy=annotation.boxes_xyxy.astype(np.float64))
            named.append(NamedPicture(_name(source, annotation, split, taken), annotation, copy))
        written.append(NamedSplit(split, tuple(named)))
    return Conversion(names, tuple(written), tuple(dict.fromkeys(problems.sentences())))


def write_as(
    name: str,
    conversion: Conversion,
    root: Path,
    *,
    one_based: bool,
    on_picture: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Writes a data set into an empty folder, and reads it again to see that all is there; returns
    what the format can't say, a sentence each.

    `name`: one of `WRITERS`.
    `one_based`: VOC's corners count from 1 and include the last pixel. `on_picture`: called with
    (pictures put there, pictures in all).
    """
    writer = WRITERS[name]
    shift = 1.0 if one_based and name == "voc" else 0.0
    counts = {"dropped": 0, "clipped": 0, "no longer difficult": 0}
    splits = []
    for split in conversion.splits:
        fitted = []
        for picture in split.pictures:
            before = picture.annotation
            after = writer.fit(_shifted(before, shift))
            counts["dropped"] += len(before.labels) - len(after.labels)
            counts["no longer difficult"] += int(before.difficult.sum() - after.difficult.sum())
            counts["clipped"] += len(after.labels) - _num_same(_shifted(before, shift), after)
            fitted.append(replace(picture, annotation=after))
        splits.append(NamedSplit(split.name, tuple(fitted)))
    folder = root / writer.PICTURES
    folder.mkdir(parents=True)
    copies = {each.name: each.copy for split in splits for each in split.pictures}
    for count, (file_name, copy) in enumerate(copies.items(), start=1):
        copy(folder / file_name)
        if on_picture is not None:
            on_picture(count, len(copies))
    lost = writer.write(root, splits, conversion.class_names)
    _check_written(FORMATS[name], root, splits, conversion.class_names)
    words = {
        "dropped": "objects are dropped, which lie outside their pictures",
        "clipped": "boxes that leave their pictures are clipped to them",
        "no longer difficult": (
            "difficult objects (or crowds) are ordinary ones now, since the format does not know "
            "the difference; --drop-difficult leaves them out"
        ),
    }
    return [*lost, *(f"{counts[key]:,} {text}" for key, text in words.items() if counts[key])]


def _check_written(
    reader: Reader, root: Path, splits: Iterable[NamedSplit], class_names: Sequence[str]
) -> None:
    """Reads what was written, and compares every box with what was to be written."""
    for split in splits:
        problems = ProblemList(strict=True)
        listing = reader.read(root, split.name, class_names, problems, with_pictures=True)
        read = [each for _, each in annotate(listing, root, problems, clip=False)]
        for picture, again in zip(split.pictures, read, strict=True):
            meant = picture.annotation
            assert np.array_equal(meant.labels, again.labels), picture.name
            assert np.array_equal(meant.difficult, again.difficult), picture.name
            assert np.allclose(meant.boxes_xyxy, again.boxes_xyxy, rtol=0, atol=_TOLERANCE), (
                picture.name
            )


def _num_same(before: Annotation, after: Annotation) -> int:
    """Boxes of `after` that are among those of `before`."""
    known = {tuple(box) for box in before.boxes_xyxy.tolist()}
    return sum(tuple(box) in known for box in after.boxes_xyxy.tolist())


def _name(path: str, annotation: Annotation, split: str, taken: dict[str, str]) -> str:
    """What a picture is called: as its file, unless another one is called so, or the same one with
    other objects. `taken`: stem → what it was given to."""
    source = PurePosixPath(path)
    digest = hashlib.blake2b(annotation.boxes_xyxy.tobytes() + annotation.labels.tobytes())
    key = f"{path}\0{digest.hexdigest()}\0{annotation.difficult.tolist()}"
    stem = _SPACE.sub("_", source.stem) or "picture"
    candidates = [stem, f"{split}_{stem}", *(f"{split}_{stem}_{i}" for i in range(2, 10_000))]
    chosen = next(each for each in candidates if taken.get(each, key) == key)
    taken[chosen] = key
    suffix = source.suffix if source.suffix.lower() in SUFFIXES else SUFFIXES[0]
    return chosen + suffix


def _shifted(annotation: Annotation, shift: float) -> Annotation:
    """Left and upper edges moved by `shift` pixels."""
    moved = annotation.boxes_xyxy.astype(np.float64) + np.array([shift, shift, 0, 0])
    return replace(annotation, boxes_xyxy=moved)


def _chosen(annotation: Annotation, which: np.ndarray) -> Annotation:
    return replace(
        annotation,
        boxes_xyxy=annotation.boxes_xyxy[which],
        labels=annotation.labels[which],
        difficult=annotation.difficult[which],
    )


def _copier(path: Path, link: bool) -> Callable[[Path], None]:
    def copy(target: Path) -> None:
        if link:
            try:
                os.link(os.path.realpath(path), target)
                return
            except OSError:  # another disk, or one that knows no links
                pass
        shutil.copy2(path, target)

    return copy


def _drawer(split: Split, index: int) -> Callable[[Path], None]:
    def draw(target: Path) -> None:
        Image.fromarray(split.read_image(index)).save(target)

    return draw

"""Pictures and annotations in files: what the readers of all formats do the same way.

A reader lists what the files of its format hold, a :class:`Listing`. From there on one code looks
at the pictures, clips the boxes and numbers the classes, whatever the format: the same data set in
two formats gives the same annotations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, overload

import numpy as np

from ssd_dist.data.annotations import AnnotatedObject, make_annotation
from ssd_dist.data.flat_annotations import FlatAnnotations
from ssd_dist.data.ground_truth import GroundTruth
from ssd_dist.data.pictures import PictureHeader, decode, read_header
from ssd_dist.data.problems import ProblemList
from ssd_dist.data.root_files import usable_file
from ssd_dist.structures import Annotation, Split


@dataclass(frozen=True, slots=True)
class ListedPicture:
    """A picture as the files of a data set have it; itself it has not been looked at."""

    image_id: str
    """Unique in the split."""
    path: Path | None
    """Its file; None where only annotations were asked for."""
    missing: str
    """What to say where there is no such file."""
    file: Path
    """Where its objects stand."""
    objects: tuple[AnnotatedObject, ...]
    size: tuple[int, int] = (0, 0)
    """(width, height) by the annotations; 0 where they do not tell."""
    size_name: str = "size"
    """What the file calls it."""
    size_line: int | None = None
    size_place: str | None = None
    """Where it stands, as in `problems.Problem`."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A split as the files of a data set have it."""

    class_names: tuple[str, ...]
    """Name of class i + 1 at position i."""
    pictures: Sequence[ListedPicture]
    relative: bool = False
    """Whether boxes are relative to their picture (0 to 1) instead of in pixels."""


class Reader(Protocol):
    """What a format's file gives; the file itself, as a module, is the reader."""

    LAYOUT: str
    """What makes a folder one of this format, in words."""

    def is_root(self, root: Path) -> bool:
        """Whether a folder that exists looks like a data set of this format."""
        ...

    def split_names(self, root: Path) -> list[str]:
        """The root's splits, sorted."""
        ...

    def read(
        self,
        root: Path,
        split: str,
        class_names: Sequence[str] | None,
        problems: ProblemList,
        *,
        with_pictures: bool,
    ) -> Listing:
        """What the root's files say about a split.

        Args:
            root: for which `is_root` holds.
            split: its name.
            class_names: the classes, label 1 first. None: those of the data set, sorted by name,
                the same for each of its splits.
            problems: what is wrong in the files is told here.
            with_pictures: False: only annotations are asked for. A reader whose boxes are relative
                gives the pictures all the same.

        Raises ValueError for an unknown split, naming those that exist; DataError as `problems`
        does.
        """
        ...


@dataclass(frozen=True, eq=False)
class PicturePaths(Sequence[Path]):
    """Files of a root by their names; a path is made when it is asked for."""

    root: Path
    names: list[str]
    """Paths from the root."""

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Path, ...]: ...
    def __getitem__(self, index: int | slice) -> Path | tuple[Path, ...]:
        if isinstance(index, slice):
            return tuple(self.root / name for name in self.names[index])
        return self.root / self.names[index]


@dataclass(frozen=True, eq=False)
class FileSplit(Split):
    """One split of a data set in files; see `structures.Split` for the fields."""

    name: str
    class_names: tuple[str, ...]
    annotations: FlatAnnotations
    problems: tuple[str, ...]
    fingerprint: str
    picture_paths: PicturePaths = field(repr=False)
    """The file of each annotation's picture."""

    def read_image(self, index: int) -> np.ndarray:
        """The picture of `annotations[index]`: (H, W, 3) uint8, RGB; see `pictures.decode`."""
        return decode(self.picture_paths[index])


def make_split(listing: Listing, root: Path, name: str, problems: ProblemList) -> FileSplit:
    """The split of a listing, for a training: boxes clipped to their pictures, float32. Widths and
    heights are the pictures' own, whatever the annotations say.

    Raises DataError, naming the file, for what a strict list refuses: see `problems.KINDS`.
    """
    found = list(annotate(listing, root, problems, clip=True))
    annotations, paths = [each for _, each in found], [path for path, _ in found]
    return FileSplit(
        name=name,
        class_names=listing.class_names,
        annotations=FlatAnnotations.of(annotations),
        problems=problems.sentences(),
        fingerprint=_fingerprint(annotations, listing.class_names, paths),
        picture_paths=PicturePaths(root, [str(path.relative_to(root)) for path in paths]),
    )


def annotate(
    listing: Listing, root: Path, problems: ProblemList, *, clip: bool
) -> Iterator[tuple[Path, Annotation]]:
    """Each picture's file and its annotation; those without a picture that can be read are left
    out, and told. `clip` as in `make_annotation`."""
    label_of = _labels(listing)
    for picture in listing.pictures:
        assert picture.path is not None
        if not usable_file(picture.path, root, problems, missing=picture.missing):
            continue
        header = read_header(picture.path, problems)
        if header is None or not _size_fits(picture, header, problems):
            continue
        size = (header.width, header.height)
        objects = _in_pixels(picture.objects, size) if listing.relative else picture.objects
        annotation = make_annotation(
            picture.image_id, size, objects, picture.file, label_of, problems, clip=clip
        )
        yield picture.path, annotation


def make_ground_truth(
    listing: Listing, root: Path, source: str, problems: ProblemList
) -> GroundTruth:
    """The annotations of a listing as its files have them; a results file numbers its classes from
    1. Pictures are not opened and need not be there, unless boxes are relative to them: widths and
    heights are those of the annotations.

    Raises as `make_split` does.
    """
    label_of = _labels(listing)
    if listing.relative:
        annotations = [each for _, each in annotate(listing, root, problems, clip=False)]
    else:
        annotations = [
            make_annotation(
                each.image_id, each.size, each.objects, each.file, label_of, problems, clip=False
            )
            for each in listing.pictures
        ]
    return GroundTruth(
        source=source,
        annotations=tuple(annotations),
        class_names=listing.class_names,
        category_ids=tuple(label_of.values()),
        problems=problems.sentences(),
    )


def _labels(listing: Listing) -> dict[str, int]:
    return {name: label for label, name in enumerate(listing.class_names, start=1)}


def _in_pixels(
    objects: Iterable[AnnotatedObject], size: tuple[int, int]
) -> tuple[AnnotatedObject, ...]:
    width, height = size
    return tuple(
        replace(found, box_xyxy=(x1 * width, y1 * height, x2 * width, y2 * height))
        for found in objects
        for x1, y1, x2, y2 in [found.box_xyxy]
    )


def _size_fits(picture: ListedPicture, header: PictureHeader, problems: ProblemList) -> bool:
    """Whether the boxes of an annotation can be those of the picture as it is stored.

    A tool that heeds EXIF shows a picture upright, and its boxes are of what it shows; only the
    size that it writes can tell, where the picture lies on its side. Such boxes would be nowhere
    near their objects, and turning the picture here would not help one that stands on its head,
    whose size says nothing: so the whole data set should be put right.
    """
    picture_size = (header.width, header.height)
    if 0 in picture.size or picture.size == picture_size:
        return True
    width, height = picture.size
    stored = f"{header.width}x{header.height}"
    turned = header.is_turned and picture.size == picture_size[::-1]
    where = "" if picture.size_place is None else f"{picture.size_place}: "
    if turned:
        message = (
            f"{where}its boxes are of the picture as EXIF turns it ({width}x{height}), but its "
            f"pixels are stored as {stored}; turn the data set's pixels upright first, for example "
            "with `mogrify -auto-orient`"
        )
    else:
        message = (
            f"{where}its {picture.size_name} {width}x{height} ignored: the picture is {stored}"
        )
    problems.add(
        "turned_annotation" if turned else "other_size",
        picture.file,
        message,
        line=picture.size_line,
        place=picture.size_place,
    )
    return not turned


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

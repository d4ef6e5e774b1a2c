"""Goes through a whole data set as a training would, and gathers what is wrong instead of ending at
the first thing that is."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssd_dist.data.cache import in_order
from ssd_dist.data.problems import DataError, Problem, ProblemList
from ssd_dist.data.readers import open_ground_truth, open_split
from ssd_dist.structures import Annotation, Split


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """What a split holds, without what is refused or dropped."""

    name: str
    num_pictures: int
    num_objects: int
    num_difficult: int
    """Of the objects."""
    num_empty: int
    """Pictures without objects."""


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """What a data set holds, and what is wrong with it."""

    class_names: tuple[str, ...]
    splits: tuple[SplitCounts, ...]
    annotations: tuple[Annotation, ...]
    """Of all splits, each picture once."""
    picture_names: tuple[str, ...]
    """File of each annotation's picture, or its identifier where it has none."""
    problems: tuple[Problem, ...]
    """The gravest first."""

    @property
    def num_refused(self) -> int:
        """Problems of which each would end a training."""
        return sum(problem.treatment == "refused" for problem in self.problems)


def inspect_data(
    data: str,
    splits: Sequence[str],
    class_names: Sequence[str] | None = None,
    on_picture: Callable[[int, int], None] | None = None,
    *,
    data_format: str = "auto",
) -> Inspection:
    """Reads splits with all their pictures, by the readers of a training.

    Beside what those tell, pictures with the same pixels are told: in two splits, the one flatters
    the other.

    Args:
        data: as for a training; see `open_split`.
        splits: which, at least one.
        class_names: the classes; None: those of the data set.
        on_picture: called with (pictures decoded, pictures in all).
        data_format: as for a training.

    Raises FileNotFoundError or ValueError for data or splits that do not exist.
    """
    found: list[ProblemList] = []
    opened: list[Split] = []
    for name in splits:
        found.append(ProblemList(strict=False))
        opened.append(open_split(data, name, class_names, found[-1], data_format=data_format))
        # The first split has told what is wrong with the classes of all.
        class_names = class_names or opened[-1].class_names or None
    # A picture of several splits, as all of VOC's trainval are, once.
    pictures: dict[str, tuple[Split, int]] = {}
    for split in opened:
        for i in range(len(split.annotations)):
            pictures.setdefault(_name(split, i), (split, i))
    found.append(ProblemList(strict=False))
    _decode(pictures, found[-1], on_picture)
    return Inspection(
        class_names=opened[-1].class_names,
        splits=tuple(_count(split.name, split.annotations) for split in opened),
        annotations=tuple(split.annotations[i] for split, i in pictures.values()),
        picture_names=tuple(pictures),
        problems=tuple(_merged(found)),
    )


def inspect_ground_truth(path: Path) -> Inspection:
    """As `inspect_data`, of a COCO annotation file, whose pictures are not opened."""
    problems = ProblemList(strict=False)
    truth = open_ground_truth(path, "", problems)
    return Inspection(
        class_names=truth.class_names,
        splits=(_count(path.name, truth.annotations),),
        annotations=truth.annotations,
        picture_names=tuple(each.image_id for each in truth.annotations),
        problems=tuple(problems),
    )


def _decode(
    pictures: Mapping[str, tuple[Split, int]],
    problems: ProblemList,
    on_picture: Callable[[int, int], None] | None,
) -> None:
    """Decodes every picture (by name: its split and its place there) as the cache of a training
    does, and tells those that can't be, and those with the pixels of one before."""
    names, places = list(pictures), list(pictures.values())

    def read(position: int) -> bytes | Problem:
        split, i = places[position]
        try:
            pixels = split.read_image(i)
        except DataError as error:
            return error.problem
        return hashlib.blake2b(repr(pixels.shape).encode() + pixels.data, digest_size=16).digest()

    first: dict[bytes, int] = {}
    for position, outcome in enumerate(in_order(read, len(names))):
        if on_picture is not None:
            on_picture(position + 1, len(names))
        if isinstance(outcome, Problem):
            problems.note(outcome)
            continue
        other = first.setdefault(outcome, position)
        if other == position:
            continue
        split, other_split = places[position][0].name, places[other][0].name
        if split == other_split:
            why = f"it counts twice in the split {split}"
        else:
            why = f"the splits {other_split} and {split} share it under two names"
        problems.add("same_pixels", names[position], f"has the pixels of {names[other]}: {why}")


def _name(split: Split, index: int) -> str:
    """A picture's file, or its identifier where it has none."""
    paths = getattr(split, "picture_paths", None)
    return str(paths[index]) if paths else split.annotations[index].image_id


def _count(name: str, annotations: Sequence[Annotation]) -> SplitCounts:
    return SplitCounts(
        name=name,
        num_pictures=len(annotations),
        num_objects=sum(len(each.labels) for each in annotations),
        num_difficult=int(sum(each.difficult.sum() for each in annotations)),
        num_empty=sum(len(each.labels) == 0 for each in annotations),
    )


def _merged(found: Sequence[ProblemList]) -> list[Problem]:
    """The problems of all lists. What several splits tell of one file is one problem, and what one
    split tells twice (two boxes in one line) are two."""
    most: Counter[Problem] = Counter()
    for problems in found:
        most |= Counter(problems)
    merged = ProblemList(strict=False)
    for problem in most.elements():
        merged.note(problem)
    return list(merged)

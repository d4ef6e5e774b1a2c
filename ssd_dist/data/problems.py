"""What can be wrong in a data set, and what is done about it: one table for readers and the check.

Every reader tells what it finds to a :class:`ProblemList`. That of a training is strict: the first
problem that is refused raises. That of `python -m ssd_dist.data check` is not: it gathers them all,
and the reader goes on without the object, picture or file in question. So the check can promise
nothing that a training does not do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Treatment = Literal["refused", "told", "dropped", "clipped", "ignored", "converted"]

TREATMENTS: dict[Treatment, str] = {
    "refused": "ends a training before it begins",
    "told": "nothing is changed",
    "dropped": "left out",
    "clipped": "cut to what lies in the picture",
    "ignored": "read as though it were not there",
    "converted": "read as 8-bit RGB",
}
"""The treatments in words; the gravest first, which is the order in which problems are told."""

KINDS: dict[str, tuple[Treatment, str]] = {
    # Files and names.
    "missing_file": ("refused", "a file or folder that should be there is not"),
    "outside_root": ("refused", "a name with a path in it, or a link that leads out of the root"),
    "unusable_file": ("refused", "no plain file, not permitted to be read, or too large"),
    "empty_split": ("refused", "a split that names no picture"),
    "repeated_id": ("dropped", "an identifier that stands twice in a split"),
    "shared_id": ("told", "a picture that two splits share: what is learned counts as found"),
    "same_pixels": ("told", "two pictures with the same pixels (`check` alone looks for them)"),
    "second_picture": ("ignored", "a second picture of the same name with another suffix"),
    # Annotations.
    "broken_annotation": ("refused", "a file that is not what its suffix says"),
    "forbidden_xml": ("refused", "XML that defines entities or refers to other files"),
    "missing_image": ("refused", "an annotation of an image that the file does not list (COCO)"),
    "repeated_entry": ("refused", "two images or classes of one id or name (COCO, YOLO)"),
    "repeated_element": ("ignored", "a second value where one is expected: the first holds"),
    "other_size": ("ignored", "a size that is not the picture's: the picture's own holds"),
    "turned_annotation": ("refused", "boxes made on the picture as EXIF turns it"),
    "bad_class_name": ("refused", "a class without a name, or with one that can't be shown"),
    "unknown_class": ("refused", "a class that the given class names lack"),
    "no_class": ("refused", "no object in any annotation, and no class names given"),
    "bad_difficult": ("refused", "a value of difficult that is neither 0 nor 1"),
    "bad_columns": ("refused", "a line that is not a class and four numbers (YOLO)"),
    "bad_coordinate": (
        "refused",
        "a coordinate that is missing, NaN, infinite, no number, or not relative (YOLO)",
    ),
    "too_many_objects": ("refused", "more objects in a picture than can be matched in time"),
    "repeated_object": ("told", "the same box with the same class twice in a picture"),
    "box_swapped": ("dropped", "a box whose right is left of its left, or bottom above its top"),
    "box_without_area": ("dropped", "a box without width or height"),
    "box_outside": ("dropped", "a box that lies wholly outside its picture"),
    "box_clipped": ("clipped", "a box that lies partly outside its picture, or is negative"),
    # Pictures.
    "unreadable_picture": ("refused", "not a picture, of a kind that is not read, or cut short"),
    "picture_bomb": ("refused", "more pixels than a picture may have"),
    "unsupported_pixels": (
        "refused",
        "pixels of 32 bits or with fractions: their range is unknown",
    ),
    "orientation": ("ignored", "an EXIF orientation: boxes are of the pixels as they are stored"),
    "more_frames": ("ignored", "frames after the first of an animation"),
    "sixteen_bits": ("converted", "16 bits a channel: the upper 8 are kept"),
    "cmyk": ("converted", "CMYK colours"),
    "transparency": ("converted", "transparency: colours are read as though all were opaque"),
}
"""Kind of problem → its treatment, and what it is."""

_LONGEST_QUOTE = 60
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where."""

    kind: str
    """One of `KINDS`."""
    file: str
    message: str
    """What is wrong and what is done, without the place: goes on after "a.xml: "."""
    line: int | None = None
    """In the file, from 1; None where it has none."""
    place: str | None = None
    """In a JSON file, such as `annotations[17].bbox`; None elsewhere."""

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind

    @property
    def treatment(self) -> Treatment:
        """What is done about it."""
        return KINDS[self.kind][0]

    def __str__(self) -> str:
        """One sentence, on one line, whatever the file holds."""
        where = self.file if self.line is None else f"line {self.line} of {self.file}"
        return printable(f"{where}: {self.message}")

    def to_json(self) -> dict[str, str | int | None]:
        """The fields, and the treatment."""
        return {
            "kind": self.kind,
            "treatment": self.treatment,
            "file": self.file,
            "line": self.line,
            "place": self.place,
            "message": self.message,
        }


class DataError(ValueError):
    """A problem that is refused."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return str(self.problem)


class MissingDataError(DataError, FileNotFoundError):
    """A file that is not there."""


def error_of(problem: Problem) -> DataError:
    """The exception that refuses a problem."""
    return (MissingDataError if problem.kind == "missing_file" else DataError)(problem)


class ProblemList:
    """What readers found."""

    def __init__(self, *, strict: bool) -> None:
        """`strict`: a problem that is refused raises, as in a training."""
        self.strict = strict
        self._problems: list[Problem] = []

    def add(
        self,
        kind: str,
        file: Path | str,
        message: str,
        *,
        line: int | None = None,
        place: str | None = None,
    ) -> None:
        """Notes a problem; see :class:`Problem`.

        Raises DataError (a ValueError, for a missing file a FileNotFoundError, too) if it is
        refused and the list is strict. Otherwise the reader goes on without what is refused.
        """
        self.note(Problem(kind, str(file), message, line, place))

    def note(self, problem: Problem) -> None:
        """As `add`, with a problem that is already in words."""
        if self.strict and problem.treatment == "refused":
            raise error_of(problem)
        self._problems.append(problem)

    def __len__(self) -> int:
        return len(self._problems)

    def __iter__(self) -> Iterator[Problem]:
        """The gravest first, and of one treatment those that were found first."""
        order = list(TREATMENTS)
        return iter(sorted(self._problems, key=lambda problem: order.index(problem.treatment)))

    def sentences(self) -> tuple[str, ...]:
        """One for each problem, the gravest first."""
        return tuple(str(problem) for problem in self)


def printable(text: str) -> str:
    """`text` without what would move a terminal's cursor, colour it or turn its direction:
    control characters are written as Python writes them, `\\x1b`."""
    return "".join(repr(c)[1:-1] if is_control(c) else c for c in text)


def is_control(character: str) -> bool:
    """Whether a character is an ASCII or Latin-1 control character (line ends among them), one that
    turns the direction of writing, or half of a surrogate pair."""
    code = ord(character)
    return (
        code < 32
        or 127 <= code < 160
        or 0xD800 <= code < 0xE000
        or character in "\u2028\u2029"
        or character in _BIDI_CONTROLS
    )


def quoted(text: str | None) -> str:
    """What stands in a file, in quotes, on one line, cut to 60 characters."""
    if text is None:
        return "missing"
    return repr(text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1] + "…")

"""What writes a format, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from ssd_dist.structures import Annotation


@dataclass(frozen=True, slots=True, eq=False)
class NamedPicture:
    """A picture and what its file is to be called."""

    name: str
    """With its suffix; the same in each split that has the picture, and no other's."""
    annotation: Annotation
    """float64, in the picture's size."""
    copy: Callable[[Path], None]
    """Puts its file there."""

    @property
    def stem(self) -> str:
        """Its name without the suffix; no other's."""
        return PurePosixPath(self.name).stem


@dataclass(frozen=True, slots=True)
class NamedSplit:
    """A split that is to be written."""

    name: str
    pictures: tuple[NamedPicture, ...]


class Writer(Protocol):
    """What writes a format: a file, as a module."""

    PICTURES: str
    """Folder of the pictures, in the root."""

    def fit(self, annotation: Annotation) -> Annotation:
        """What the format can say of an annotation; of its objects, in their order, some may be
        missing, clipped, or no longer difficult."""
        ...

    def write(
        self, root: Path, splits: Sequence[NamedSplit], class_names: Sequence[str]
    ) -> list[str]:
        """Writes annotations and lists into an empty folder, and returns what is lost, a sentence
        each. Annotations have come through `fit`."""
        ...

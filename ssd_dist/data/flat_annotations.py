"""The annotations of a split in a few arrays: less than half the memory of an object for each, and
what is pickled or stored is the arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from ssd_dist.structures import Annotation


@dataclass(frozen=True, eq=False, repr=False)
class FlatAnnotations(Sequence[Annotation]):
    """A sequence of N annotations with K objects in all; one is made when it is asked for."""

    image_ids: list[str]
    sizes: np.ndarray
    """(N, 2) int64: width and height in pixels."""
    starts: np.ndarray
    """(N + 1,) int64: picture i has the objects starts[i] to starts[i + 1]."""
    boxes_xyxy: np.ndarray
    """(K, 4) float32; see `Annotation`, also for the two below."""
    labels: np.ndarray
    """(K,) int64."""
    difficult: np.ndarray
    """(K,) bool."""

    @classmethod
    def of(cls, annotations: Sequence[Annotation]) -> FlatAnnotations:
        """The same annotations, for training: their boxes are float32."""
        sizes = [(each.width, each.height) for each in annotations]
        counts = [len(each.labels) for each in annotations]
        boxes = [np.zeros((0, 4), np.float32), *(each.boxes_xyxy for each in annotations)]
        return cls(
            image_ids=[each.image_id for each in annotations],
            sizes=np.array(sizes, np.int64).reshape(-1, 2),
            starts=np.cumsum([0, *counts], dtype=np.int64),
            boxes_xyxy=np.concatenate(boxes),
            labels=np.concatenate([np.zeros(0, np.int64), *(each.labels for each in annotations)]),
            difficult=np.concatenate(
                [np.zeros(0, bool), *(each.difficult for each in annotations)]
            ),
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    @overload
    def __getitem__(self, index: int) -> Annotation: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Annotation, ...]: ...
    def __getitem__(self, index: int | slice) -> Annotation | tuple[Annotation, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(len(self))[index])
        row = range(len(self))[index]  # counts a negative one from the end, raises IndexError
        width, height = self.sizes[row].tolist()
        own = slice(self.starts[row], self.starts[row + 1])
        return Annotation(
            self.image_ids[row],
            width,
            height,
            self.boxes_xyxy[own],
            self.labels[own],
            self.difficult[own],
        )

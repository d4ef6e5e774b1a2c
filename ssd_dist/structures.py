"""What is passed between the parts: annotations, batches, targets, detections.

Shapes everywhere in the package: B images, P priors, C classes (background not counted), M
ground-truth boxes of an image after padding, N boxes of one image, S side of the input in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:  # evaluating other detectors' files needs no torch, which takes seconds to import
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Annotation:
    """The ground truth of one picture, in the coordinates of its annotation file."""

    image_id: str
    """Unique within a split; for VOC the picture's stem."""
    width: int
    height: int
    """Size of the picture in pixels."""
    boxes_xyxy: np.ndarray
    """(N, 4) float32, pixels as they stand in the file, 0 <= x1 < x2 <= width, likewise y."""
    labels: np.ndarray
    """(N,) int64, 1…C; 0 is the background and does not occur."""
    difficult: np.ndarray
    """(N,) bool: neither a target in training nor counted in evaluation."""


class Split(Protocol):
    """One split of a data set: what every reader gives, and all that the rest asks for."""

    name: str
    class_names: tuple[str, ...]
    """Name of class i + 1 at position i."""
    annotations: Sequence[Annotation]
    problems: tuple[str, ...]
    """What the reader dropped or repaired, a sentence each, with the file's name."""
    fingerprint: str
    """Changes whenever a picture, a box or the class list changes; 16 hexadecimal digits."""

    def read_image(self, index: int) -> np.ndarray:
        """The picture of `annotations[index]`: (H, W, 3) uint8, RGB. Raises ValueError naming the
        file if it can't be read."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """B samples as the network takes them; ground truth padded to M boxes an image."""

    images: Tensor
    """(B, 3, S, S) uint8."""
    boxes_xyxy: Tensor
    """(B, M, 4) float32, relative (0 to 1); zeros where padded."""
    labels: Tensor
    """(B, M) int64, 1…C; 0 where padded."""
    difficult: Tensor
    """(B, M) bool."""
    indices: Tensor
    """(B,) int64: positions in the split."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device` (asynchronously from pinned memory)."""
        return Batch(*(getattr(self, n).to(device, non_blocking=True) for n in Batch.__slots__))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; called by the data loader."""
        return Batch(*(getattr(self, n).pin_memory() for n in Batch.__slots__))


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What the network should say at every prior."""

    labels: Tensor
    """(B, P) int64: 0 background, 1…C objects, -1 neither (matched to a difficult object)."""
    loc: Tensor
    """(B, P, 4) float32: encoded offsets of positives; zeros elsewhere."""


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What was found in one picture, highest score first."""

    image_id: str
    boxes_xyxy: np.ndarray
    """(N, 4) float32, pixels in the coordinates of the annotations."""
    labels: np.ndarray
    """(N,) int64, 1…C."""
    scores: np.ndarray
    """(N,) float32, 0 to 1."""

"""Encoded pictures → detections in their pixels: what a replica does, without Ray."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssd_dist.allocator import keep_freed_memory
from ssd_dist.checkpoint import Checkpoint
from ssd_dist.data.problems import DataError
from ssd_dist.data.single import network_input, read_upright
from ssd_dist.engine import detect_in, place
from ssd_dist.model.restored import restored

_NAME = Path("the picture")
"""What refusals call it."""


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A picture as the network takes it."""

    image: Tensor
    """(3, S, S) uint8."""
    width: int
    height: int
    """Of the picture as a viewer shows it, in pixels."""
    decode_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What was found in one picture, highest score first."""

    width: int
    height: int
    """Of the picture as a viewer shows it, in pixels."""
    boxes_xyxy: np.ndarray
    """(N, 4) float32, pixels."""
    labels: np.ndarray
    """(N,) int64, 1…C."""
    scores: np.ndarray
    """(N,) float32, 0 to 1."""
    decode_ms: float
    """Decoding and resizing this picture."""
    network_ms: float
    """The network and post-processing, of the whole batch."""
    batch_size: int
    """Pictures that met the network together."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A picture that can't be read."""

    sentence: str


class PictureDetector:
    """A checkpoint's network, with all that comes before it and after it."""

    def __init__(
        self, checkpoint: Checkpoint, device_type: str, *, max_pixels: int, warm_up: int = 1
    ) -> None:
        """Restores the network, and runs it on batches of 1 and of `warm_up` empty pictures: the
        first picture then waits for no kernel to be chosen.

        Args:
            checkpoint: the detector.
            device_type: `cpu` or `cuda`.
            max_pixels: of a picture; decided by its header, before anything is decoded.
            warm_up: largest batch to expect.

        Raises ValueError if the weights are not those of the configuration.
        """
        keep_freed_memory()
        torch.set_num_threads(1)  # a replica has one core
        self._config = checkpoint.config
        self._device = torch.device(device_type)
        self._model = place(restored(checkpoint), self._config, self._device)
        self._max_pixels = max_pixels
        size = self._config.model.image_size
        for count in {1, warm_up}:
            empty = torch.zeros(count, 3, size, size, dtype=torch.uint8, device=self._device)
            detect_in(self._model, empty, self._config)

    def decode(self, content: bytes) -> Decoded | Refusal:
        """An encoded picture (JPEG, PNG, …) for the network, or why it can't be read. May run in
        several threads, also while `detect` does."""
        started = time.perf_counter()
        try:
            picture = read_upright(_NAME, content, self._max_pixels)
        except DataError as error:
            return Refusal(str(error))
        image = network_input(picture, self._config.model.image_size)
        height, width, _ = picture.shape
        return Decoded(image, width, height, 1000 * (time.perf_counter() - started))

    def detect(self, pictures: Sequence[Decoded]) -> list[Answer]:
        """What is in each of the pictures, at least one, which meet the network together.

        Unlike in an evaluation, a batch has as many slots as pictures: a picture alone costs no
        more than one. The last bits of a score may so depend on what it was batched with.
        """
        started = time.perf_counter()
        images = torch.stack([picture.image for picture in pictures]).to(self._device)
        detections = detect_in(self._model, images, self._config)
        found = [tuple(part.cpu().numpy() for part in parts) for parts in detections]
        network_ms = 1000 * (time.perf_counter() - started)
        return [
            Answer(
                picture.width,
                picture.height,
                boxes_xyxy * np.array([picture.width, picture.height] * 2, dtype=np.float32),
                labels,
                scores,
                picture.decode_ms,
                network_ms,
                len(pictures),
            )
            for picture, (boxes_xyxy, labels, scores) in zip(pictures, found, strict=True)
        ]

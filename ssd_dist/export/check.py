"""Whether an exported file finds in real pictures what PyTorch finds, and how long both take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias

import numpy as np
import torch

from ssd_dist.config import Config
from ssd_dist.data.single import network_input
from ssd_dist.engine import laid_out
from ssd_dist.export.onnx_file import Run
from ssd_dist.model.mirror import averaged_output
from ssd_dist.model.ssd import SSD
from ssd_dist.ops.postprocess import detect
from ssd_dist.structures import Detections, Split
from ssd_dist.terminal import JobFailedError

SCORE_TOLERANCE = 1e-4
BOX_TOLERANCE = 1e-4
"""Of the picture's longer side."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How near a file comes to PyTorch."""

    num_pictures: int
    num_detections: int
    score_difference: float
    """The largest of all detections."""
    box_difference: float
    """The largest, in pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """What PyTorch finds in a picture."""

    detections: Detections
    cut_off: float
    """Below this score a detection may have been cut off: by the threshold, by the number of
    candidates, or by the number of detections."""


Find: TypeAlias = Callable[[str, np.ndarray], Expected]
"""Takes a picture's name and its pixels (H, W, 3) uint8."""


def pytorch_detector(model: SSD, config: Config) -> Find:
    """What evaluation does with one picture, in float32 on the CPU."""
    options = asdict(config.postprocess)
    mirror = options.pop("mirror")

    @torch.inference_mode()
    def find(image_id: str, picture: np.ndarray) -> Expected:
        height, width, _ = picture.shape
        images = laid_out(network_input(picture, model.image_size).unsqueeze(0), config)
        loc, conf = averaged_output(model, images, mirror)
        boxes, labels, scores = detect(loc, conf, model.priors_cxcywh, **options)[0]
        sides = torch.tensor([width, height] * 2, dtype=torch.float32)
        found = Detections(image_id, (boxes * sides).numpy(), labels.numpy(), scores.numpy())
        cut_off = options["score_threshold"]
        pairs = conf[0].softmax(-1)[:, 1:]  # those of a column compete with each other
        if options["candidates_of"] == "image":
            pairs = pairs.flatten().unsqueeze(1)
        if len(pairs) > options["max_candidates"]:
            last = pairs.topk(options["max_candidates"], dim=0).values[-1]
            cut_off = max(cut_off, float(last.max()))
        if len(scores) == options["max_detections"]:
            cut_off = max(cut_off, float(scores.min()))
        return Expected(found, cut_off)

    return find


def file_detections(run: Run, image_ids: Sequence[str], pictures: np.ndarray) -> list[Detections]:
    """What a file finds in a batch (B, 3, H, W) uint8."""
    boxes, scores, labels, counts = run(pictures)
    return [
        Detections(name, boxes[i, :count], labels[i, :count], scores[i, :count])
        for i, (name, count) in enumerate(zip(image_ids, counts.tolist(), strict=True))
    ]


def file_detector(run: Run) -> Callable[[str, np.ndarray], Detections]:
    """A file on one picture at a time: its name and its pixels (H, W, 3) uint8 → detections."""
    return lambda image_id, picture: file_detections(run, [image_id], planes(picture))[0]


def planes(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) → (1, 3, H, W), contiguous."""
    return np.ascontiguousarray(picture.transpose(2, 0, 1)[None])


def agreement(
    run: Run,
    find: Find,
    split: Split,
    positions: Sequence[int],
    *,
    batch_size: int = 3,
) -> Agreement:
    """Compares a file with PyTorch on pictures of a split, in batches of one size of pictures.

    Every batch but the last of a size has `batch_size` pictures, so that more than one batch size
    is tried where their number is no multiple of it. Raises JobFailedError, naming the picture and
    what differs, if a detection is missing, is too many, or differs by more than the tolerances.
    """
    by_size: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for position in positions:
        annotation = split.annotations[position]
        by_size[annotation.width, annotation.height].append(position)
    worst, num_detections = (0.0, 0.0), 0
    for same in by_size.values():
        for part in _parts(same, batch_size):
            pictures = [split.read_image(position) for position in part]
            names = [split.annotations[position].image_id for position in part]
            found = file_detections(run, names, np.concatenate([planes(p) for p in pictures]))
            for name, picture, one in zip(names, pictures, found, strict=True):
                expected = find(name, picture)
                score, box = differences(expected, one, max(picture.shape[:2]))
                worst = max(worst[0], score), max(worst[1], box)
                num_detections += len(expected.detections.scores)
    return Agreement(len(positions), num_detections, *worst)


def differences(expected: Expected, found: Detections, side: int) -> tuple[float, float]:
    """The largest differences of score, and of coordinate in pixels, between two detections of a
    picture whose longer side has `side` pixels.

    Detections are paired by label and place, whatever their order: those of nearly one score may
    change places. Where the last digits of a score decide what is cut off, either may have more.

    Raises JobFailedError, naming the picture, for any other detection without its like.
    """
    wanted, cut_off = expected.detections, expected.cut_off + SCORE_TOLERANCE
    free = np.ones(len(found.scores), dtype=bool)
    worst_score = worst_box = 0.0
    for box, label, score in zip(wanted.boxes_xyxy, wanted.labels, wanted.scores, strict=True):
        score_gap = np.abs(found.scores - score)
        box_gap = np.abs(found.boxes_xyxy - box).max(axis=1, initial=0.0)
        alike = free & (found.labels == label) & (score_gap <= SCORE_TOLERANCE)
        alike &= box_gap <= BOX_TOLERANCE * side
        if alike.any():
            nearest = int(np.where(alike, box_gap, np.inf).argmin())
            free[nearest] = False
            worst_score = max(worst_score, float(score_gap[nearest]))
            worst_box = max(worst_box, float(box_gap[nearest]))
        elif score > cut_off:
            raise _differs(wanted.image_id, "lacks", box, int(label), float(score))
    for row in np.flatnonzero(free & (found.scores > cut_off)):
        values = found.boxes_xyxy[row], int(found.labels[row]), float(found.scores[row])
        raise _differs(wanted.image_id, "adds", *values)
    return worst_score, worst_box


def _parts(positions: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for first in range(0, len(positions), size):
        yield positions[first : first + size]


def _differs(image_id: str, what: str, box: np.ndarray, label: int, score: float) -> JobFailedError:
    corners = ", ".join(f"{value:.1f}" for value in box.tolist())
    return JobFailedError(
        f"the exported detector does not find what PyTorch finds: in picture {image_id!r} it "
        f"{what} label {label} at {corners} with score {score:.4f}; nothing was written"
    )

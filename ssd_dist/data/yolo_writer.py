"""Writes data sets in YOLO's format: data.yaml, a list of pictures for each split, `images` and
`labels`. Lists, not folders, so that a picture may be in several splits and their order is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from ssd_dist.data.writer import NamedSplit
from ssd_dist.structures import Annotation

PICTURES = "images"


def fit(annotation: Annotation) -> Annotation:
    """Without `difficult`, which the format has not; boxes whose middle or sides it can't say are
    clipped to the picture. See `writer.Writer`."""
    sides = np.array([annotation.width, annotation.height] * 2, dtype=np.float64)
    boxes_xyxy = annotation.boxes_xyxy.astype(np.float64)
    middle_and_sides = _cxcywh(boxes_xyxy, annotation)
    beyond = ((middle_and_sides < 0) | (middle_and_sides > 1)).any(axis=1)
    boxes_xyxy[beyond] = boxes_xyxy[beyond].clip(0, sides)
    kept = (boxes_xyxy[:, :2] < boxes_xyxy[:, 2:]).all(axis=1)
    return Annotation(
        image_id=annotation.image_id,
        width=annotation.width,
        height=annotation.height,
        boxes_xyxy=boxes_xyxy[kept],
        labels=annotation.labels[kept],
        difficult=np.zeros(int(kept.sum()), dtype=bool),
    )


def write(root: Path, splits: Sequence[NamedSplit], class_names: Sequence[str]) -> list[str]:
    """data.yaml, lists and label files; see `writer.Writer`."""
    labels = root / "labels"
    labels.mkdir()
    written = set()
    for split in splits:
        lines = [f"./{PICTURES}/{picture.name}\n" for picture in split.pictures]
        (root / f"{split.name}.txt").write_text("".join(lines), encoding="utf-8")
        for picture in split.pictures:
            if picture.name not in written:
                written.add(picture.name)
                text = _lines(picture.annotation)
                (labels / f"{picture.stem}.txt").write_text(text, encoding="utf-8")
    content = {
        **{split.name: f"{split.name}.txt" for split in splits},
        "nc": len(class_names),
        "names": dict(enumerate(class_names)),
    }
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (root / "data.yaml").write_text(text, encoding="utf-8")
    return []


def _lines(annotation: Annotation) -> str:
    return "".join(
        f"{label - 1} {x!r} {y!r} {width!r} {height!r}\n"
        for label, (x, y, width, height) in zip(
            annotation.labels.tolist(),
            _cxcywh(annotation.boxes_xyxy, annotation).tolist(),
            strict=True,
        )
    )


def _cxcywh(boxes_xyxy: np.ndarray, annotation: Annotation) -> np.ndarray:
    """(N, 4): middle and sides, relative."""
    sides = np.array([annotation.width, annotation.height], dtype=np.float64)
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    return np.concatenate([(low + high) / 2 / sides, (high - low) / sides], axis=1)

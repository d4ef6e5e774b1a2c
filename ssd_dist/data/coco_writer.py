"""Writes data sets in COCO's format: `annotations/instances_<split>.json`, pictures in `images`.

`difficult` becomes `iscrowd`, the one flag by which COCO leaves an object out of the count. Ids are
1, 2, 3, …, those of the categories in the order of the classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssd_dist.data.writer import NamedSplit
from ssd_dist.structures import Annotation

PICTURES = "images"


def fit(annotation: Annotation) -> Annotation:
    """All of it; see `writer.Writer`."""
    return annotation


def write(root: Path, splits: Sequence[NamedSplit], class_names: Sequence[str]) -> list[str]:
    """The annotation files; see `writer.Writer`."""
    folder = root / "annotations"
    folder.mkdir()
    for split in splits:
        text = json.dumps(_content(split, class_names), ensure_ascii=False)
        (folder / f"instances_{split.name}.json").write_text(text, encoding="utf-8")
    return []


def _content(split: NamedSplit, class_names: Sequence[str]) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, picture in enumerate(split.pictures, start=1):
        annotation = picture.annotation
        size = {"width": annotation.width, "height": annotation.height}
        images.append({"id": image_id, "file_name": picture.name, **size})
        for (x1, y1, x2, y2), label, difficult in zip(
            annotation.boxes_xyxy.tolist(),
            annotation.labels.tolist(),
            annotation.difficult.tolist(),
            strict=True,
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": label,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "segmentation": [],
                    "iscrowd": int(difficult),
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(class_names, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}

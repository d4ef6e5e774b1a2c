"""A small VOC root, written to disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteVoc = Callable[..., Path]


def annotation_xml(objects: Sequence[tuple], size: tuple[int, int] = (40, 30)) -> str:
    """Objects: (class name, xmin, ymin, xmax, ymax[, difficult])."""
    parts = []
    for name, x1, y1, x2, y2, *difficult in objects:
        flag = f"<difficult>{difficult[0]}</difficult>" if difficult else ""
        parts.append(
            f"<object><name>{name}</name>{flag}<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        )
    width, height = size
    return (
        f"<annotation><size><width>{width}</width><height>{height}</height></size>"
        f"{''.join(parts)}</annotation>"
    )


@pytest.fixture
def write_voc(tmp_path: Path) -> WriteVoc:
    def write(
        splits: dict[str, dict[str, Sequence[tuple]]], size: tuple[int, int] = (40, 30)
    ) -> Path:
        """{split: {image id: objects}} → a root with random pictures of `size` (width, height)."""
        root = tmp_path / "voc"
        for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        for split, pictures in splits.items():
            (root / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(pictures) + "\n")
            for image_id, objects in pictures.items():
                (root / "Annotations" / f"{image_id}.xml").write_text(annotation_xml(objects, size))
                pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / "JPEGImages" / f"{image_id}.png")
        return root

    return write


@pytest.fixture
def voc_root(write_voc: WriteVoc) -> Path:
    return write_voc(
        {
            "train": {
                "a": [("dog", 1, 2, 11, 22), ("cat", 5.5, 6, 40, 30, 1)],
                "b": [("dog", 3, 3, 9, 8, 0)],
                "c": [],
            },
            "test": {"d": [("bird", 2, 2, 30, 20)]},
        }
    )

"""One data set in every format, written by hand: not by what the package itself writes with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Splits = Mapping[str, Mapping[str, Sequence[tuple]]]
"""Split → picture's stem → objects: (class, xmin, ymin, xmax, ymax[, difficult])."""

SIZE = (40, 30)
CLASSES = ("ant", "bee")
COCO_IDS = {"ant": 90, "bee": 3}  # with a gap, and not in the order of the names
YOLO_NUMBERS = {"ant": 1, "bee": 0}
SPLITS: Splits = {
    "train": {
        "a": [("bee", 1, 2, 11, 22), ("ant", 5, 6, 40, 30)],
        "b": [("ant", 3, 3, 9.25, 8)],
        "c": [],
        "e": [("ant", 0, 0, 17, 29)],
    },
    "val": {"d": [("bee", 2, 2, 30, 20)]},
}


def write_pictures(folder: Path, splits: Splits) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for pictures in splits.values():
        for stem in pictures:
            rng = np.random.default_rng(list(stem.encode()))
            pixels = rng.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{stem}.png")


def write_voc(root: Path, splits: Splits) -> None:
    write_pictures(root / "JPEGImages", splits)
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split, pictures in splits.items():
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(pictures))
        for stem, objects in pictures.items():
            text = "".join(
                f"<object><name>{name}</name><difficult>{(*rest, 0)[0]}</difficult><bndbox>"
                f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
                "</bndbox></object>\n"
                for name, x1, y1, x2, y2, *rest in objects
            )
            (root / f"Annotations/{stem}.xml").write_text(f"<annotation>\n{text}</annotation>")


def write_coco(root: Path, splits: Splits) -> None:
    (root / "annotations").mkdir(parents=True)
    first_id = 7
    for split, pictures in splits.items():
        write_pictures(root / f"{split}2017", {split: pictures})
        ids = {stem: first_id + 3 * i for i, stem in enumerate(pictures)}
        first_id += 100
        content = {
            "images": [
                {"id": ids[stem], "file_name": f"{stem}.png", "width": SIZE[0], "height": SIZE[1]}
                for stem in pictures
            ],
            "annotations": [
                {
                    "id": 1000 * ids[stem] + i,
                    "image_id": ids[stem],
                    "category_id": COCO_IDS.get(name, name),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": (*rest, 0)[0],
                }
                for stem, objects in pictures.items()
                for i, (name, x1, y1, x2, y2, *rest) in enumerate(objects)
            ],
            "categories": [{"id": i, "name": name} for name, i in COCO_IDS.items()],
        }
        path = root / f"annotations/instances_{split}2017.json"
        path.write_text(json.dumps(content))


def write_yolo(root: Path, splits: Splits) -> None:
    width, height = SIZE
    lines = ["path: /somewhere/else", "names: [bee, ant]"]
    for split, pictures in splits.items():
        lines.append(f"{split}: images/{split}")
        write_pictures(root / f"images/{split}", {split: pictures})
        (root / f"labels/{split}").mkdir(parents=True)
        for stem, objects in pictures.items():
            if not objects:
                continue  # a missing label file is a picture without objects
            text = "".join(
                f"{YOLO_NUMBERS.get(name, name)} {(x1 + x2) / 2 / width!r} "
                f"{(y1 + y2) / 2 / height!r} {(x2 - x1) / width!r} {(y2 - y1) / height!r}\n"
                for name, x1, y1, x2, y2, *_ in objects
            )
            (root / f"labels/{split}/{stem}.txt").write_text(text)
    (root / "data.yaml").write_text("\n".join(lines))


WRITE = {"voc": write_voc, "coco": write_coco, "yolo": write_yolo}


def picture_path(root: Path, name: str, split: str, stem: str) -> Path:
    """Where `WRITE[name]` puts a picture."""
    folder = {"voc": "JPEGImages", "coco": f"{split}2017", "yolo": f"images/{split}"}[name]
    return root / folder / f"{stem}.png"

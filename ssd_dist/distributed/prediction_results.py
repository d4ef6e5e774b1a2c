"""What a prediction leaves: detections for this project, for COCO's tools and as a table.

detections.json   COCO's results format as every report has it: pictures and classes by their names;
                  `python -m ssd_dist.evaluation` reads it
coco.json         a whole COCO data set with `images`, `categories` and, with a `score` each,
                  `annotations`; also has the pictures in which nothing was found
detections.csv    a row for each detection, in corners
unreadable.csv    pictures that can't be read, and why; only where there are some

Each is written row by row beside its place and then renamed, detections.json last: if it is there,
all are.
"""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from ssd_dist.distributed.prediction_record import Picture, Record
from ssd_dist.durable import rename, sync
from ssd_dist.report.json_files import coco_results

RESULTS, TABLE, COCO = "detections.json", "detections.csv", "coco.json"
UNREADABLE = "unreadable.csv"


def write_results(record: Record, folder: Path, class_names: Sequence[str]) -> int:
    """Writes the files of a record into `folder`; returns how many pictures can't be read.

    Raises OSError if the disk does not take them.
    """
    num_unreadable = sum(1 for _ in _unreadable(record))
    if num_unreadable:
        with _new(folder / UNREADABLE) as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("image_id", "file", "problem"))
            table.writerows((one.image_id, one.path, one.problem) for one in _unreadable(record))
    with _new(folder / COCO) as file:
        _write_coco(file, record, class_names)
    with _new(folder / TABLE) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("image_id", "file", "class", "score", "x1", "y1", "x2", "y2"))
        for one in _readable(record):
            table.writerows(_table_rows(one, class_names))
    with _new(folder / RESULTS) as file:
        _write_list(file, coco_results((one.detections for one in _readable(record)), class_names))
        file.write("\n")
    return num_unreadable


def _readable(record: Record) -> Iterator[Picture]:
    return (one for one in record.done() if one.problem is None)


def _unreadable(record: Record) -> Iterator[Picture]:
    return (one for one in record.done() if one.problem is not None)


def _write_coco(file: TextIO, record: Record, class_names: Sequence[str]) -> None:
    images = (
        {"id": one.position + 1, "width": one.width, "height": one.height, "file_name": one.path}
        for one in _readable(record)
    )
    categories = [{"id": label, "name": name} for label, name in enumerate(class_names, 1)]
    file.write('{"images": ')
    _write_list(file, images)
    file.write(',\n"categories": ')
    _write_list(file, categories)
    file.write(',\n"annotations": ')
    _write_list(file, _annotations(record))
    file.write("}\n")


def _annotations(record: Record) -> Iterator[dict[str, Any]]:
    number = 0
    for one in _readable(record):
        found = one.detections
        rows = zip(
            found.boxes_xyxy.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
        )
        for (x1, y1, x2, y2), label, score in rows:
            number += 1
            yield {
                "id": number,
                "image_id": one.position + 1,
                "category_id": label,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
                "score": score,
            }


def _table_rows(picture: Picture, class_names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    found = picture.detections
    rows = zip(found.boxes_xyxy.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
    for box_xyxy, label, score in rows:
        corners = (f"{side:.2f}" for side in box_xyxy)
        yield picture.image_id, picture.path, class_names[label - 1], f"{score:.6f}", *corners


def _write_list(file: TextIO, rows: Iterable[dict[str, Any]]) -> None:
    """A JSON list, a line for each of its rows."""
    file.write("[")
    for index, row in enumerate(rows):
        file.write((",\n" if index else "\n") + json.dumps(row, ensure_ascii=False))
    file.write("\n]")


@contextlib.contextmanager
def _new(path: Path) -> Iterator[TextIO]:
    """A text file to write, which appears under its name when it is whole."""
    scratch = path.with_name(f".{path.name}.partial")
    try:
        with scratch.open("w", encoding="utf-8", newline="") as file:
            yield file
        sync(scratch)
        rename(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)

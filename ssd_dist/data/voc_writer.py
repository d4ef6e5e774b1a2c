"""Writes data sets in PASCAL VOC layout. Corners are written as they are, with decimals where they
have any; crowds become `difficult`, which counts the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from ssd_dist.data.voc_layout import annotation_path, split_path
from ssd_dist.data.writer import NamedPicture, NamedSplit
from ssd_dist.structures import Annotation

PICTURES = "JPEGImages"


def fit(annotation: Annotation) -> Annotation:
    """All of it; see `writer.Writer`."""
    return annotation


def write(root: Path, splits: Sequence[NamedSplit], class_names: Sequence[str]) -> list[str]:
    """`ImageSets/Main` and `Annotations`; see `writer.Writer`."""
    for name in class_names:
        if name != name.strip():
            raise ValueError(
                f"class {name!r} can't be written as VOC, whose names have no space at their ends; "
                "rename it first"
            )
    seen = set()
    occurring = set()
    for split in splits:
        path = split_path(root, split.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{each.stem}\n" for each in split.pictures), encoding="utf-8")
        for picture in split.pictures:
            if picture.name in seen:
                continue
            seen.add(picture.name)
            occurring |= {class_names[label - 1] for label in picture.annotation.labels.tolist()}
            path = annotation_path(root, picture.stem)
            path.parent.mkdir(exist_ok=True)
            path.write_text(_xml(picture, class_names), encoding="utf-8")
    return [
        f"class {name!r} has no object, and VOC knows no others: name it in data.class_names"
        for name in class_names
        if name not in occurring
    ]


def _xml(picture: NamedPicture, class_names: Sequence[str]) -> str:
    annotation = picture.annotation
    objects = "".join(
        f"""\
  <object>
    <name>{escape(class_names[label - 1])}</name>
    <difficult>{int(difficult)}</difficult>
    <bndbox>
      <xmin>{_number(x1)}</xmin>
      <ymin>{_number(y1)}</ymin>
      <xmax>{_number(x2)}</xmax>
      <ymax>{_number(y2)}</ymax>
    </bndbox>
  </object>
"""
        for (x1, y1, x2, y2), label, difficult in zip(
            annotation.boxes_xyxy.tolist(),
            annotation.labels.tolist(),
            annotation.difficult.tolist(),
            strict=True,
        )
    )
    return f"""\
<annotation>
  <folder>{PICTURES}</folder>
  <filename>{escape(picture.name)}</filename>
  <size>
    <width>{annotation.width}</width>
    <height>{annotation.height}</height>
    <depth>3</depth>
  </size>
{objects}</annotation>
"""


def _number(value: float) -> str:
    """All digits; none behind the point where there are none."""
    return str(int(value)) if value == int(value) else repr(value)

"""A few validation pictures with their detections on one sheet: how good a training looks."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ssd_dist.evaluation.drawing import INK, SERIES, draw_box, draw_text, font_of
from ssd_dist.evaluation.operating_point import best_f1, score_thresholds
from ssd_dist.evaluation.scene import DrawnBox, counts, match_scene
from ssd_dist.evaluation.voc_ap import VocResult
from ssd_dist.structures import Annotation, Detections

CONTACT_SHEET = "validation.jpg"
"""Its name in a checkpoint's folder."""
NUM_PICTURES = 6
_COLUMNS = 2
_PANEL = (400, 300)
"""Largest width and height of a picture, which stands there twice."""
_GAP, _LINE = 6, 26
_PAPER = (253, 253, 252)
_JPEG_QUALITY = 80


def draw_contact_sheet(
    path: Path,
    title: str,
    annotations: Sequence[Annotation],
    detections: Sequence[Detections],
    result: VocResult,
    read_image: Callable[[int], np.ndarray],
    num_pictures: int = NUM_PICTURES,
) -> None:
    """Writes a JPEG of pictures spread evenly over the split, the same ones for every detector.

    Each stands there twice: left with what is there (dashed; dotted if difficult), right with what
    was found from each class's best-F1 threshold on (solid); mistakes are shaded.

    Args:
        path: written beside and renamed.
        title: the sheet's first line.
        annotations: of the whole split.
        detections: likewise, in the same order.
        result: of those detections: where the thresholds come from.
        read_image: gives the picture at a position as (H, W, 3) uint8, of any size.
        num_pictures: as many, or all where there are fewer.
    """
    places = [i * len(annotations) // num_pictures for i in range(num_pictures)]
    places = list(dict.fromkeys(places))
    names = tuple(result.num_objects)
    # Where colours come twice, the names tell.
    names_drawn = len(names) > len(SERIES)
    scene = match_scene(
        [annotations[i] for i in places],
        [detections[i] for i in places],
        names,
        score_thresholds(best_f1(result)),
        result.options,
    )
    tiles = [
        _tile(
            annotations[place], Image.fromarray(read_image(place)), *scene.boxes(index), names_drawn
        )
        for index, place in enumerate(places)
    ]
    sheet = _arranged(tiles, title, names)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        sheet.save(scratch, format="JPEG", quality=_JPEG_QUALITY)
        scratch.rename(path)
    finally:
        scratch.unlink(missing_ok=True)


def _tile(
    annotation: Annotation,
    image: Image.Image,
    objects: Sequence[DrawnBox],
    detections: Sequence[DrawnBox],
    names_drawn: bool,
) -> Image.Image:
    """A picture's two panels side by side, and a line of text below."""
    scale = min(_PANEL[0] / annotation.width, _PANEL[1] / annotation.height)
    width = max(1, round(annotation.width * scale))
    height = max(1, round(annotation.height * scale))
    panel = image.resize((width, height))
    tile = Image.new("RGB", (2 * _PANEL[0] + 2, height + _LINE), _PAPER)
    for boxes, solid, left in ((objects, False, 0), (detections, True, width + 2)):
        drawn = panel.copy()
        for box in boxes:
            draw = ImageDraw.Draw(drawn, "RGBA")
            draw_box(draw, box, scale, solid=solid)
            if names_drawn:
                draw_text(draw, box, scale, font_of(11))
        tile.paste(drawn, (left, 0))
    num_objects, num_found, num_false = counts(objects, detections)
    text = f"{annotation.image_id}: {num_found} of {num_objects} found, {num_false} false"
    ImageDraw.Draw(tile).text((0, height + 4), text, fill=INK, font=font_of())
    return tile


def _arranged(tiles: Sequence[Image.Image], title: str, names: Sequence[str]) -> Image.Image:
    """The tiles in rows under the title and the legend."""
    columns = min(_COLUMNS, len(tiles))
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    width = _GAP + columns * (tiles[0].width + _GAP)
    heights = [max(tile.height for tile in row) for row in rows]
    sheet = Image.new("RGB", (width, 2 * _LINE + _GAP + sum(heights)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 5), title, fill=INK, font=font_of())
    x: float = _GAP
    for index, name in enumerate(names if len(names) <= len(SERIES) else ()):
        draw.rectangle((x, _LINE + 7, x + 10, _LINE + 17), fill=SERIES[index])
        draw.text((x + 15, _LINE + 4), name, fill=INK, font=font_of())
        x += 35 + draw.textlength(name, font=font_of())
    y = 2 * _LINE
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            sheet.paste(tile, (_GAP + column * (tile.width + _GAP), y))
        y += height
    return sheet

"""A few validation pictures with their detections on one sheet: how good a training looks."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

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
_PAPER, _INK = (253, 253, 252), (28, 30, 34)
# The report's colours of classes on photographs.
_SERIES = ("#0072b2", "#d55e00", "#009e73", "#b65c92", "#d08c00", "#3f9fd6", "#6b7280")
_HALO = (255, 255, 255, 190)
_SHADE = 0x60
_DASH, _DOTS = (6, 4), (2, 4)
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
    names_drawn = len(names) > len(_SERIES)
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
            _draw_box(draw, box, scale, solid=solid)
            if names_drawn:
                at = box.x * scale + 3, box.y * scale + 2
                draw.text(
                    at, box.text, fill=_INK, font=_font(11), stroke_width=2, stroke_fill="#fff"
                )
        tile.paste(drawn, (left, 0))
    num_objects, num_found, num_false = counts(objects, detections)
    text = f"{annotation.image_id}: {num_found} of {num_objects} found, {num_false} false"
    ImageDraw.Draw(tile).text((0, height + 4), text, fill=_INK, font=_font())
    return tile


def _draw_box(draw: ImageDraw.ImageDraw, box: DrawnBox, scale: float, *, solid: bool) -> None:
    colour = _SERIES[box.class_index % len(_SERIES)]
    x1, y1 = box.x * scale, box.y * scale
    x2, y2 = x1 + box.width * scale, y1 + box.height * scale
    if box.mistake:
        draw.rectangle((x1, y1, x2, y2), fill=f"{colour}{_SHADE:02x}")
    draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=_HALO, width=4)
    if solid and not box.difficult:
        draw.rectangle((x1, y1, x2, y2), outline=colour, width=2)
        return
    dash, gap = _DOTS if box.difficult else _DASH
    for start, end in (((x1, y1), (x2, y1)), ((x1, y2), (x2, y2))):
        for x in np.arange(start[0], end[0], dash + gap):
            draw.line((x, start[1], min(x + dash, end[0]), start[1]), fill=colour, width=2)
    for x in (x1, x2):
        for y in np.arange(y1, y2, dash + gap):
            draw.line((x, y, x, min(y + dash, y2)), fill=colour, width=2)


def _arranged(tiles: Sequence[Image.Image], title: str, names: Sequence[str]) -> Image.Image:
    """The tiles in rows under the title and the legend."""
    columns = min(_COLUMNS, len(tiles))
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    width = _GAP + columns * (tiles[0].width + _GAP)
    heights = [max(tile.height for tile in row) for row in rows]
    sheet = Image.new("RGB", (width, 2 * _LINE + _GAP + sum(heights)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 5), title, fill=_INK, font=_font())
    x: float = _GAP
    for index, name in enumerate(names if len(names) <= len(_SERIES) else ()):
        draw.rectangle((x, _LINE + 7, x + 10, _LINE + 17), fill=_SERIES[index])
        draw.text((x + 15, _LINE + 4), name, fill=_INK, font=_font())
        x += 35 + draw.textlength(name, font=_font())
    y = 2 * _LINE
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            sheet.paste(tile, (_GAP + column * (tile.width + _GAP), y))
        y += height
    return sheet


def _font(size: int = 14) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)

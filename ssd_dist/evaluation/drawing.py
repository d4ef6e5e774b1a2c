"""Boxes drawn on photographs: the colours, lines and letters of all such pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ssd_dist.evaluation.scene import DrawnBox
from ssd_dist.structures import Detections

# The report's colours of classes on photographs.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#b65c92", "#d08c00", "#3f9fd6", "#6b7280")
"""Colours of the classes, in turn."""
INK = (28, 30, 34)
_HALO = (255, 255, 255, 190)
_SHADE = 0x60
_DASH, _DOTS = (6, 4), (2, 4)
_PLAIN_SIDE = 800
"""Longest side of a picture, in pixels, up to which lines and letters have their plain size."""


def annotated(
    picture: np.ndarray, detections: Detections, class_names: Sequence[str]
) -> Image.Image:
    """A picture (H, W, 3) uint8 with its detections, each with its class and score; lines and
    letters grow with the picture."""
    image = Image.fromarray(picture)
    scale = max(1.0, max(image.size) / _PLAIN_SIDE)
    font = font_of(round(13 * scale))
    draw = ImageDraw.Draw(image, "RGBA")
    # The surest last, on top.
    for i in reversed(np.argsort(-detections.scores, kind="stable").tolist()):
        x1, y1, x2, y2 = detections.boxes_xyxy[i].tolist()
        label = int(detections.labels[i])
        text = f"{class_names[label - 1]} {detections.scores[i]:.2f}"
        box = DrawnBox(x1, y1, x2 - x1, y2 - y1, label - 1, text, mistake=False, difficult=False)
        draw_box(draw, box, 1.0, solid=True, width=round(2 * scale))
        draw_text(draw, box, 1.0, font, stroke=max(2, round(2 * scale)))
    return image


def draw_box(
    draw: ImageDraw.ImageDraw, box: DrawnBox, scale: float, *, solid: bool, width: int = 2
) -> None:
    """Draws a box, in its class's colour on a light halo: solid or dashed; shaded if it is a
    mistake, dotted if it counts neither way. `scale` is drawn pixels by the box's own."""
    colour = SERIES[box.class_index % len(SERIES)]
    x1, y1 = box.x * scale, box.y * scale
    x2, y2 = x1 + box.width * scale, y1 + box.height * scale
    if box.mistake:
        draw.rectangle((x1, y1, x2, y2), fill=f"{colour}{_SHADE:02x}")
    draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=_HALO, width=width + 2)
    if solid and not box.difficult:
        draw.rectangle((x1, y1, x2, y2), outline=colour, width=width)
        return
    dash, gap = _DOTS if box.difficult else _DASH
    for start, end in (((x1, y1), (x2, y1)), ((x1, y2), (x2, y2))):
        for x in np.arange(start[0], end[0], dash + gap):
            draw.line((x, start[1], min(x + dash, end[0]), start[1]), fill=colour, width=width)
    for x in (x1, x2):
        for y in np.arange(y1, y2, dash + gap):
            draw.line((x, y, x, min(y + dash, y2)), fill=colour, width=width)


def draw_text(
    draw: ImageDraw.ImageDraw,
    box: DrawnBox,
    scale: float,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    stroke: int = 2,
) -> None:
    """Writes a box's text into its upper left corner."""
    at = box.x * scale + 3, box.y * scale + 2
    draw.text(at, box.text, fill=INK, font=font, stroke_width=stroke, stroke_fill="#fff")


def font_of(size: int = 14) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Letters of a size in pixels."""
    return ImageFont.load_default(size=size)

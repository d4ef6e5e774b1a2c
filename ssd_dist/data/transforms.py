"""A picture and its boxes → the network's input: plain resizing, or the SSD paper's augmentation.

Section 2.2 of the SSD paper (Liu et al., 2016) zooms out, crops, flips and distorts colours one
after the other, each on the full picture. Here zoom-out and crop are drawn first, as one window
over the picture's plane, and the window is resampled once, straight to S x S; colours then change
on the small picture, in one affine map. That is the chain's result at a fraction of its time, but
for the contrast, whose pivot is the mean of what is visible. All randomness comes from the
generator that is passed in.

Boxes are float32, relative to the picture (0 to 1), x1 < x2, y1 < y2; N may be 0.
"""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.ops import box_iou

from ssd_dist.config import AugmentationConfig

FILL_RGB = (123, 117, 104)
"""Colour around a picture that was zoomed out: the mean of ImageNet."""

_MIN_IOUS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
"""A crop must overlap an object by one of these, drawn at random; see `iou_crop_window`."""
_CROP_TRIALS = 40
_CROP_ROUNDS = 8
_CROP_ASPECTS = (0.5, 2.0)

_COLOUR_RANGES = ((0.875, 1.125), (0.5, 1.5), (0.5, 1.5), (-0.05, 0.05))
"""Brightness, contrast, saturation, hue (in turns): torchvision's RandomPhotometricDistort."""
_COLOUR_NEUTRAL = (1.0, 1.0, 1.0, 0.0)
_RGB_TO_YIQ = torch.tensor(
    [[0.2989, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
)
_LUMA = _RGB_TO_YIQ[0]
"""Grey value of a colour (ITU-R 601), as torchvision has it."""


def resize_only(image: Tensor, boxes_xyxy: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(3, h, w) uint8 → (3, S, S) uint8, antialiased; relative boxes stay as they are."""
    return _resize(image, size, size), boxes_xyxy


def augment(
    image: Tensor,
    boxes_xyxy: Tensor,
    labels: Tensor,
    difficult: Tensor,
    size: int,
    config: AugmentationConfig,
    generator: Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One random variation of a picture, with the boxes that are left in it.

    Args:
        image: (3, h, w) uint8.
        boxes_xyxy: (N, 4) float32, relative.
        labels: (N,) int64.
        difficult: (N,) bool.
        size: side S of the result in pixels.
        config: what is done with which probability.
        generator: the only source of randomness.

    Returns image (3, S, S) uint8, boxes (K, 4), labels (K,), difficult (K,), K <= N: boxes whose
    centre is outside a crop go, and boxes thinner than half a pixel.
    """
    height, width = image.shape[-2:]
    window = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    if config.max_zoom_out > 1 and _happens(config.zoom_out, generator):
        window = zoom_out_window(config.max_zoom_out, generator)
    if config.min_crop_scale < 1 and _happens(config.iou_crop, generator):
        # A picture without objects is cropped as though it were one.
        objects = boxes_xyxy if len(boxes_xyxy) else boxes_xyxy.new_tensor([[0.0, 0.0, 1.0, 1.0]])
        in_window = to_window(objects, window)
        crop = iou_crop_window(in_window, width / height, config.min_crop_scale, generator)
        window = compose(window, crop)
    image, corner, window = resample_window(image, window, size)
    image = distort_colours(image, config.photometric, config.photometric_strength, generator)
    image = fill_around(image, corner, size)
    boxes_xyxy, kept = clip_to_window(boxes_xyxy, window, min_side=0.5 / size)
    labels, difficult = labels[kept], difficult[kept]
    if _happens(config.horizontal_flip, generator):
        image, boxes_xyxy = image.flip(-1), flip_boxes(boxes_xyxy, axis=0)
    if _happens(config.vertical_flip, generator):
        image, boxes_xyxy = image.flip(-2), flip_boxes(boxes_xyxy, axis=1)
    return image, boxes_xyxy, labels, difficult


def zoom_out_window(max_zoom_out: float, generator: Generator) -> Tensor:
    """A canvas of 1 to `max_zoom_out` sides of the picture, which lies anywhere on it.

    Returns (4,) float64 xyxy, relative to the picture, so that it contains (0, 0, 1, 1).
    """
    scale, left, top = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    side = 1 + scale * (max_zoom_out - 1)
    x1, y1 = -left * (side - 1), -top * (side - 1)
    return torch.tensor([x1, y1, x1 + side, y1 + side], dtype=torch.float64)


def iou_crop_window(
    boxes_xyxy: Tensor, aspect_ratio: float, min_scale: float, generator: Generator
) -> Tensor:
    """A crop as in the SSD paper, and as torchvision's RandomIoUCrop draws it.

    A least IoU is drawn from 0, 0.1, 0.3, 0.5, 0.7, 0.9; then 40 crops with sides of `min_scale` to
    1 and an aspect ratio of 1/2 to 2 in pixels. The first one is taken in which lies the centre of
    some box, and whose IoU with one of these boxes is at least that. If none will do, another IoU
    is drawn, up to 8 times, and then the whole picture is kept.

    Args:
        boxes_xyxy: (N, 4) with N >= 1, relative to what is cropped.
        aspect_ratio: its width over its height, in pixels.
        min_scale: smallest side of a crop, relative.
        generator: the source of randomness.

    Returns (4,) float64 xyxy, relative, within (0, 0, 1, 1).
    """
    boxes_xyxy = boxes_xyxy.double()
    centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    for _ in range(_CROP_ROUNDS):
        draw = torch.rand(_CROP_TRIALS * 4 + 1, generator=generator, dtype=torch.float64)
        min_iou = _MIN_IOUS[int(draw[-1] * len(_MIN_IOUS))]
        shape, place = draw[:-1].view(2, _CROP_TRIALS, 2)
        sides = min_scale + shape * (1 - min_scale)
        corner = place * (1 - sides)
        crops = torch.cat([corner, corner + sides], dim=1)
        aspects = sides[:, 0] / sides[:, 1] * aspect_ratio
        valid = (aspects >= _CROP_ASPECTS[0]) & (aspects <= _CROP_ASPECTS[1])
        inside = (centres > crops[:, None, :2]) & (centres < crops[:, None, 2:])
        overlaps = box_iou(crops, boxes_xyxy).where(inside.all(dim=2), -1.0)
        valid &= overlaps.amax(dim=1) >= min_iou
        found = valid.nonzero()
        if len(found):
            return crops[found[0, 0]]
    return torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)


def to_window(boxes_xyxy: Tensor, window: Tensor) -> Tensor:
    """Boxes relative to the picture → relative to a window of it, in float64; not clipped."""
    return (boxes_xyxy - window[:2].repeat(2)) / (window[2:] - window[:2]).repeat(2)


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """The window `inner`, which is relative to the window `outer`, relative to the picture."""
    return outer[:2].repeat(2) + inner * (outer[2:] - outer[:2]).repeat(2)


def resample_window(
    image: Tensor, window: Tensor, size: int
) -> tuple[Tensor, tuple[int, int], Tensor]:
    """What a window shows of a picture, at the scale at which the window is S x S pixels.

    The window's edges move to whole pixels: outwards, of the picture, where they lie inside it, so
    that nothing leaves the window; to the nearest, of the result, where they lie outside. So the
    resampling is one antialiased resize of a rectangle of pixels.

    Args:
        image: (3, h, w) uint8.
        window: (4,) xyxy, relative to the picture, which it overlaps.
        size: side S of the window in pixels.

    Returns the visible part of the picture, (3, h', w') uint8 with h', w' <= S; where its left top
    corner lies in the window, (x, y) in pixels; and the window, (4,) float64, as it came out.
    """
    height, width = image.shape[-2:]
    x1, y1, x2, y2 = window.tolist()
    source_x, target_x, shown_x = _align(x1, x2, width, size)
    source_y, target_y, shown_y = _align(y1, y2, height, size)
    visible = image[:, source_y[0] : source_y[1], source_x[0] : source_x[1]]
    visible = _resize(visible, target_y[1] - target_y[0], target_x[1] - target_x[0])
    shown = torch.tensor([shown_x[0], shown_y[0], shown_x[1], shown_y[1]], dtype=torch.float64)
    return visible, (target_x[0], target_y[0]), shown


def fill_around(visible: Tensor, corner: tuple[int, int], size: int) -> Tensor:
    """(3, h', w') with its left top corner at `corner` (x, y) of an (3, S, S) canvas of the mean
    colour."""
    height, width = visible.shape[-2:]
    if height == width == size:
        return visible
    x, y = corner
    canvas = torch.tensor(FILL_RGB, dtype=torch.uint8).view(3, 1, 1).repeat(1, size, size)
    canvas[:, y : y + height, x : x + width] = visible
    return canvas


def clip_to_window(boxes_xyxy: Tensor, window: Tensor, min_side: float) -> tuple[Tensor, Tensor]:
    """Boxes relative to a window, clipped to it, without those that it does not show.

    A box stays if its centre lies in the window and, clipped, both sides are at least `min_side`.

    Returns boxes (K, 4) float32 in [0, 1], and the positions (K,) int64 of those that stay.
    """
    moved = to_window(boxes_xyxy, window)
    centres = (moved[:, :2] + moved[:, 2:]) / 2
    clipped = moved.clamp(0, 1).float()
    sides = clipped[:, 2:] - clipped[:, :2]
    stays = ((centres > 0) & (centres < 1) & (sides >= min_side)).all(dim=1)
    kept = stays.nonzero()[:, 0]
    return clipped[kept], kept


def flip_boxes(boxes_xyxy: Tensor, axis: int) -> Tensor:
    """Relative boxes mirrored along x (`axis` 0) or y (1)."""
    flipped = boxes_xyxy.clone()
    flipped[:, axis] = 1 - boxes_xyxy[:, axis + 2]
    flipped[:, axis + 2] = 1 - boxes_xyxy[:, axis]
    return flipped


def distort_colours(
    image: Tensor, probability: float, strength: float, generator: Generator
) -> Tensor:
    """Photometric distortion: brightness, contrast, saturation, hue, each with `probability`.

    The first three are torchvision's. Hue turns colours about the grey axis, in place of a detour
    through HSV: so all four are affine maps of a colour, applied at once, without rounding or
    clipping in between. Contrast refers to the mean luma, which saturation and hue leave as it is;
    its place among the four, which the paper's code draws, therefore makes no difference.

    Args:
        image: (3, h, w) uint8.
        probability: of each of the four.
        strength: 0 is no change; 1 brightness by ±12.5 %, contrast and saturation by ±50 %, hue by
            ±18 degrees.
        generator: the source of randomness.
    """
    draw = torch.rand(8, generator=generator, dtype=torch.float64).tolist()
    brightness, contrast, saturation, hue = (
        neutral + strength * (low + amount * (high - low) - neutral)
        if chance < probability
        else neutral
        for chance, amount, (low, high), neutral in zip(
            draw[:4], draw[4:], _COLOUR_RANGES, _COLOUR_NEUTRAL, strict=True
        )
    )
    if (brightness, contrast, saturation, hue) == _COLOUR_NEUTRAL:
        return image
    return change_colours(image, brightness, contrast, saturation, hue)


def change_colours(
    image: Tensor, brightness: float, contrast: float, saturation: float, hue: float
) -> Tensor:
    """(3, h, w) uint8 with factors of brightness, contrast and saturation (1: no change), and hue
    turned by `hue` turns (0: no change)."""
    pixels = image.reshape(3, -1).float()
    matrix = brightness * (_saturation_matrix(saturation) @ _hue_matrix(hue))
    mean_luma = _LUMA @ (matrix @ pixels.mean(dim=1))
    offset = ((1 - contrast) * mean_luma).expand(3, 1)
    changed = torch.addmm(offset, contrast * matrix, pixels)
    return changed.round_().clamp_(0, 255).to(torch.uint8).view(image.shape)


def _saturation_matrix(factor: float) -> Tensor:
    """Blends a colour with its own grey."""
    return factor * torch.eye(3) + (1 - factor) * _LUMA.expand(3, 3)


def _hue_matrix(turns: float) -> Tensor:
    """Turns a colour about the grey axis in the plane of I and Q (NTSC), at constant luma."""
    cos, sin = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    turn = torch.tensor([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])
    return torch.linalg.solve(_RGB_TO_YIQ, turn @ _RGB_TO_YIQ)


def _happens(probability: float, generator: Generator) -> bool:
    return bool(torch.rand((), generator=generator, dtype=torch.float64) < probability)


def _resize(image: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, antialiased, in uint8; quickest for pictures stored as (h, w, 3)."""
    resize = partial(F.interpolate, size=(height, width), mode="bilinear", antialias=True)
    if width == 1:
        # torch's 8-bit kernel (2.14.1) gives wrong pixels, or raises, for a result one pixel wide.
        return resize(image[None].float()).round_().to(torch.uint8)[0]
    return resize(image[None])[0]


def _align(
    low: float, high: float, num_pixels: int, size: int
) -> tuple[tuple[int, int], tuple[int, int], tuple[float, float]]:
    """One axis of `resample_window`: pixels of the picture, pixels of the result that they become,
    and the span of the picture (relative) that the whole result then shows."""
    rounding = 1e-6  # an edge on a pixel's border stays there
    source_start = min(math.floor(max(low, 0.0) * num_pixels + rounding), num_pixels - 1)
    source_stop = max(math.ceil(min(high, 1.0) * num_pixels - rounding), source_start + 1)
    target_start, target_stop = 0, size
    if low < 0:
        target_start = min(round(-low / (high - low) * size), size - 1)
    if high > 1:
        target_stop = max(round((1 - low) / (high - low) * size), target_start + 1)
    step = (source_stop - source_start) / (target_stop - target_start) / num_pixels
    shown_start = source_start / num_pixels - target_start * step
    return (
        (source_start, source_stop),
        (target_start, target_stop),
        (shown_start, shown_start + size * step),
    )

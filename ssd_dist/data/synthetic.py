"""The embedded default data: textured shapes over cluttered backgrounds, drawn on demand.

A picture holds one to five objects of five classes, of any colour, texture and rotation, with sides
of 16 to 50 % of the picture's shorter side, some partly behind others; lines and blurred blobs in
the background are no objects. Only the outline tells the class. Where the objects lie is drawn when
a split is opened, in a fraction of a second; pixels are drawn when a picture is read.

Scene i of a split follows from (seed, split, i) alone. Outlines are rounded to 1/4 pixel and filled
on a grid four times as fine, so that the last bit of a sine makes no difference.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ssd_dist.structures import Annotation, Split

CLASS_NAMES = ("cross", "disc", "square", "star", "triangle")
NUM_IMAGES = {"train": 400, "val": 100, "test": 100}
"""The splits, with their sizes."""

_VERSION = 1
"""Part of the fingerprint: raise it when a picture would come out differently."""
_SIZES = ((192, 160), (160, 192), (208, 160), (176, 176), (224, 168))
_MAX_OBJECTS = 5
_SIDES = (0.16, 0.5)
_MAX_COVERED = 0.25
"""Largest part of the smaller of two boxes that lies in the other."""
_PLACEMENT_TRIALS = 30
_SUPERSAMPLING = 4
_MIN_CONTRAST = 90.0
"""Least distance in RGB of a shape's colours from the background's mean."""


@dataclass(frozen=True, slots=True, eq=False)
class _Shape:
    """One object of a scene."""

    class_name: str
    outline: np.ndarray
    """(V, 2) float64: x, y of its corners in pixels."""
    box_xyxy: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class SyntheticSplit(Split):
    """A split of drawn pictures; see `structures.Split` for the fields."""

    name: str
    class_names: tuple[str, ...]
    annotations: tuple[Annotation, ...]
    problems: tuple[str, ...]
    fingerprint: str
    seed: int
    scenes: tuple[tuple[_Shape, ...], ...] = field(repr=False)
    """The objects of each picture, the last one in front."""

    def read_image(self, index: int) -> np.ndarray:
        """Draws the picture of `annotations[index]`: (H, W, 3) uint8, RGB; the same each time."""
        annotation = self.annotations[index]
        rng = _generator(self.seed, self.name, index, stream=1)
        return _draw((annotation.width, annotation.height), self.scenes[index], rng)


def synthetic_split(
    split: str,
    *,
    num_images: int | None = None,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
) -> SyntheticSplit:
    """Opens a split of the embedded data.

    Args:
        split: `train`, `val` or `test`.
        num_images: None: 400, 100 and 100. A larger split begins with the pictures of a smaller.
        seed: another one gives other pictures.
        class_names: the order in which classes are numbered, if not that of `CLASS_NAMES`; classes
            that do not occur may be among them.

    Raises ValueError for an unknown split, a `num_images` below 1, or `class_names` that lack one
    of the classes drawn.
    """
    if split not in NUM_IMAGES:
        raise ValueError(f"no split {split!r} in the synthetic data; there are: train, val, test")
    if num_images is not None and num_images < 1:
        raise ValueError(f"num_images must be at least 1, not {num_images}")
    names = CLASS_NAMES if class_names is None else tuple(class_names)
    for name in CLASS_NAMES:
        if name not in names:
            raise ValueError(
                f"the synthetic data has objects of class {name!r}; known are: {', '.join(names)}"
            )
    count = NUM_IMAGES[split] if num_images is None else num_images
    annotations, scenes = [], []
    for index in range(count):
        size, scene = _plan(_generator(seed, split, index, stream=0))
        scenes.append(scene)
        annotations.append(
            Annotation(
                image_id=f"{split}_{index:05d}",
                width=size[0],
                height=size[1],
                boxes_xyxy=np.array([shape.box_xyxy for shape in scene], dtype=np.float32),
                labels=np.array([names.index(shape.class_name) + 1 for shape in scene]),
                difficult=np.zeros(len(scene), dtype=bool),
            )
        )
    key = repr(("synthetic", _VERSION, split, count, seed, names))
    return SyntheticSplit(
        name=split,
        class_names=names,
        annotations=tuple(annotations),
        problems=(),
        fingerprint=hashlib.blake2b(key.encode(), digest_size=8).hexdigest(),
        seed=seed,
        scenes=tuple(scenes),
    )


def _generator(seed: int, split: str, index: int, stream: int) -> np.random.Generator:
    """Stream 0 plans a scene, stream 1 draws it."""
    position = list(NUM_IMAGES).index(split)
    return np.random.Generator(np.random.PCG64((seed, position, index, stream)))


def _unit_outlines() -> dict[str, np.ndarray]:
    """Class name → corners (V, 2) around the origin, about 1 from it at most."""

    def around(radii: Sequence[float]) -> np.ndarray:
        angles = np.arange(len(radii)) * (2 * math.pi / len(radii))
        return np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array(radii)[:, None]

    arm = 0.34
    cross = [(1, arm), (arm, arm), (arm, 1), (-arm, 1), (-arm, arm), (-1, arm)]
    return {
        "cross": np.array(cross + [(-x, -y) for x, y in cross]),
        "disc": around([1.0] * 40),
        "square": np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)], dtype=float),
        "star": around([1.0, 0.45] * 5),
        "triangle": around([1.0] * 3),
    }


_UNIT_OUTLINES = _unit_outlines()


def _plan(rng: np.random.Generator) -> tuple[tuple[int, int], tuple[_Shape, ...]]:
    """Size (width, height) and objects of a scene."""
    size = _SIZES[rng.integers(len(_SIZES))]
    scene: list[_Shape] = []
    wanted = int(rng.integers(1, _MAX_OBJECTS + 1))
    for _ in range(_PLACEMENT_TRIALS):
        shape = _plan_shape(size, rng)
        if all(_covered(shape.box_xyxy, other.box_xyxy) <= _MAX_COVERED for other in scene):
            scene.append(shape)
        if len(scene) == wanted:
            break
    return size, tuple(scene)


def _plan_shape(size: tuple[int, int], rng: np.random.Generator) -> _Shape:
    """A shape that lies wholly inside the picture."""
    class_name = CLASS_NAMES[rng.integers(len(CLASS_NAMES))]
    side, stretch, turn, *place = rng.random(5).tolist()
    outline = _UNIT_OUTLINES[class_name] * [1.0, 0.8 + 0.2 * stretch]
    cos, sin = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    outline = outline @ np.array([[cos, sin], [-sin, cos]])
    outline -= outline.min(axis=0)
    low, high = _SIDES
    longest = min(size) * low * (high / low) ** side
    outline *= longest / outline.max()
    outline += (np.array(size) - outline.max(axis=0)) * place
    outline = np.round(outline * _SUPERSAMPLING) / _SUPERSAMPLING
    (x1, y1), (x2, y2) = outline.min(axis=0).tolist(), outline.max(axis=0).tolist()
    return _Shape(class_name, outline, (x1, y1, x2, y2))


def _covered(
    a_xyxy: tuple[float, float, float, float], b_xyxy: tuple[float, float, float, float]
) -> float:
    """Intersection of two boxes over the area of the smaller."""
    width = min(a_xyxy[2], b_xyxy[2]) - max(a_xyxy[0], b_xyxy[0])
    height = min(a_xyxy[3], b_xyxy[3]) - max(a_xyxy[1], b_xyxy[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a_xyxy, b_xyxy)]
    return max(width, 0.0) * max(height, 0.0) / min(areas)


def _draw(size: tuple[int, int], scene: tuple[_Shape, ...], rng: np.random.Generator) -> np.ndarray:
    base = rng.integers(40, 216, 3)
    picture = _draw_background(size, base, rng)
    for shape in scene:
        mask, corner = _mask(shape.outline)
        colours = _colours(base, rng)
        picture.paste(_texture(mask.size, colours, rng), corner, mask)
    pixels = np.asarray(picture).astype(np.int16)
    pixels += rng.integers(-10, 11, (size[1], size[0], 1), dtype=np.int16)
    return pixels.clip(0, 255).astype(np.uint8)


def _draw_background(
    size: tuple[int, int], base: np.ndarray, rng: np.random.Generator
) -> Image.Image:
    """Clouds and a slope of colour, with blurred blobs, and lines across."""
    width, height = size
    cells = rng.integers(-30, 31, (6, 7, 3)) + base
    slope = (rng.integers(-30, 31, 3) * np.linspace(-1, 1, 7)[:, None])[None]
    coarse = Image.fromarray((cells + slope).clip(0, 255).astype(np.uint8))
    half = coarse.resize((width // 2, height // 2), Image.Resampling.BICUBIC)
    canvas = ImageDraw.Draw(half)
    for _ in range(rng.integers(2, 6)):
        x, y = int(rng.integers(width // 2)), int(rng.integers(height // 2))
        radius_x, radius_y = (int(r) for r in rng.integers(3, 16, 2))
        colour = tuple(int(c) for c in (base + rng.integers(-60, 61, 3)).clip(0, 255))
        canvas.ellipse((x - radius_x, y - radius_y, x + radius_x, y + radius_y), fill=colour)
    blurred = half.filter(ImageFilter.GaussianBlur(2.5))
    picture = blurred.resize(size, Image.Resampling.BICUBIC)
    canvas = ImageDraw.Draw(picture)
    for _ in range(rng.integers(3, 9)):
        start, stop = ((int(rng.integers(width)), int(rng.integers(height))) for _ in range(2))
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        canvas.line((start, stop), fill=colour, width=int(rng.integers(1, 4)))
    return picture


def _mask(outline: np.ndarray) -> tuple[Image.Image, tuple[int, int]]:
    """The outline filled, antialiased, and where the mask's left top pixel lies."""
    left, top = np.floor(outline.min(axis=0)).astype(int).tolist()
    right, bottom = np.ceil(outline.max(axis=0)).astype(int).tolist()
    fine = _SUPERSAMPLING
    mask = Image.new("L", ((right - left) * fine, (bottom - top) * fine))
    # Pillow names pixels by their corner and fills the boundary too; half a pixel evens that out.
    corners = ((outline - (left, top)) * fine - 0.5).ravel().tolist()
    ImageDraw.Draw(mask).polygon(corners, fill=255)
    return mask.reduce(fine), (left, top)


def _colours(base: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(2, 3) uint8: a colour and a darker or lighter one, both unlike the background."""
    while True:
        first = rng.integers(0, 256, 3)
        second = (first * (0.35 + 0.3 * rng.random())).astype(int)
        if rng.random() < 0.5:
            second = 255 - ((255 - first) * 0.4).astype(int)
        colours = np.stack([first, second])
        if (((colours - base) ** 2).sum(axis=1) >= _MIN_CONTRAST**2).all():
            return colours.astype(np.uint8)


def _texture(size: tuple[int, int], colours: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Stripes, checks, spots or grain of two colours, or the first one plain."""
    y, x = np.ogrid[: size[1], : size[0]]
    period = int(rng.integers(4, 9))
    kind = rng.integers(5)
    if kind == 0:  # stripes, in one of 16 directions
        step_x, step_y = (int(step) for step in rng.integers(-2, 3, 2))
        pattern = (step_x * x + (step_y or 1) * y) // period % 2
    elif kind == 1:  # checks
        pattern = (x // period + y // period) % 2
    elif kind == 2:  # spots
        half = period // 2
        pattern = (x % period - half) ** 2 + (y % period - half) ** 2 <= half * half // 2
    elif kind == 3:  # grain
        cells = rng.integers(0, 2, (size[1] // 2 + 1, size[0] // 2 + 1))
        pattern = cells.repeat(2, axis=0).repeat(2, axis=1)[: size[1], : size[0]]
    else:
        pattern = np.zeros((size[1], size[0]))
    return Image.fromarray(colours[np.asarray(pattern, dtype=np.intp)])

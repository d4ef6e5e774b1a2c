"""Picture files: what their header says, and their pixels as 8-bit RGB.

Pixels come as they are stored. An EXIF orientation is not applied: the boxes of an annotation refer
to the stored pixels, unless its size says otherwise (see `voc.py`); only a TIFF's own orientation
is part of its format, and Pillow applies it. Of an animation the first frame is read.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile

from ssd_dist.data.problems import DataError, Problem, ProblemList

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
"""Of picture files; the content decides what a file is."""

_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF")
"""Only these: some of Pillow's other readers start programs (PostScript) or are hardly used."""
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", *_SIXTEEN_BITS)
"""Kinds of pixels that become RGB without a guess."""
_QUARTER_TURNS = (5, 6, 7, 8)
_WARNINGS = threading.Lock()


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """What a file says of its picture before a pixel is decoded."""

    width: int
    height: int
    orientation: int
    """By EXIF, 1 to 8; 1 is upright."""

    @property
    def is_turned(self) -> bool:
        """Whether a viewer that heeds EXIF shows width and height exchanged."""
        return self.orientation in _QUARTER_TURNS


def read_header(
    path: Path, problems: ProblemList, content: bytes | None = None
) -> PictureHeader | None:
    """The header of a picture file, which is there; None, and told, if it is no picture to be read.

    With `content` no file is opened: these are its bytes, and `path` only names them.

    Told to `problems`: a file that is no picture, has more pixels than Pillow's limit
    (`PIL.Image.MAX_IMAGE_PIXELS`, 89 million) or pixels of no fixed range (refused); 16 bits, CMYK,
    transparency (converted); an EXIF orientation, further frames (ignored).
    """
    try:
        with _open(path, content) as picture:
            kind = _refused_kind(picture)
            if kind is None:
                return _read_header(path, picture, problems)
            problem = Problem("unsupported_pixels", str(path), kind)
    except DataError as error:
        problem = error.problem
    except Exception as error:  # a broken file makes Pillow raise almost anything
        problem = _unreadable(path, error)
    problems.note(problem)
    return None


def decode(path: Path, content: bytes | None = None) -> np.ndarray:
    """The picture of a file: (H, W, 3) uint8, RGB, of its header's size.

    With `content` no file is opened: these are its bytes, and `path` only names them.

    Grey pictures, palettes and CMYK become RGB, of 16 bits the upper 8 are kept, transparency is
    dropped. Raises DataError naming the file if it can't be decoded whole, or is one that
    `read_header` refuses.
    """
    try:
        with _open(path, content) as picture:
            if kind := _refused_kind(picture):
                raise DataError(Problem("unsupported_pixels", str(path), kind))
            size = picture.size
            pixels = _to_rgb(picture)
    except DataError:
        raise
    except Exception as error:  # as above
        raise DataError(_unreadable(path, error)) from error
    if pixels.shape != (size[1], size[0], 3):
        message = (
            f"decodes to {pixels.shape[1]}x{pixels.shape[0]} pixels, but its header says "
            f"{size[0]}x{size[1]}"
        )
        raise DataError(Problem("unreadable_picture", str(path), message))
    return pixels


def _open(path: Path, content: bytes | None) -> ImageFile.ImageFile:
    """Reads the header. Raises DataError for a bomb, and what Pillow raises for a broken file."""
    with _quiet():
        # Above its limit Pillow warns, above twice that it raises; here the first is an error, too.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            file = path if content is None else io.BytesIO(content)
            return Image.open(file, formats=_FORMATS)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            message = (
                f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, the most that a picture may have; "
                "cut it into tiles or shrink it"
            )
            raise DataError(Problem("picture_bomb", str(path), message)) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Pillow's warnings about metadata that nobody reads here. Warnings are the process's,
    and pictures are opened in threads: one at a time."""
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _refused_kind(picture: ImageFile.ImageFile) -> str | None:
    if picture.mode in _MODES or _is_sixteen_bits(picture):
        return None
    return (
        f"its pixels are of the kind {picture.mode!r}, whose range is not known; store it with 8 "
        "or 16 bits a channel"
    )


def _is_sixteen_bits(picture: ImageFile.ImageFile) -> bool:
    """Whether the file has 16 bits a channel; of a colour picture Pillow reads only the upper 8."""
    return picture.mode in _SIXTEEN_BITS or any(";16" in str(tile[3]) for tile in picture.tile)


def _read_header(path: Path, picture: ImageFile.ImageFile, problems: ProblemList) -> PictureHeader:
    def tell(kind: str, message: str) -> None:
        problems.add(kind, path, message)

    if _is_sixteen_bits(picture):
        tell("sixteen_bits", "16 bits a channel, of which the upper 8 are read")
    if picture.mode == "CMYK":
        tell("cmyk", "its CMYK colours are read as RGB, without a colour profile")
    if picture.has_transparency_data:
        tell("transparency", "its transparency is dropped: what it hides is seen")
    if _is_animated(picture):
        tell("more_frames", "has several frames, of which the first is read")
    orientation = _orientation(picture)
    if orientation != 1:
        tell(
            "orientation",
            f"its EXIF orientation {orientation} is ignored: boxes are taken to be of the stored "
            "pixels",
        )
    return PictureHeader(*picture.size, orientation)


def _is_animated(picture: ImageFile.ImageFile) -> bool:
    try:
        return bool(getattr(picture, "is_animated", False))
    except Exception:  # what follows the first frame is broken
        return True


def _orientation(picture: ImageFile.ImageFile) -> int:
    # Not picture.getexif(), for which a PNG decodes all its pixels.
    exif = Image.Exif()
    try:
        with _quiet():
            exif.load(picture.info.get("exif") or b"")
            value = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken metadata do not spoil a picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(picture: ImageFile.ImageFile) -> np.ndarray:
    if picture.mode in _SIXTEEN_BITS:
        # Pillow's own conversion cuts at 255, which leaves a white picture.
        upper = (np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(upper[:, :, None], 3, axis=2)
    picture.info.pop("transparency", None)  # of a palette, about which convert() would warn
    return np.array(picture.convert("RGB"))


def _unreadable(path: Path, error: Exception) -> Problem:
    # Pillow names the file where it knows nothing else to say.
    said = str(error) if isinstance(error, OSError | SyntaxError | ValueError) else repr(error)
    if isinstance(error, Image.UnidentifiedImageError):
        said = f"no {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]} file"
    return Problem("unreadable_picture", str(path), f"not readable as a picture: {said[:200]}")

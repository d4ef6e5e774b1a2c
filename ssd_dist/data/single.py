"""One picture that belongs to no data set: as people see it, and as the network takes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssd_dist.data.cache import shrink, shrunk_size
from ssd_dist.data.pictures import decode, read_header
from ssd_dist.data.problems import DataError, Problem, ProblemList
from ssd_dist.data.transforms import resize_only


def read_upright(
    path: Path, content: bytes | None = None, max_pixels: int | None = None
) -> np.ndarray:
    """The picture of a file as a viewer shows it: (H, W, 3) uint8, RGB, upright.

    A data set's pictures are read as they are stored, since their boxes are of the stored pixels
    (see `pictures.py`). Here nothing refers to those, and a phone writes whatever is held upright
    lying on its side, with the EXIF orientation to tell.

    Args:
        path: the file; with `content` only its name.
        content: the file's bytes, where there is no file.
        max_pixels: refuses more than these, by the header alone; None: Pillow's own limit.

    Raises DataError (a ValueError), in one sentence that names the file, if it is no picture that
    can be decoded whole, or has too many pixels; OSError if the file can't be opened.
    """
    if content is None:
        path.open("rb").close()  # who may not read it is told so
    header = read_header(path, ProblemList(strict=True), content)
    assert header is not None  # a strict list raises
    if max_pixels is not None and header.width * header.height > max_pixels:
        raise DataError(
            Problem(
                "picture_bomb",
                str(path),
                f"{header.width}x{header.height} pixels, and at most {max_pixels:,} are taken",
            )
        )
    return upright(decode(path, content), header.orientation)


def upright(picture: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels (H, W, 3), turned and mirrored by their EXIF orientation, 1 to 8."""
    if orientation >= 5:
        picture = picture.transpose(1, 0, 2)
    # 5 is the main diagonal's mirror; from there 6, 7 and 8 differ as 2, 3 and 4 do from 1.
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    return np.ascontiguousarray(picture)


def network_input(picture: np.ndarray, size: int) -> Tensor:
    """A picture (H, W, 3) uint8 → (3, S, S) uint8, by the same steps as for a data set's pictures:
    shrunk as the cache does it, then resized."""
    height, width, _ = picture.shape
    small = torch.tensor(shrink(picture, shrunk_size(width, height, size)))
    return resize_only(small.permute(2, 0, 1), torch.empty(0, 4), size)[0]

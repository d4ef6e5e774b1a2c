"""One picture by itself: upright as viewers show it, and the network's input as a data set's."""

import io

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageOps

from ssd_dist.data.cache import open_cache
from ssd_dist.data.dataset import DetectionDataset
from ssd_dist.data.single import network_input, read_upright, upright
from ssd_dist.data.synthetic import synthetic_split

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def encoded(pixels=PIXELS, orientation=1, kind="PNG"):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_stands_as_pillow_turns_it(orientation, tmp_path):
    content = encoded(orientation=orientation)
    expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    assert np.array_equal(read_upright(path), expected)
    assert np.array_equal(read_upright(path, content), expected)
    assert upright(PIXELS, orientation).flags["C_CONTIGUOUS"]


def test_too_many_pixels_are_refused_by_the_header(tmp_path):
    whole = encoded()
    path = tmp_path / "picture.png"
    assert read_upright(path, whole, max_pixels=35).shape == (5, 7, 3)
    # The pixels are not all there, of which a decoder would complain first.
    with pytest.raises(ValueError, match="7x5 pixels, and at most 34 are taken"):
        read_upright(path, whole[:-30], max_pixels=34)


@pytest.mark.parametrize("content", [b"no picture", encoded()[:-30]], ids=["text", "cut short"])
def test_what_is_no_picture_is_refused_by_name(content, tmp_path):
    path = tmp_path / "given.png"
    path.write_bytes(content)
    for arguments in ((path,), (path, content)):
        with pytest.raises(ValueError, match=r"given\.png: not readable as a picture"):
            read_upright(*arguments)


def test_a_missing_file_is_told_as_such(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        read_upright(tmp_path / "absent.png")


@pytest.mark.parametrize("size", [32, 320])
def test_the_network_sees_what_it_sees_of_a_data_set(size, tmp_path):
    """Below and above the pictures' own sides, bit for bit."""
    split = synthetic_split("val", num_images=3)
    dataset = DetectionDataset(split, open_cache(split, size, tmp_path), size, None, seed=0)
    for index in range(3):
        assert torch.equal(network_input(split.read_image(index), size), dataset[index].image)

"""Picture files of every kind: what is read, what is told, what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd_dist.data.pictures import decode, read_header
from ssd_dist.data.problems import DataError, ProblemList

RED = (200, 30, 10)


def picture(mode: str = "RGB", size: tuple[int, int] = (7, 5)) -> Image.Image:
    return Image.new("RGB", size, RED).convert(mode)


def kinds_told(path: Path) -> list[str]:
    problems = ProblemList(strict=True)
    header = read_header(path, problems)
    assert (header.width, header.height) == (7, 5)
    return [problem.kind for problem in problems]


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "gif", "jpg"])
def test_every_format(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    picture().save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kinds_told(path) == []
        pixels = decode(path)
    assert pixels.shape == (5, 7, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - RED).max() < 8


@pytest.mark.parametrize(
    ("mode", "suffix", "kinds"),
    [
        ("1", "png", []),
        ("L", "png", []),
        ("P", "png", []),
        ("RGBA", "png", ["transparency"]),
        ("LA", "png", ["transparency"]),
        ("CMYK", "jpg", ["cmyk"]),
        ("CMYK", "tiff", ["cmyk"]),
        ("YCbCr", "tiff", []),
    ],
)
def test_kinds_of_pixels_become_rgb(tmp_path, mode, suffix, kinds):
    path = tmp_path / f"a.{suffix}"
    picture(mode).save(path)
    assert kinds_told(path) == kinds
    expected = picture(mode).convert("RGB")
    assert np.abs(decode(path).astype(int) - np.asarray(expected)).max() < 8


def test_transparent_palette_keeps_its_colours(tmp_path):
    path = tmp_path / "a.png"
    paletted = picture("P")
    paletted.save(path, transparency=bytes([0] * 256))
    assert kinds_told(path) == ["transparency"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(decode(path), np.asarray(paletted.convert("RGB")))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_upper_half_of_16_bits_is_read(tmp_path, suffix):
    values = np.arange(35, dtype=np.uint16).reshape(5, 7) * 1800
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(values).save(path)
    assert kinds_told(path) == ["sixteen_bits"]
    np.testing.assert_array_equal(decode(path), np.stack([values >> 8] * 3, axis=2))


def test_16_bits_of_colour_are_told(tmp_path):
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    row = b"\0" + struct.pack(">3H", 0xC8FF, 0x1E00, 0x0A7F) * 7
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(row * 5))
        + chunk(b"IEND", b"")
    )
    assert kinds_told(path) == ["sixteen_bits"]
    assert (decode(path) == RED).all()


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_range_are_refused(tmp_path, mode):
    path = tmp_path / "a.tiff"
    picture("L").convert(mode).save(path)
    with pytest.raises(DataError, match=rf"a\.tiff: its pixels are of the kind '{mode}'"):
        read_header(path, ProblemList(strict=True))
    with pytest.raises(DataError, match="whose range is not known; store it with 8"):
        decode(path)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_first_frame_of_an_animation(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    second = Image.new("RGB", (7, 5), (0, 0, 255))
    picture().save(path, save_all=True, append_images=[second])
    assert "more_frames" in kinds_told(path)
    assert np.abs(decode(path).astype(int) - RED).max() < 8


def test_orientation_of_exif_is_told_and_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for suffix in ("jpg", "png", "webp"):
        path = tmp_path / f"a.{suffix}"
        picture().save(path, exif=exif)
        assert kinds_told(path) == ["orientation"]
        assert read_header(path, ProblemList(strict=True)).is_turned
        assert decode(path).shape == (5, 7, 3)


@pytest.mark.parametrize("value", [0, 9, 77])
def test_orientation_that_means_nothing(tmp_path, value):
    exif = Image.Exif()
    exif[0x0112] = value
    picture().save(tmp_path / "a.jpg", exif=exif)
    assert kinds_told(tmp_path / "a.jpg") == []


def test_orientation_of_a_tiff_is_part_of_it(tmp_path):
    picture(size=(5, 7)).save(tmp_path / "a.tiff", tiffinfo={274: 6})
    assert kinds_told(tmp_path / "a.tiff") == []
    assert decode(tmp_path / "a.tiff").shape == (5, 7, 3)


@pytest.mark.parametrize("size", [(10_000, 9_000), (60_000, 60_000)], ids=["warned of", "raised"])
def test_bomb_is_refused_by_its_header(tmp_path, size, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("1", (8, 8)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = b"".join(side.to_bytes(4, "big") for side in size)
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    for read in (decode, lambda path: read_header(path, ProblemList(strict=True))):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(DataError, match=r"a\.png: more than 89,478,485 pixels, the most"):
                read(path)


def test_limit_is_of_pixels_decoded_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 35)
    picture().save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png").shape == (5, 7, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 34)
    with pytest.raises(DataError, match="more than 34 pixels"):
        decode(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tiff"])
def test_truncated_picture_is_refused_when_decoded(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(DataError, match=rf"a\.{suffix}: not readable as a picture"):
        decode(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"no picture", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\xff\xd8\xff"],
)
def test_what_is_no_picture_is_refused(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    problems = ProblemList(strict=False)
    assert read_header(path, problems) is None
    (problem,) = problems
    assert problem.kind == "unreadable_picture"
    assert str(problem).startswith(f"{path}: not readable as a picture: ")
    with pytest.raises(DataError, match=r"a\.jpg: not readable as a picture"):
        decode(path)


def test_content_decides_not_the_suffix(tmp_path):
    picture().save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert (decode(tmp_path / "a.jpg") == RED).all()

"""The cache: the split's own pixels, built once, never half, never stale, never without end."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from ssd_dist.data import cache as cache_module
from ssd_dist.data.cache import ImageCache, open_cache
from ssd_dist.data.cache_folder import default_cache_dir
from ssd_dist.data.readers import open_split
from ssd_dist.data.synthetic import synthetic_split
from ssd_dist.structures import Annotation


class CountingSplit:
    """A split of plain pictures that counts how often each is read."""

    def __init__(self, sizes: list[tuple[int, int]], fingerprint: str = "0123456789abcdef") -> None:
        self.name = "train"
        self.class_names = ("thing",)
        self.problems = ()
        self.fingerprint = fingerprint
        self.annotations = tuple(
            Annotation(str(i), *size, np.zeros((0, 4), "f4"), np.zeros(0, "i8"), np.zeros(0, "?"))
            for i, size in enumerate(sizes)
        )
        self.reads = [0] * len(sizes)

    def read_image(self, index: int) -> np.ndarray:
        self.reads[index] += 1
        time.sleep(0.001)
        annotation = self.annotations[index]
        return np.full((annotation.height, annotation.width, 3), index, dtype=np.uint8)


def finished(folder: Path) -> list[str]:
    """Names of the files in the folder, without locks."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_small_pictures_come_back_unchanged(tmp_path):
    split = synthetic_split("val", num_images=40)  # more than are decoded at once
    cache = open_cache(split, 224, tmp_path)
    assert len(cache) == 40
    for index in (0, 17, 39):
        image = cache.image(index)
        assert image.dtype == torch.uint8
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), split.read_image(index))


def test_large_pictures_are_shrunk(tmp_path):
    split = synthetic_split("val", num_images=6)
    cache = open_cache(split, 100, tmp_path)
    for index, annotation in enumerate(split.annotations):
        _, height, width = cache.image(index).shape
        assert max(width, height) == 100
        assert width / height == pytest.approx(annotation.width / annotation.height, rel=0.01)
        picture = Image.fromarray(split.read_image(index))
        expected = picture.resize((width, height), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(cache.image(index).permute(1, 2, 0), np.asarray(expected))


def test_images_are_views(tmp_path):
    cache = open_cache(CountingSplit([(6, 4)] * 2), 10, tmp_path)
    assert cache.image(1).data_ptr() == cache.image(0).data_ptr() + 6 * 4 * 3


def test_writing_to_an_image_leaves_the_file(tmp_path):
    split = CountingSplit([(6, 4)])
    open_cache(split, 10, tmp_path).image(0).fill_(99)
    assert open_cache(split, 10, tmp_path).image(0).max() == 0


def test_extreme_shape_keeps_a_pixel(tmp_path):
    assert open_cache(CountingSplit([(300, 2)]), 50, tmp_path).image(0).shape == (3, 1, 50)


def test_second_opening_reads_no_picture(tmp_path):
    split = CountingSplit([(8, 6), (5, 9), (7, 7)])
    first = open_cache(split, 8, tmp_path)
    again = open_cache(split, 8, tmp_path)
    assert split.reads == [1, 1, 1]
    assert again.path == first.path
    assert torch.equal(again.image(1), first.image(1))


def test_other_fingerprint_or_side_is_another_file(tmp_path):
    sizes = [(8, 6)]
    paths = {
        open_cache(CountingSplit(sizes), 8, tmp_path).path,
        open_cache(CountingSplit(sizes), 4, tmp_path).path,
        open_cache(CountingSplit(sizes, "fedcba9876543210"), 8, tmp_path).path,
    }
    assert len(paths) == 3


def test_changed_picture_is_read_anew(voc_root, tmp_path):
    before = open_cache(open_split(voc_root, "train"), 64, tmp_path).image(0)
    Image.new("RGB", (40, 30), (1, 2, 3)).save(voc_root / "JPEGImages/a.png")
    after = open_cache(open_split(voc_root, "train"), 64, tmp_path).image(0)
    assert not torch.equal(before, after)
    assert after[:, 0, 0].tolist() == [1, 2, 3]


def test_cut_off_file_is_built_anew(tmp_path):
    split = CountingSplit([(8, 6)] * 3)
    path = open_cache(split, 8, tmp_path).path
    path.write_bytes(path.read_bytes()[:-1])
    assert open_cache(split, 8, tmp_path).image(2).unique().tolist() == [2]
    assert split.reads == [2, 2, 2]


def test_many_openers_build_once(tmp_path):
    split = CountingSplit([(8, 6)] * 50)
    start = threading.Barrier(6)
    results: list[int] = []

    def open_at_once() -> None:
        start.wait()
        results.append(int(open_cache(split, 8, tmp_path).image(49).max()))

    threads = [threading.Thread(target=open_at_once) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [49] * 6
    assert split.reads == [1] * 50
    assert len(finished(tmp_path)) == 1


def test_remains_of_a_killed_builder_go(tmp_path):
    split = CountingSplit([(8, 6)])
    path = open_cache(split, 8, tmp_path).path
    path.unlink()
    (tmp_path / f"{path.name}.killed.partial").write_bytes(b"half")
    open_cache(split, 8, tmp_path)
    assert finished(tmp_path) == [path.name]


def test_unreadable_picture_leaves_nothing(voc_root, tmp_path):
    picture = voc_root / "JPEGImages/b.png"
    picture.write_bytes(picture.read_bytes()[:300])
    folder = tmp_path / "cache"
    with pytest.raises(ValueError, match=r"b\.png: not readable"):
        open_cache(open_split(voc_root, "train"), 64, folder)
    assert finished(folder) == []


def test_picture_of_another_size_than_announced(tmp_path):
    split = CountingSplit([(8, 6)])
    split.read_image = lambda index: np.zeros((3, 2, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"picture '0' decodes to 2x3.*8x6"):
        open_cache(split, 8, tmp_path)


def test_disk_without_room_is_told_before(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda path: usage)
    split = CountingSplit([(8, 6)])
    with pytest.raises(OSError, match=r"no room for .*SSD_DIST_CACHE") as caught:
        open_cache(split, 8, tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert split.reads == [0]


def test_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch):
    def fill_up(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache_module, "_write_pictures", fill_up)
    with pytest.raises(OSError, match="no room for"):
        open_cache(CountingSplit([(8, 6)]), 8, tmp_path)
    assert finished(tmp_path) == []


def test_least_recently_opened_files_go(tmp_path, monkeypatch):
    splits = [CountingSplit([(10, 10)], f"{i:016x}") for i in range(4)]
    paths = [open_cache(split, 10, tmp_path).path for split in splits[:3]]
    for age, path in zip((300, 200, 100), paths, strict=True):
        os.utime(path, (time.time() - age,) * 2)
    open_cache(splits[0], 10, tmp_path)  # the oldest is opened again
    monkeypatch.setenv("SSD_DIST_CACHE_GB", str(700e-9))  # two files of 300 bytes
    newest = open_cache(splits[3], 10, tmp_path).path
    assert finished(tmp_path) == sorted([paths[0].name, newest.name])


def test_file_in_use_is_kept_whatever_its_size(tmp_path, monkeypatch):
    monkeypatch.setenv("SSD_DIST_CACHE_GB", "0")
    assert open_cache(CountingSplit([(10, 10)]), 10, tmp_path).path.is_file()


def test_files_in_use_stay(tmp_path, monkeypatch, caplog):
    """In this process or in another, until it ends; the warning comes once."""
    monkeypatch.setenv("SSD_DIST_CACHE_GB", str(700e-9))  # two files of 300 bytes
    splits = [CountingSplit([(10, 10)], f"{i:016x}") for i in range(4)]
    first = open_cache(splits[0], 10, tmp_path)
    path = open_cache(splits[1], 10, tmp_path).path
    code = "import sys; from pathlib import Path; from ssd_dist.data.cache import ImageCache\n"
    code += "cache = ImageCache(Path(sys.argv[1]), [(10, 10)]); print(); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        for split in splits[2:]:
            assert open_cache(split, 10, tmp_path).path.is_file()
        left = finished(tmp_path)
        other.stdin.close()
    assert left == sorted([first.path.name, path.name, f"{3:016x}-10-v2.pictures"])
    [record] = caplog.records
    assert "the files in use exceed SSD_DIST_CACHE_GB, which is 7e-07" in record.getMessage()
    assert first.image(0).eq(0).all()
    open_cache(splits[2], 10, tmp_path)  # the other process has ended
    assert finished(tmp_path) == sorted([first.path.name, f"{2:016x}-10-v2.pictures"])


def test_file_that_is_evicted_while_it_is_opened(tmp_path, monkeypatch):
    split = CountingSplit([(10, 10)] * 3)
    path = open_cache(split, 10, tmp_path).path
    is_whole = cache_module._is_whole
    looks = []

    def evicted_after_the_first_look(*arguments):
        looks.append(is_whole(*arguments))
        if len(looks) == 1:
            path.unlink()
        return looks[-1]

    monkeypatch.setattr(cache_module, "_is_whole", evicted_after_the_first_look)
    cache = open_cache(split, 10, tmp_path)
    assert looks == [True, False]
    assert split.reads == [2, 2, 2]
    assert cache.image(2).eq(2).all()


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf"])
def test_limit_that_is_no_number(tmp_path, monkeypatch, text):
    monkeypatch.setenv("SSD_DIST_CACHE_GB", text)
    with pytest.raises(ValueError, match="SSD_DIST_CACHE_GB"):
        open_cache(CountingSplit([(10, 10)]), 10, tmp_path)


def test_where_it_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("SSD_DIST_CACHE", str(tmp_path / "there"))
    assert default_cache_dir() == tmp_path / "there"
    assert open_cache(CountingSplit([(4, 4)]), 4).path.parent == tmp_path / "there"
    monkeypatch.delenv("SSD_DIST_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "ssd_dist"


def test_file_larger_than_memory(tmp_path):
    width, height = 40_000, 30_000
    count = psutil.virtual_memory().total // (3 * width * height) + 2
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        try:
            file.truncate(count * 3 * width * height)
        except OSError as error:
            pytest.skip(f"no file of that length: {error}")
        file.seek(-1, os.SEEK_END)
        file.write(b"\7")
    if path.stat().st_blocks > 2**16:
        path.unlink()
        pytest.skip("files without content take room here")
    image = ImageCache(path, [(width, height)] * count).image(count - 1)
    assert image[:, -1, -1].tolist() == [0, 0, 7]


def test_pickles_as_a_path(tmp_path):
    cache = open_cache(CountingSplit([(100, 100)] * 4), 100, tmp_path)
    pickled = pickle.dumps(cache)
    assert len(pickled) < 2000
    assert torch.equal(pickle.loads(pickled).image(3), cache.image(3))


def test_side_below_a_pixel(tmp_path):
    with pytest.raises(ValueError, match="max_side"):
        open_cache(CountingSplit([(4, 4)]), 0, tmp_path)

"""A stored split: the same as a fresh read, and found only as long as nothing has changed."""

from __future__ import annotations

import copy
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from formats import SPLITS, WRITE, picture_path

import ssd_dist
from ssd_dist.data import readers, stored_split
from ssd_dist.data.cache import open_cache
from ssd_dist.data.problems import ProblemList
from ssd_dist.data.readers import FORMATS, open_split
from ssd_dist.structures import Annotation, Split

every_format = pytest.mark.parametrize("name", FORMATS)


@pytest.fixture
def cache_dir(tmp_path, monkeypatch) -> Path:
    """Of small splits, too, whose files have only just been written, each is stored."""
    monkeypatch.setenv("SSD_DIST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(readers, "MIN_PICTURES", 1)
    monkeypatch.setattr(stored_split, "SETTLED_S", 0.0)
    return tmp_path / "cache"


@pytest.fixture
def make_root(tmp_path) -> Callable[..., Path]:
    def make(name: str, splits=SPLITS) -> Path:
        root = tmp_path / "data"
        WRITE[name](root, splits)
        let_the_clock_tick()
        return root

    return make


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The splits that were read from their own files, in order."""
    read: list[str] = []
    make = readers.make_split

    def counting(listing, root, name, problems):
        read.append(name)
        return make(listing, root, name, problems)

    monkeypatch.setattr(readers, "make_split", counting)
    return read


def let_the_clock_tick() -> None:
    """A file system's times may have steps of some milliseconds."""
    time.sleep(0.05)


def fresh(*asked, **options) -> Split:
    """Read anew, whatever is stored."""
    return open_split(*asked, problems=ProblemList(strict=True), **options)


def values(annotation: Annotation) -> tuple:
    arrays = (annotation.boxes_xyxy, annotation.labels, annotation.difficult)
    sizes = annotation.image_id, annotation.width, annotation.height
    assert [type(each) for each in sizes] == [str, int, int]
    return *sizes, *((each.dtype.str, each.shape, each.tolist()) for each in arrays)


def content(split: Split) -> tuple:
    return (
        split.name,
        split.class_names,
        [values(each) for each in split.annotations],
        split.problems,
        split.fingerprint,
        list(split.picture_paths),
    )


def stored_files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []


@every_format
def test_is_what_a_fresh_read_gives(name, make_root, cache_dir, reads):
    splits = copy.deepcopy(dict(SPLITS))
    splits["train"]["a"] += [("bee", 4, 4, 4, 9), ("ant", 1, 1, 8, 8, 1)]
    root = make_root(name, splits)
    assert fresh(root, "train").problems
    for split in splits:
        expected = content(fresh(root, split))
        first = open_split(root, split)
        del reads[:]
        again = open_split(root, split)
        assert reads == []
        assert content(first) == content(again) == expected
        np.testing.assert_array_equal(again.read_image(0), first.read_image(0))
    assert len(stored_files(cache_dir)) == len(splits)


@every_format
def test_what_is_asked_for_is_kept_apart(name, make_root, cache_dir, reads, monkeypatch):
    root = make_root(name)
    monkeypatch.chdir(root.parent)
    asked = [
        (root, "train"),
        (root, "val"),
        (root, "train", ("bee", "ant")),
        (root, "train", ("ant", "bee", "cow")),
        ("data", "train"),
    ]
    for _ in range(2):
        for each in asked:
            assert content(open_split(*each)) == content(fresh(*each))
    assert len(stored_files(cache_dir)) == len(asked)
    assert open_split("data", "train").picture_paths[0].parts[0] == "data"


def test_formats_are_kept_apart(make_root, cache_dir, tmp_path):
    root = make_root("voc")
    WRITE["yolo"](root, {"train": {"z": [("ant", 2, 2, 30, 20)]}})
    let_the_clock_tick()
    for _ in range(2):
        assert len(open_split(root, "train", data_format="voc").annotations) == 4
        assert len(open_split(root, "train", data_format="yolo").annotations) == 1


@pytest.mark.parametrize("changed", ["_VERSION", "package", "Pillow"])
def test_other_code_reads_anew(make_root, cache_dir, reads, monkeypatch, changed):
    root = make_root("voc")
    open_split(root, "train")
    if changed == "_VERSION":
        monkeypatch.setattr(stored_split, "_VERSION", 10**6)
    else:
        module = ssd_dist if changed == "package" else stored_split.PIL
        monkeypatch.setattr(module, "__version__", "99.0")
    open_split(root, "train")
    assert reads == ["train", "train"]


def of_same_size(root: Path) -> None:
    path = root / "Annotations/a.xml"
    path.write_text(path.read_text().replace("<xmax>11<", "<xmax>12<"))


def of_same_size_and_time(root: Path) -> None:
    before = (root / "Annotations/a.xml").stat()
    of_same_size(root)
    os.utime(root / "Annotations/a.xml", ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(root: Path) -> None:
    path = root / "Annotations/a.xml"
    before = path.stat()
    other = root.parent / "other.xml"
    other.write_text(path.read_text().replace("<xmax>11<", "<xmax>12<"))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def other_split(root: Path) -> None:
    """Whose classes are this one's, too."""
    path = root / "Annotations/d.xml"
    path.write_text(path.read_text().replace("bee", "cow"))


def added(root: Path) -> None:
    """A second picture of the same name, which is told."""
    (root / "JPEGImages/a.gif").write_bytes(b"")


def added_folder(root: Path) -> None:
    (root / "JPEGImages/a.gif").mkdir()


def shortened_list(root: Path) -> None:
    (root / "ImageSets/Main/train.txt").write_text("a\nb\nc\n")


def touched_picture(root: Path) -> None:
    os.utime(root / "JPEGImages/c.png", (1, 1))


def linked(root: Path) -> None:
    """The same bytes at another place in the root: nothing to be told, but looked at anew."""
    (root / "JPEGImages/b.png").rename(root / "b.png")
    (root / "JPEGImages/b.png").symlink_to(root / "b.png")


@pytest.mark.parametrize(
    "change",
    [
        of_same_size,
        of_same_size_and_time,
        replaced,
        other_split,
        added,
        added_folder,
        shortened_list,
        touched_picture,
        linked,
    ],
)
def test_change_is_noticed(make_root, cache_dir, reads, change):
    root = make_root("voc")
    before = content(open_split(root, "train"))
    change(root)
    let_the_clock_tick()
    after = content(open_split(root, "train"))
    assert reads == ["train", "train"]
    assert after == content(fresh(root, "train"))
    assert (after == before) == (change is linked)
    assert content(open_split(root, "train")) == after
    assert len(reads) == 3  # with the fresh one


@every_format
@pytest.mark.parametrize("broken", [False, True])
def test_picture_that_goes_is_noticed(name, make_root, cache_dir, broken):
    root = make_root(name)
    open_split(root, "train")
    picture = picture_path(root, name, "train", "b")
    if broken:
        picture.write_bytes(b"none")
        with pytest.raises(ValueError, match=r"b\.png: not readable as a picture"):
            open_split(root, "train")
    elif name == "yolo":  # whose splits are what lies in their folders
        picture.unlink()
        assert len(open_split(root, "train").annotations) == 3
    else:
        picture.unlink()
        with pytest.raises(FileNotFoundError, match="no such picture"):
            open_split(root, "train")


def test_target_of_a_link_is_looked_at(make_root, cache_dir, reads):
    root = make_root("voc")
    path, target = root / "Annotations/a.xml", root / "elsewhere.xml"
    path.rename(target)
    path.symlink_to(target)
    let_the_clock_tick()
    open_split(root, "train")
    open_split(root, "train")
    assert reads == ["train"]
    target.write_text(target.read_text().replace("<xmax>11<", "<xmax>12<"))
    let_the_clock_tick()
    assert open_split(root, "train").annotations[0].boxes_xyxy[0, 2] == 12


def test_link_that_leads_out_of_the_root_is_refused(make_root, cache_dir):
    """Even to another name of the same file."""
    root = make_root("voc")
    path, inside, outside = root / "Annotations/a.xml", root / "a.xml", root.parent / "a.xml"
    path.rename(inside)
    outside.hardlink_to(inside)
    path.symlink_to(inside)
    let_the_clock_tick()
    open_split(root, "train")
    path.unlink()
    path.symlink_to(outside)
    with pytest.raises(ValueError, match="outside the data set's folder"):
        open_split(root, "train")


def test_linked_folder_is_read_anew(make_root, cache_dir):
    root = make_root("yolo")
    labels = root / "labels/train"
    labels.rename(root / "elsewhere")
    labels.symlink_to(root / "elsewhere")
    for x in (0.5, 0.25):
        (root / "elsewhere/b.txt").write_text(f"1 {x} 0.5 0.25 0.25\n")
        let_the_clock_tick()
        assert open_split(root, "train").annotations[1].boxes_xyxy[0, 0] == (x - 0.125) * 40
    assert stored_files(cache_dir) == []


def test_what_has_only_just_changed_is_not_stored(make_root, cache_dir, monkeypatch):
    monkeypatch.setattr(stored_split, "SETTLED_S", 3600.0)
    open_split(make_root("voc"), "train")
    assert stored_files(cache_dir) == []


def test_small_split_is_not_stored(make_root, cache_dir, monkeypatch):
    root = make_root("voc")
    monkeypatch.setattr(readers, "MIN_PICTURES", 5)
    open_split(root, "train")
    assert stored_files(cache_dir) == []
    monkeypatch.setattr(readers, "MIN_PICTURES", 4)
    open_split(root, "train")
    assert len(stored_files(cache_dir)) == 1


def test_list_of_problems_is_filled(make_root, cache_dir):
    splits = {"train": {"a": [("ant", 4, 4, 4, 9), ("ant", 1, 1, 8, 8)]}}
    root = make_root("voc", splits)
    assert len(open_split(root, "train").problems) == 1
    problems = ProblemList(strict=False)
    open_split(root, "train", problems=problems)
    assert [problem.kind for problem in problems] == ["box_without_area"]


def test_damaged_file_is_read_anew(make_root, cache_dir, reads):
    root = make_root("voc")
    expected = content(open_split(root, "train"))
    (path,) = stored_files(cache_dir)
    whole = path.read_bytes()
    places = range(0, len(whole), len(whole) // 12)
    flipped = [whole[:i] + bytes([whole[i] ^ 4]) + whole[i + 1 :] for i in places]
    damaged = [b"", whole[:7], whole[:-1], whole + b"\0", bytes(len(whole)), *flipped]
    for number, each in enumerate(damaged, start=1):
        path.write_bytes(each)
        assert content(open_split(root, "train")) == expected
        assert len(reads) == 1 + number
        assert path.stat().st_size == len(whole)
    assert content(open_split(root, "train")) == expected
    assert len(reads) == 1 + len(damaged)
    assert stored_files(cache_dir) == [path]


def test_cache_that_can_not_be_written(make_root, cache_dir):
    cache_dir.write_text("a file where the folder should be")
    root = make_root("voc")
    assert content(open_split(root, "train")) == content(fresh(root, "train"))


def test_nobody_has_a_home(make_root, cache_dir, monkeypatch):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(stored_split, "default_cache_dir", no_home)
    assert len(open_split(make_root("voc"), "train").annotations) == 4


def test_goes_with_the_other_files_of_the_cache(make_root, cache_dir, monkeypatch):
    root = make_root("voc")
    train, val = open_split(root, "train"), open_split(root, "val")
    first, second = stored_files(cache_dir)
    for path, age in ((first, 300), (second, 200)):
        os.utime(path, (time.time() - age,) * 2)
    again = next(split for split in ("train", "val") if _is_of(first, root, split))
    open_split(root, again)  # the older one is opened again
    num_bytes = 3 * 40 * 30 * len(val.annotations) + first.stat().st_size
    monkeypatch.setenv("SSD_DIST_CACHE_GB", str(num_bytes / 1e9))
    pictures = open_cache(val, 40).path
    left = [path for path in stored_files(cache_dir) if path.suffix != ".lock"]
    assert left == sorted([first, pictures])
    assert content(open_split(root, "train")) == content(train)


def _is_of(path: Path, root: Path, split: str) -> bool:
    return stored_split.stored_path(root, FORMATS["voc"].LAYOUT, split, None) == path


@pytest.mark.parametrize("stored", [False, True])
def test_is_a_sequence(make_root, cache_dir, stored):
    root = make_root("voc")
    open_split(root, "train")
    split = open_split(root, "train") if stored else fresh(root, "train")
    for found, same in ((split.annotations, values), (split.picture_paths, str)):
        expected = tuple(map(same, found))
        assert len(found) == len(expected) == 4
        for index in (0, 3, -1, -4, np.int64(2)):
            assert same(found[index]) == expected[index]
        for part in (slice(2), slice(-3, None), slice(None, None, -2), slice(5, 9)):
            assert isinstance(found[part], tuple)
            assert tuple(map(same, found[part])) == expected[part]
        for index in (4, -5):
            with pytest.raises(IndexError):
                found[index]
        with pytest.raises(TypeError):
            found["a"]


@pytest.mark.parametrize("stored", [False, True])
def test_pickles_as_arrays(make_root, cache_dir, stored):
    splits = {"train": {f"{i:04d}": SPLITS["train"]["a"] for i in range(200)}}
    root = make_root("voc", splits)
    open_split(root, "train")
    split = open_split(root, "train") if stored else fresh(root, "train")
    pickled = pickle.dumps(split)
    # 110 bytes of arrays and two names; each annotation by itself takes 600.
    assert len(pickled) < 200 * 180
    assert content(pickle.loads(pickled)) == content(split)


def test_arrays_can_be_written_to(make_root, cache_dir):
    """Or torch warns of each."""
    root = make_root("voc")
    open_split(root, "train")
    annotation = open_split(root, "train").annotations[0]
    for array in (annotation.boxes_xyxy, annotation.labels, annotation.difficult):
        assert array.flags.writeable

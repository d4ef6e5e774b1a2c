"""What was typed, and the pictures that it means."""

import os

import pytest

from ssd_dist.distributed.prediction_listing import MISNAMED, PICTURE, list_sources

FILES = (
    "a.jpg", "B.PNG", "notes.txt", ".hidden.jpg", "sub/c.jpeg", "sub/deep/d.tif",
    ".cache/e.jpg", "out/pictures/a.jpg", "[1].jpg",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "round").symlink_to(tmp_path)  # a folder within itself
    return tmp_path


def names(folder, path):
    found = list(list_sources(str(path), leave_out=folder / "out"))
    assert all(one.time == PICTURE for one in found)
    assert all(os.path.isabs(one.path) for one in found)  # noqa: PTH117
    return sorted(one.name for one in found)


def test_a_folder_is_taken_to_its_last_subfolder(folder):
    assert names(folder, folder) == ["B", "[1]", "a", "sub/c", "sub/deep/d"]
    assert names(folder, folder / "sub" / ".." / "sub") == ["c", "deep/d"]


def test_a_file_is_taken_whatever_its_suffix(folder):
    assert names(folder, folder / "notes.txt") == ["notes"]
    assert names(folder, folder / "[1].jpg") == ["[1]"]  # a name before it is a pattern
    assert names(folder, folder / ".hidden.jpg") == [".hidden"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["[1]", "a"]),
        ("*/*.jp*g", ["sub/c"]),
        ("**/*.jpg", ["[1]", "a"]),
        ("**/*.jp*g", ["[1]", "a", "sub/c"]),
        ("sub/**", ["c", "deep/d"]),
        ("[ab].jpg", ["a"]),
        ("s?b/deep/*", ["sub/deep/d"]),
        (".cache/*", ["e"]),
    ],
)
def test_a_pattern_is_matched_part_by_part(folder, pattern, expected):
    found = names(folder, folder / pattern)
    links = [name for name in found if name.startswith("round/")]
    assert not links or pattern.startswith("*/")  # a part that names the link follows it once
    assert [name for name in found if name not in links] == expected


def test_what_means_nothing_is_told(folder):
    with pytest.raises(FileNotFoundError, match=r"absent: does not exist"):
        names(folder, folder / "absent")
    with pytest.raises(FileNotFoundError, match=r"\*\.bmp: no file matches"):
        names(folder, folder / "*.bmp")


def test_a_name_that_is_not_utf_8_can_be_shown(tmp_path):
    for name in (b"\xff.jpg", b"\xfe.mp4"):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb"):  # noqa: PTH123
            pass
    found = list(list_sources(str(tmp_path), leave_out=tmp_path / "out"))
    assert sorted((one.name, one.time) for one in found) == [
        (r"\udcfe", MISNAMED), (r"\udcff", MISNAMED),
    ]  # fmt: skip
    assert sorted(one.path for one in found) == [
        rf"{tmp_path}/\udcfe.mp4", rf"{tmp_path}/\udcff.jpg",
    ]  # fmt: skip


def test_the_names_come_one_at_a_time(folder):
    """The first one is there before the folder was read to its end."""
    sources = list_sources(str(folder), leave_out=folder / "out")
    first = next(sources)
    (folder / first.path).unlink()
    assert len(list(sources)) == 4

import os
from pathlib import Path

import pytest

from ssd_dist.durable import new_folder, sync


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_whole(tmp_path):
    target = tmp_path / "a" / "b"
    with new_folder(target) as folder:
        (folder / "file").write_text("x")
        assert not target.exists()
    assert (target / "file").read_text() == "x"
    assert names(tmp_path / "a") == ["b"]
    assert target.stat().st_mode & 0o777 == 0o777 & ~current_umask()


def current_umask():
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_a_folder_is_replaced_and_nothing_of_the_old_one_left(tmp_path):
    for content in "old", "new":
        with new_folder(tmp_path / "a") as folder:
            (folder / content).write_text(content)
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["new"]


@pytest.mark.parametrize("failing", ["the content", "fsync", "rename"])
def test_a_failure_leaves_the_old_one_and_nothing_else(tmp_path, monkeypatch, failing):
    target = tmp_path / "a"
    with new_folder(target) as folder:
        (folder / "file").write_text("old")

    def no_space(*arguments):
        raise OSError(28, "No space left on device")

    if failing == "fsync":
        monkeypatch.setattr("os.fsync", no_space)
    elif failing == "rename":
        monkeypatch.setattr("ssd_dist.durable.rename", no_space)
    write = no_space if failing == "the content" else Path.write_text
    with pytest.raises(OSError, match="No space"), new_folder(target) as folder:
        write(folder / "file", "new")
    assert names(tmp_path) == ["a"]
    assert (target / "file").read_text() == "old"


def test_all_is_synced_before_the_rename_and_the_rename_after(tmp_path, monkeypatch):
    events = []
    fsync = os.fsync

    def record(number):
        events.append(os.fstat(number).st_ino)
        fsync(number)

    monkeypatch.setattr("os.fsync", record)
    with new_folder(tmp_path / "a") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text("x")
    a = tmp_path / "a"  # which keeps its number through the rename
    inside_out = a / "inner" / "file", a / "inner", a, tmp_path
    assert events == [path.stat().st_ino for path in inside_out]


def test_sync_of_what_is_not_there_fails(tmp_path):
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "nothing")

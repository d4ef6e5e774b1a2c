import errno
import os

import pytest

from ssd_dist.distributed import patience
from ssd_dist.distributed.patience import StorageLostError, patiently
from ssd_dist.distributed.study_storage import disk_failure


@pytest.fixture
def storage(tmp_path, monkeypatch):
    monkeypatch.setattr(patience, "_PAUSE_S", 0.01)
    monkeypatch.setattr(patience, "PATIENCE_S", 0.2)
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "experiment.json").write_text("{}")
    return folder


def test_a_storage_that_comes_back_is_waited_for(storage):
    away = storage.with_name("away")
    storage.rename(away)
    tries = []

    def waiting():
        tries.append(storage.exists())
        if len(tries) == 3:
            away.rename(storage)

    assert patiently(lambda: 7, str(storage), waiting) == 7
    assert tries == [False] * 3


def test_nothing_is_made_in_the_place_of_one_that_is_gone(storage):
    storage.rename(storage.with_name("away"))
    with pytest.raises(StorageLostError) as error:
        patiently(lambda: storage.mkdir(), str(storage))
    assert not storage.exists()
    sentence = f"the storage {storage} can't be used from this machine: {os.strerror(errno.ENOENT)}"
    assert str(error.value) == sentence
    # The search stops by it, and no trial counts as failed.
    assert disk_failure(f"Traceback …\nssd_dist.StorageLostError: {sentence}\n") == sentence


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "x"), OSError("[Errno 28] No space left on device: 'x'")]
)
def test_a_full_disk_is_not_waited_for(error, storage):
    tries = []

    def write():
        tries.append(1)
        raise error

    with pytest.raises(StorageLostError, match="No space left on device"):
        patiently(write, str(storage))
    assert tries == [1]


def test_what_is_not_the_storages_fault_is_raised_at_once(storage):
    def fail():
        raise RuntimeError("mistake")

    with pytest.raises(RuntimeError, match="mistake"):
        patiently(fail, str(storage))

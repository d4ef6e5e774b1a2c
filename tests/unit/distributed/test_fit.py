"""A training whose storage fails just when Ray's controller writes to it."""

import errno

import pytest
from ray.exceptions import OutOfMemoryError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from ssd_dist.distributed.failures import root_cause
from ssd_dist.distributed.patience import StorageLostError
from ssd_dist.distributed.train import MAX_STORAGE_LOSSES, fit


class Runs:
    """Stands for trainers: each ends with the next of the errors, the one after them well."""

    def __init__(self, *errors):
        self.errors = [*errors]
        self.made = 0

    def __call__(self):
        self.made += 1
        return self

    def fit(self):
        if self.errors:
            raise self.errors.pop(0)
        return "result"


@pytest.fixture
def storage(tmp_path):
    (tmp_path / "experiment.json").touch()
    return str(tmp_path)


def lost():
    return ControllerError(FileNotFoundError(errno.ENOENT, "No such file", "snapshot.json"))


def test_it_goes_on_once_the_storage_is_there(storage):
    as_it_starts = FileNotFoundError(errno.ENOENT, "No such file", "snapshot.json")
    runs = Runs(lost(), as_it_starts, lost())
    assert fit(runs, storage) == "result"
    assert runs.made == 4


def test_a_storage_that_is_there_and_fails_again_and_again_is_given_up(storage):
    runs = Runs(*(lost() for _ in range(MAX_STORAGE_LOSSES + 1)))
    with pytest.raises(ControllerError) as caught:
        fit(runs, storage)
    assert root_cause(caught.value, less_memory="") == (
        "FileNotFoundError: [Errno 2] No such file: 'snapshot.json'"
    )


def test_of_a_full_memory_a_sentence_is_told(storage):
    ended = OutOfMemoryError("Refer to the documentation on how to\n" * 5)
    seen = WorkerHealthCheckFailedError("a worker died", ended)
    broken = RuntimeError("Connection closed by peer")
    with pytest.raises(WorkerGroupError) as caught:
        fit(Runs(WorkerGroupError("failed", {0: broken, 1: seen})), storage)
    assert root_cause(caught.value, less_memory="buy more") == (
        "OutOfMemoryError: the machine's memory was full, and Ray ended a process of it: "
        "buy more, or let less run on it at once"
    )


def test_a_full_disk_is_not_waited_for(storage):
    runs = Runs(ControllerError(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(StorageLostError, match="No space left on device"):
        fit(runs, storage)
    assert runs.made == 1


def test_other_errors_are_not_the_storages(storage):
    runs = Runs(ControllerError(ValueError("wrong")))
    with pytest.raises(ControllerError, match="wrong"):
        fit(runs, storage)
    assert runs.made == 1

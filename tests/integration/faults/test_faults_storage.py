"""A disk that is read-only for a while, and one that is full: both as the kernel tells it."""

import time

import pytest
from clusters import start_ray
from comparisons import differences_to_undisturbed, finished_trials, wrong_in_search
from injections import Disk, Job, assert_nothing_remains, running_environment
from outcomes import checkpoints
from running import read_json

from ssd_dist.checkpoint import load_checkpoint

pytestmark = pytest.mark.faults

TRIALS, EPOCHS = 4, 40  # long enough for both faults on a fast machine


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    try:
        disk = Disk(tmp_path_factory.mktemp("disk") / "mounted")
    except OSError as error:
        pytest.skip(str(error))
    yield disk
    disk.close()


@pytest.fixture(scope="module")
def server(environment, disk):
    """A Ray that sees the disk."""
    with start_ray(environment, num_cpus=2, prefix=disk.prefix) as server:
        yield server


@pytest.fixture
def search(tiny_config, voc_root, tmp_path, disk, server):
    arguments = ["--config", tiny_config, "--data", voc_root, "--storage", disk.storage]
    arguments += ["--name", "s", "--trials", TRIALS, "--epochs", EPOCHS]
    environment = running_environment(server.environment)
    job = Job(
        "tune.py", arguments, environment, disk.seen / "s", tmp_path / "log", prefix=disk.prefix
    )
    job.start()
    return job


def test_a_search_on_a_disk_that_fails(search, disk, voc_root, tmp_path, server):
    search.await_epochs()
    with disk.read_only():
        time.sleep(5)
    search.await_epochs()
    assert not search.is_over(), search.printed()

    with disk.full():
        assert search.wait() == 1
    [error] = [line for line in search.printed().splitlines() if line.startswith("error: ")]
    assert "No space left on device" in error or "disk is full" in error  # the latter is SQLite's
    assert "--resume" in error
    assert "Traceback" not in search.printed()
    folders = [path for path in (search.folder / "ray").rglob("checkpoint_0*") if path.is_dir()]
    assert folders
    assert all(load_checkpoint(path).epoch for path in folders)  # none is half-written

    before = finished_trials(search.folder)
    search.start()
    assert search.wait() == 0, search.printed()
    assert wrong_in_search(search.folder, before, TRIALS) == []
    for trial in read_json(search.folder / "trials.json"):
        if trial["state"] == "complete":
            name = f"trial-{trial['number']:04d}"
            kept = [path for path in checkpoints(search.folder) if path.parent.name == name]
            assert differences_to_undisturbed(kept, str(voc_root), tmp_path) == []
    assert_nothing_remains(server)

"""What a trial leaves in the storage."""

import os
from pathlib import Path

import pytest
from ray import tune
from ray.train._internal.storage import StorageContext

from ssd_dist.distributed.trial import store_whole


@pytest.fixture
def context(tmp_path):
    """Of Ray Tune, as a trial has it; what it stores is stored whole."""
    context = StorageContext(str(tmp_path / "runs"), "search", trial_dir_name="trial-0000")
    context._update_checkpoint_index({})
    store_whole(context, str(tmp_path / "runs"))
    return context


@pytest.fixture
def folder(tmp_path):
    """A checkpoint's, as it was written on the machine of the trial."""
    folder = tmp_path / "written"
    folder.mkdir()
    (folder / "checkpoint.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(1000))
    return folder


def test_a_checkpoint_is_stored_where_ray_tune_looks_for_it(context, folder):
    stored = context.persist_current_checkpoint(tune.Checkpoint(str(folder)))
    assert stored.path == context.checkpoint_fs_path
    with stored.as_directory() as found:
        names = sorted(file.name for file in Path(found).iterdir())
        assert names == ["checkpoint.json", "model.safetensors"]


def test_nothing_is_left_of_a_checkpoint_that_could_not_be_stored(context, folder):
    os.mkfifo(folder / "nothing_to_copy")
    with pytest.raises(OSError, match="named pipe"):
        context.persist_current_checkpoint(tune.Checkpoint(str(folder)))
    assert list(Path(context.checkpoint_fs_path).parent.iterdir()) == []

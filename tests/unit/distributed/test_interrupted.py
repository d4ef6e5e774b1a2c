from pathlib import Path

import pytest
import torch

from ssd_dist.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ssd_dist.config import Config
from ssd_dist.distributed.interrupted import (
    discard_interrupted,
    interrupted_location,
    keep_interrupted,
    newest,
)
from ssd_dist.interruption import EpochPart, TrainingInterruptedError


def save(folder, epoch):
    checkpoint = Checkpoint(
        config=Config(),
        class_names=("cat",),
        data="synthetic",
        data_fingerprint="0",
        epoch=epoch,
        metrics={},
        history=({"map_11pt": 0.1},) * epoch,
        weights={"w": torch.ones(3)},
    )
    save_checkpoint(folder, checkpoint, {})


@pytest.fixture
def location(tmp_path):
    """Of the state of a training that was stopped after two epochs and some steps."""
    place = interrupted_location(str(tmp_path / "experiment"), "search/trial-0003")
    part = EpochPart(num_steps=5)
    stopped = TrainingInterruptedError(2, part, lambda folder: save(folder, 2))
    keep_interrupted(stopped, place, tmp_path)
    return place


@pytest.mark.parametrize(
    ("epoch", "taken"),
    [
        (None, True),  # the checkpoints before it are gone
        (1, False),  # that of epoch 2 is not known: it may be the best
        (2, True),
        (3, False),
    ],
)
def test_a_state_that_goes_on_from_the_last_known_epoch_is_taken(epoch, taken, location, tmp_path):
    regular = None
    if epoch is not None:
        regular = tmp_path / "regular"
        save(regular, epoch)
    with newest(regular, location) as folder:
        assert (str(folder) == location) == taken
        assert taken or folder == regular
    # One that was refused would fit the epoch that is trained again, without being its successor.
    assert Path(location).exists() == taken


def test_a_damaged_state_is_none(location, tmp_path):
    save(tmp_path / "regular", 2)
    weights = next(iter((tmp_path / location).glob("model.*")))
    weights.write_bytes(weights.read_bytes()[:-1])
    with newest(tmp_path / "regular", location) as folder:
        assert folder == tmp_path / "regular"


def test_no_state_and_one_that_is_not_needed_any_more(location, tmp_path):
    with newest(None, str(tmp_path / "absent")) as folder:
        assert folder is None
    assert load_checkpoint(tmp_path / location).epoch == 2
    discard_interrupted(location)
    with newest(None, location) as folder:
        assert folder is None
    discard_interrupted(location)  # there is none

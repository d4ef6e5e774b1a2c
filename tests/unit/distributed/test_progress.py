"""What a training's driver shows and enters, also while its disk takes nothing."""

import errno
import os
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ssd_dist.config import Config
from ssd_dist.distributed import progress
from ssd_dist.distributed.event_files import EventFiles
from ssd_dist.distributed.progress import follow_training
from ssd_dist.distributed.progress_board import Progress
from ssd_dist.terminal import Terminal

METRICS = (
    "map_11pt", "loss", "loss_conf", "loss_loc", "l2_term", "lr", "images_per_second", "seconds",
)  # fmt: skip


class Board:
    """A board without Ray."""

    def __init__(self):
        self.pinned, self.fetched, self.cleared = [], 0, False

    def fetch(self):
        epochs, self.pinned = tuple(self.pinned), []
        self.fetched += 1
        return Progress(1, 10, epochs, ())

    def clear(self):
        self.cleared = True

    def pin(self, epoch):
        """An epoch is over; returns once that was shown."""
        self.pinned.append({"epoch": epoch, **dict.fromkeys(METRICS, epoch / 8)})
        last, end = self.fetched, time.monotonic() + 20
        while self.fetched < last + 2:
            assert time.monotonic() < end
            time.sleep(0.01)


@pytest.fixture
def board():
    return Board()


@pytest.fixture
def disk(monkeypatch):
    """Takes nothing while `disk.full`."""

    class Disk:
        full = False

    def fsync(descriptor, real=os.fsync):
        if Disk.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(progress, "_POLL_INTERVAL_S", 0.01)
    return Disk


def test_epochs_wait_for_a_disk_that_takes_nothing_for_a_while(board, disk, tmp_path, capsys):
    with follow_training(board, Terminal(), Config(), EventFiles(tmp_path)):
        board.pin(1)
        disk.full = True
        board.pin(2)
        board.pin(3)
        assert "epoch   3/" in capsys.readouterr().out  # shown all the same
        disk.full = False
        board.pin(4)
    run = EventAccumulator(str(tmp_path / "tensorboard" / "training"))
    run.Reload()
    found = [(event.step, event.value) for event in run.Scalars("map_11pt")]
    assert found == [(epoch, epoch / 8) for epoch in (1, 2, 3, 4)]
    assert board.cleared


def test_a_full_disk_does_not_hide_why_the_training_ended(board, disk, tmp_path):
    def training():
        with follow_training(board, Terminal(), Config(), EventFiles(tmp_path)):
            board.pin(1)
            disk.full = True
            board.pin(2)
            raise RuntimeError("the training failed")

    with pytest.raises(RuntimeError, match="the training failed"):
        training()
    assert board.cleared

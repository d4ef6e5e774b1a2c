"""A driver that gets SIGTERM; without Ray, which integration tests have."""

import os
import signal
import time

import pytest

from ssd_dist.distributed import preemption
from ssd_dist.terminal import JobFailedError


@pytest.fixture
def working(monkeypatch):
    """The workers that have not saved their state yet; what they were asked is a key, too."""
    keys = {"worker"}
    monkeypatch.setattr(preemption, "HEARD_WITHIN_S", 0.5)
    monkeypatch.setattr(preemption, "_job", lambda: "1")
    monkeypatch.setattr(preemption.head_store, "put", lambda key: None)
    monkeypatch.setattr(preemption.head_store, "delete", lambda key: None)
    monkeypatch.setattr(preemption.head_store, "keys_below", lambda prefix: sorted(keys))
    return keys


@pytest.fixture
def outside():
    """The signals that reach who was asked before."""
    signals = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
    yield signals
    signal.signal(signal.SIGTERM, before)


def asked_to_stop(meanwhile):
    """A search that gets SIGTERM, and what it does after that."""
    with preemption.saving_on_sigterm("search"):
        os.kill(os.getpid(), signal.SIGTERM)
        meanwhile()


def test_what_is_under_way_ends_once_it_was_heard_of(working, outside):
    saved = []

    def go_on():
        time.sleep(0.3)
        working.clear()
        saved.append(time.monotonic())
        time.sleep(10)

    with pytest.raises(JobFailedError, match="the search was asked to stop by SIGTERM"):
        asked_to_stop(go_on)
    assert 0.4 < time.monotonic() - saved[0] < 5
    assert outside == []


@pytest.mark.parametrize("saved", [True, False])
def test_what_ends_meanwhile_leaves_no_signal_behind(saved, working, outside):
    if saved:
        working.clear()
    with pytest.raises(JobFailedError, match="SIGTERM"):
        asked_to_stop(lambda: time.sleep(0.2))
    time.sleep(0.8)
    assert outside == []


def test_nothing_came(working, outside):
    with preemption.saving_on_sigterm("training"):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    assert outside == [signal.SIGTERM]


def test_an_error_of_its_own_stays_one(working, outside):
    with pytest.raises(ZeroDivisionError):
        asked_to_stop(lambda: 1 / 0)
    assert outside == []

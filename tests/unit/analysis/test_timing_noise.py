"""When a timing may be trusted to come out the same again."""

import numpy as np
import pytest

from ssd_dist.analysis import noise
from ssd_dist.analysis.noise import LoadMeter, judge, median_gap


def test_what_never_changes_is_steady():
    assert median_gap([7.0] * 5) == 0
    assert median_gap([0.0] * 5) == 0
    verdict = judge({"step": [7.0] * 5}, others_percent=2.0)
    assert not verdict.noisy
    assert not verdict.unsteady
    assert verdict.sentence.startswith("The machine was quiet")


def test_a_machine_that_grows_slower_is_found_out():
    values = [100.0, 101.0, 102.0, 103.0, 130.0, 131.0, 132.0, 133.0]
    assert median_gap(values) >= 30 / 116.5
    verdict = judge({"training: backward": values, "training: loss": [1.0] * 8}, None)
    assert verdict.noisy
    assert verdict.unsteady == {"training: backward": median_gap(values)}
    assert "medians may differ the next time: training: backward by " in verdict.sentence


def test_the_same_spread_matters_less_the_more_often_it_was_timed():
    rng = np.random.default_rng(0)
    few, many = rng.uniform(70, 130, 5), rng.uniform(70, 130, 500)
    assert median_gap(few) > noise.TOLERANCE
    assert median_gap(many) < noise.TOLERANCE


def test_the_gap_bounds_the_difference_of_two_runs():
    rng = np.random.default_rng(1)
    within = 0
    for _ in range(200):
        first, second = rng.normal(100, 10, 20), rng.normal(100, 10, 20)
        difference = abs(np.median(first) - np.median(second)) / np.median(first)
        within += difference <= median_gap(first)
    assert within >= 180


def test_timed_once_is_not_known():
    assert median_gap([3.0]) == float("inf")
    assert "step (timed once)" in judge({"step": [3.0]}, None).sentence


def test_segments_that_miss_their_step():
    assert not judge({"step": [1.0, 1.0]}, None, sum_gap=0.04).noisy
    verdict = judge({"step": [1.0, 1.0]}, None, sum_gap=0.07)
    assert verdict.noisy
    assert "the segments' medians miss the step's by 7 %" in verdict.sentence


def test_other_processes_are_counted(monkeypatch, tmp_path):
    stat = tmp_path / "stat"
    monkeypatch.setattr(noise, "Path", lambda _: stat)
    monkeypatch.setattr(noise.os, "sysconf", lambda _: 100)
    own = [50.0]
    monkeypatch.setattr(noise.time, "process_time", lambda: own[0])
    stat.write_text("cpu  1000 0 500 8000 500 0 0 0 0 0\ncpu0 1 2 3\n", encoding="ascii")
    meter = LoadMeter()
    # 20 s of two processors: 14 s busy, of which 9 s are this process's, and 1 s stolen.
    own[0] += 9
    stat.write_text("cpu  2300 0 600 8400 600 0 0 100 0 0\ncpu0 1 2 3\n", encoding="ascii")
    assert meter.others_percent() == pytest.approx(100 * 6 / 20)
    verdict = judge({"step": [1.0, 1.0]}, meter.others_percent())
    assert verdict.noisy
    assert "other processes took 30 % of the processors' time" in verdict.sentence


def test_a_system_without_proc_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(noise, "Path", lambda _: tmp_path / "nothing")
    assert LoadMeter().others_percent() is None
    assert not judge({"step": [1.0, 1.0]}, None).noisy

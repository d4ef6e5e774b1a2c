"""The study decides what is tried, stopped and kept; without Ray's processes."""

import dataclasses

import optuna
import pytest

from ssd_dist.config import Config, Range, SearchConfig
from ssd_dist.distributed.study import (
    StudySearcher,
    close_finished,
    num_finished,
    open_study,
    trial_records,
)

CONFIG = Config(
    epochs=3,
    search=SearchConfig(
        trials=6,
        grace_epochs=1,
        reduction_factor=2,
        space={
            "alpha": Range(low=0.1, high=10, log=True),
            "global_batch_size": Range(low=2, high=8, integer=True),
            "model.norm": Range(choices=("batch", "none")),
        },
    ),
    global_batch_size=4,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study.db"


@pytest.fixture
def study(path):
    return open_study(path, CONFIG)


def searcher_of(study):
    return StudySearcher(study, CONFIG)


def run_epoch(searcher, ray_id, epoch, map_11pt, folder):
    """One epoch as Ray Tune tells of it; True if the trial is to stop."""
    folder.mkdir(exist_ok=True)
    result = {"epoch": epoch, "map_11pt": map_11pt}
    stop = searcher.report(ray_id, result)
    searcher.keep(ray_id, str(folder), result)
    return stop


def test_the_configurations_own_values_come_first(study):
    suggestion = searcher_of(study).suggest("a")
    assert suggestion == {
        "number": 0,
        "parameters": {"alpha": 1.0, "global_batch_size": 4, "model.norm": "batch"},
        "resume": None,
    }


def test_values_outside_the_space_are_no_first_point(path):
    config = dataclasses.replace(CONFIG, alpha=100.0)
    study = open_study(path, config)
    assert StudySearcher(study, config).suggest("a")["parameters"]["alpha"] <= 10


def test_a_complete_trial_counts_with_its_best_epoch(study, tmp_path):
    searcher = searcher_of(study)
    searcher.suggest("a")
    for epoch, value in enumerate((0.2, 0.6, 0.5), start=1):
        assert not run_epoch(searcher, "a", epoch, value, tmp_path / str(epoch))
    searcher.on_trial_complete("a", {})
    [record] = trial_records(study)
    assert (record.state, record.map_11pt, record.epochs) == ("complete", 0.6, 3)
    assert record.curve == (0.2, 0.6, 0.5)
    assert record.checkpoint == str(tmp_path / "2")
    assert study.best_value == 0.6


def test_asha_stops_the_weak_and_the_study_says_so(study, tmp_path):
    searcher = searcher_of(study)
    stopped = []
    for name, value in (("a", 0.5), ("b", 0.6), ("c", 0.1)):
        searcher.suggest(name)
        if run_epoch(searcher, name, 1, value, tmp_path / name):
            searcher.on_trial_complete(name, {})
            stopped.append(name)
    assert stopped == ["c"]
    record = trial_records(study)[2]
    assert (record.state, record.epochs, record.map_11pt) == ("pruned", 1, 0.1)
    assert study.trials[2].state.name == "PRUNED"
    assert study.trials[2].intermediate_values == {1: 0.1}


def test_diverged_and_failed_trials_are_told_apart(study, tmp_path):
    searcher = searcher_of(study)
    searcher.suggest("a")
    run_epoch(searcher, "a", 1, 0.3, tmp_path / "a")
    assert searcher.report("a", {"diverged": "loss nan", "map_11pt": 0.0, "epoch": 0})
    searcher.on_trial_complete("a", {})
    searcher.suggest("b")
    searcher.fail("b", "out of memory")
    searcher.on_trial_complete("b", None, error=True)
    diverged, failed = trial_records(study)
    assert (diverged.state, diverged.map_11pt, diverged.error) == ("diverged", None, "loss nan")
    assert diverged.curve == (0.3,)
    assert (failed.state, failed.map_11pt, failed.error) == ("failed", None, "out of memory")
    assert num_finished(study) == 2


def test_after_a_kill_the_trials_under_way_go_on(study, path, tmp_path):
    before = searcher_of(study)
    first, second = before.suggest("a"), before.suggest("b")
    run_epoch(before, "b", 1, 0.4, tmp_path / "b1")

    study = open_study(path, CONFIG)  # another driver
    close_finished(study, CONFIG)
    after = searcher_of(study)
    assert after.suggest("c") == first
    assert after.suggest("d") == {**second, "resume": str(tmp_path / "b1")}
    assert after.suggest("e")["number"] == 2
    for epoch, value in ((1, 0.4), (2, 0.7), (3, 0.6)):  # epoch 1 is told once more
        run_epoch(after, "d", epoch, value, tmp_path / f"d{epoch}")
    after.on_trial_complete("d", {})
    assert study.trials[1].intermediate_values == {1: 0.4, 2: 0.7, 3: 0.6}
    assert num_finished(study) == 1


def test_a_checkpoint_that_is_gone_is_not_resumed_from(study, path, tmp_path):
    before = searcher_of(study)
    before.suggest("a")
    run_epoch(before, "a", 1, 0.4, tmp_path / "a1")
    (tmp_path / "a1").rmdir()
    assert searcher_of(open_study(path, CONFIG)).suggest("b")["resume"] is None


def test_a_trial_that_had_ended_when_the_driver_was_killed_is_closed(study, path, tmp_path):
    before = searcher_of(study)
    for name in ("a", "b"):
        before.suggest(name)
    for epoch, value in enumerate((0.5, 0.5, 0.5), start=1):
        run_epoch(before, "a", epoch, value, tmp_path / f"a{epoch}")
    run_epoch(before, "b", 1, 0.1, tmp_path / "b1")  # the pruner stops it

    study = open_study(path, CONFIG)
    close_finished(study, CONFIG)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED"]
    assert study.best_value == 0.5


def test_another_driver_does_not_draw_the_same_points_again(study, path):
    drawn = [searcher_of(study).suggest("a")["parameters"]["alpha"]]
    first = StudySearcher(open_study(path, CONFIG), CONFIG)
    drawn += [first.suggest(f"b{i}")["parameters"]["alpha"] for i in range(3)]
    second = StudySearcher(open_study(path, CONFIG), CONFIG)
    drawn += [second.suggest(f"c{i}")["parameters"]["alpha"] for i in range(6)]
    fresh = {trial.params["alpha"] for trial in optuna_trials(path)}
    assert len(fresh) == len(optuna_trials(path))
    assert len(set(drawn)) == len(fresh)


def optuna_trials(path):
    return optuna.load_study(study_name="ssd_dist", storage=f"sqlite:///{path}").trials

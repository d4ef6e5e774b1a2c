"""The study decides what is tried, stopped and kept; without Ray's processes."""

import math

import optuna
import pytest
from searching import SPACE, Driver, make_config

from ssd_dist.checkpoint import Checkpoint, save_checkpoint
from ssd_dist.config import Range
from ssd_dist.distributed.study import curve, num_finished, open_study, trial_records


def test_the_configurations_own_values_come_first(driver):
    assert driver.start("a") == {
        "number": 0,
        "parameters": {"alpha": 1.0, "global_batch_size": 4, "model.norm": "batch"},
        "resume": None,
    }


def test_a_complete_trial_counts_with_its_best_epoch(driver, tmp_path):
    driver.start("a")
    for epoch, value in enumerate((0.2, 0.6, 0.5), start=1):
        assert not driver.epoch("a", epoch, value, tmp_path / str(epoch))
    driver.searcher.on_trial_complete("a", {})
    [record] = trial_records(driver.study)
    assert (record.state, record.map_11pt, record.epochs) == ("complete", 0.6, 3)
    assert record.curve == (0.2, 0.6, 0.5)
    assert record.checkpoint == str(tmp_path / "2")
    assert driver.study.best_value == 0.6


def test_a_trial_carries_where_it_comes_from(driver, tmp_path):
    driver.start("a")
    driver.epoch("a", 1, 0.5, tmp_path / "1", machine="here: some processor")
    [trial, *_] = driver.study.trials
    assert trial.user_attrs == {
        "origin": "configuration",
        "ray_trial_id": "a",
        "git_commit": "c0ffee",
        "machine": "here: some processor",
        "checkpoint": str(tmp_path / "1"),
        "map_11pt": 0.5,
        "latest_checkpoint": str(tmp_path / "1"),
        "latest_epoch": 1,
    }


def test_asha_stops_the_weak_and_the_study_says_so(driver, tmp_path):
    stopped = []
    for name, value in (("a", 0.5), ("b", 0.6), ("c", 0.1)):
        driver.start(name)
        if driver.epoch(name, 1, value, tmp_path / name):
            driver.searcher.on_trial_complete(name, {})
            stopped.append(name)
    assert stopped == ["c"]
    record = trial_records(driver.study)[2]
    assert (record.state, record.epochs, record.map_11pt) == ("pruned", 1, 0.1)
    assert driver.study.trials[2].state.name == "PRUNED"
    assert driver.study.trials[2].intermediate_values == {1: 0.1}


def test_a_trial_stopped_later_keeps_all_its_values(place, tmp_path):
    driver = Driver(make_config(epochs=6, grace_epochs=3), place)
    for name, best in (("a", 0.9), ("b", 0.3)):
        driver.start(name)
        for epoch in range(1, 7):
            if driver.epoch(name, epoch, best * epoch / 6, tmp_path / name):
                driver.searcher.on_trial_complete(name, {})
                break
    trial = driver.study.trials[1]
    assert trial.state.name == "PRUNED"
    assert trial.intermediate_values == pytest.approx({1: 0.05, 2: 0.1, 3: 0.15})


def test_the_median_pruner_stops_what_is_below_the_median(place, tmp_path):
    driver = Driver(make_config(pruner="median", grace_epochs=2, trials=8), place)
    for name, value in (("a", 0.5), ("b", 0.6), ("c", 0.7)):
        driver.start(name)
        for epoch in (1, 2, 3):
            assert not driver.epoch(name, epoch, value, tmp_path / name)
        driver.searcher.on_trial_complete(name, {})
    driver.start("d")
    assert not driver.epoch("d", 1, 0.1, tmp_path / "d")  # grace
    assert driver.epoch("d", 2, 0.1, tmp_path / "d")
    driver.start("e")
    driver.epoch("e", 1, 0.1, tmp_path / "e")
    assert not driver.epoch("e", 2, 0.65, tmp_path / "e")


def test_without_a_pruner_every_trial_runs_to_its_end(place, tmp_path):
    driver = Driver(make_config(pruner="none"), place)
    for index, value in enumerate((0.9, 0.5, 0.1, 0.0)):
        driver.run(f"t{index}", lambda _, value=value: value, tmp_path)
    assert [record.epochs for record in trial_records(driver.study)] == [3, 3, 3, 3]


def test_diverged_and_failed_trials_are_told_apart(driver, tmp_path):
    driver.start("a")
    driver.epoch("a", 1, 0.3, tmp_path / "a")
    assert driver.searcher.report("a", {"diverged": "loss nan", "map_11pt": 0.0, "epoch": 0})
    driver.searcher.on_trial_complete("a", {})
    driver.start("b")
    driver.searcher.fail("b", "Traceback …\n  …\nMemoryError: out of memory")
    driver.searcher.on_trial_complete("b", None, error=True)
    driver.start("c")
    assert driver.searcher.report("c", {"diverged": "loss inf", "map_11pt": 0.0, "epoch": 0})
    driver.searcher.on_trial_complete("c", {})
    diverged, failed, at_once = trial_records(driver.study)
    assert (diverged.state, diverged.map_11pt, diverged.error) == ("diverged", None, "loss nan")
    assert diverged.curve == (0.3,)
    assert (failed.state, failed.map_11pt) == ("failed", None)
    assert failed.error == "MemoryError: out of memory"
    assert (at_once.state, at_once.epochs, at_once.curve) == ("diverged", 0, ())
    states = [trial.state.name for trial in driver.study.trials[:3]]
    assert states == ["PRUNED", "FAIL", "PRUNED"]
    assert num_finished(driver.study) == 3


def test_after_a_kill_the_trials_under_way_go_on(driver, place, tmp_path):
    first, second = driver.start("a"), driver.start("b")
    driver.epoch("b", 1, 0.4, tmp_path / "b1")

    again = Driver(driver.config, place)
    assert again.start("c") == first
    assert again.start("d") == {**second, "resume": str(tmp_path / "b1")}
    assert again.start("e")["number"] == 2
    for epoch, value in ((1, 0.4), (2, 0.7), (3, 0.6)):  # epoch 1 is told once more
        again.epoch("d", epoch, value, tmp_path / f"d{epoch}")
    again.searcher.on_trial_complete("d", {})
    assert again.study.trials[1].intermediate_values == {1: 0.4, 2: 0.7, 3: 0.6}
    assert again.study.trials[1].user_attrs["ray_trial_id"] == "d"
    assert num_finished(again.study) == 1


@pytest.mark.parametrize("objectives", [("map_11pt",), ("map_11pt", "ms_per_image")])
def test_an_epoch_that_a_stopped_driver_was_not_told_of_is_not_missed(objectives, place, tmp_path):
    """Trials of several workers tell their epochs by way of others, who may be gone by then."""
    config = make_config(objectives=objectives)
    driver = Driver(config, place)
    driver.start("a")
    driver.epoch("a", 1, 0.1, tmp_path / "1", checkpoint_path=str(tmp_path / "1"))
    again = Driver(config, place)
    assert again.start("b")["number"] == 0
    values = (0.1, 0.3, 0.2)
    checkpoint = Checkpoint(
        config=config, class_names=("a",), data="synthetic", data_fingerprint="f", epoch=3,
        metrics={"epoch": 3, "map_11pt": 0.2}, weights={},
        history=tuple({"epoch": i, "map_11pt": v} for i, v in enumerate(values, start=1)),
    )  # fmt: skip
    save_checkpoint(tmp_path / "3", checkpoint)
    again.epoch("b", 3, 0.2, tmp_path / "3", checkpoint_path=str(tmp_path / "3"))
    assert curve(again.study.trials[0]) == {1: 0.1, 2: 0.3, 3: 0.2}


def test_an_epoch_that_nobody_knows_of_any_more_stops_nothing(driver, tmp_path):
    driver.start("a")
    driver.epoch("a", 3, 0.2, tmp_path / "3", checkpoint_path=str(tmp_path / "gone"))
    assert curve(driver.study.trials[0]) == {3: 0.2}


def test_a_checkpoint_that_is_gone_is_not_resumed_from(driver, place, tmp_path):
    driver.start("a")
    driver.epoch("a", 1, 0.4, tmp_path / "a1")
    (tmp_path / "a1").rmdir()
    assert Driver(driver.config, place).start("b")["resume"] is None


def test_a_trial_that_had_ended_when_the_driver_was_killed_is_closed(driver, place, tmp_path):
    for name in ("a", "b"):
        driver.start(name)
    for epoch, value in enumerate((0.5, 0.5, 0.5), start=1):
        driver.epoch("a", epoch, value, tmp_path / f"a{epoch}")
    driver.epoch("b", 1, 0.1, tmp_path / "b1")  # the pruner stops it

    study = Driver(driver.config, place).study
    assert [trial.state.name for trial in study.trials[:2]] == ["COMPLETE", "PRUNED"]
    assert study.best_value == 0.5


def test_two_objectives_give_a_pareto_front(place, tmp_path):
    config = make_config(objectives=("map_11pt", "ms_per_image"), trials=5)
    driver = Driver(config, place)
    for index, (value, milliseconds) in enumerate(
        ((0.5, 10.0), (0.9, 30.0), (0.4, 12.0), (0.9, 40.0), (0.8, 9.0))
    ):
        driver.start(f"t{index}")
        for epoch in (1, 2, 3):
            more = {"ms_per_image": milliseconds} if epoch == 3 else {}
            stop = driver.epoch(f"t{index}", epoch, value * epoch / 3, tmp_path / "c", **more)
            assert not stop  # however weak
        driver.searcher.on_trial_complete(f"t{index}", {})
    records = trial_records(driver.study)
    assert [record.pareto for record in records] == [False, True, False, False, True]
    assert {t.number for t in driver.study.best_trials} == {1, 4}  # Optuna says the same
    assert [record.ms_per_image for record in records] == [10.0, 30.0, 12.0, 40.0, 9.0]
    assert records[0].curve == pytest.approx((0.5 / 3, 1.0 / 3, 0.5))
    assert driver.study.trials[1].values == [0.9, 30.0]


def test_a_trial_of_two_objectives_that_was_not_timed_goes_on_after_a_kill(place, tmp_path):
    config = make_config(objectives=("map_11pt", "ms_per_image"))
    driver = Driver(config, place)
    driver.start("a")
    for epoch in (1, 2, 3):
        driver.epoch("a", epoch, 0.5, tmp_path / "c")
    again = Driver(config, place)
    assert again.start("b")["number"] == 0
    again.searcher.report("b", {"epoch": 3, "map_11pt": 0.5, "ms_per_image": 7.0})
    again.searcher.on_trial_complete("b", {})
    assert again.study.trials[0].values == [0.5, 7.0]


def test_a_trial_of_two_objectives_that_ends_untimed_has_failed(place, tmp_path):
    driver = Driver(make_config(objectives=("map_11pt", "ms_per_image"), epochs=1), place)
    driver.run("a", lambda _: 0.5, tmp_path)
    [record] = trial_records(driver.study)
    assert (record.state, record.error) == ("failed", "its time per image was not measured")


def test_a_diverged_trial_of_two_objectives_is_pruned(place, tmp_path):
    driver = Driver(make_config(objectives=("map_11pt", "ms_per_image")), place)
    driver.start("a")
    driver.epoch("a", 1, 0.5, tmp_path / "c")
    driver.searcher.report("a", {"diverged": "loss nan", "map_11pt": 0.0, "epoch": 0})
    driver.searcher.on_trial_complete("a", {})
    [record] = trial_records(driver.study)
    assert (record.state, record.pareto, record.curve) == ("diverged", False, (0.5,))
    driver.run("b", lambda _: 0.5, tmp_path, ms_per_image=3.0)  # the sampler can live with it


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_any_field_can_be_searched(memory, tmp_path):
    space = {
        "loss.neg_pos_ratio": Range(low=1, high=6),
        "global_batch_size": Range(choices=(4, 8, 16)),
        "model.norm": Range(choices=("batch", "none")),
        "data.augmentation.zoom_out": Range(low=0, high=1),
        "optimizer.name": Range(choices=("sgd", "adamw")),
        "model.feature_strides": Range(choices=([8, 16], [8, 16, 32])),
        "model.num_extra_maps": Range(choices=(None, 1)),
    }
    driver = Driver(make_config(space=space, trials=8), memory)
    drawn = [driver.run(f"t{i}", lambda p: p["loss.neg_pos_ratio"] / 6, tmp_path) for i in range(8)]
    for parameters in drawn:
        assert {name: space[name].admitted(value) for name, value in parameters.items()} == (
            parameters
        )
    assert {tuple(one["model.feature_strides"]) for one in drawn} == {(8, 16), (8, 16, 32)}


def test_a_study_of_another_space_is_refused(driver, place):
    driver.start("a")
    before = [trial.params for trial in driver.study.trials]
    for space in (
        {**SPACE, "alpha": Range(low=0.1, high=20, log=True)},
        {"global_batch_size": SPACE["global_batch_size"], "model.norm": SPACE["model.norm"]},
    ):
        with pytest.raises(ValueError, match=r"another space \(alpha was Float.*--name"):
            open_study(place, make_config(space=space))
    assert [trial.params for trial in open_study(place, driver.config).trials] == before


def test_a_search_that_is_cut_off_often_is_the_same_search(tmp_path, place, memory):
    """Whatever the sampler drew and learned before."""

    def value_of(parameters):
        return math.exp(-(math.log(parameters["alpha"]) ** 2))

    config = make_config(trials=8, pruner="none")
    whole = Driver(config, memory)
    wanted = [whole.run(f"t{i}", value_of, tmp_path) for i in range(8)]
    found = [Driver(config, place).run(f"t{i}", value_of, tmp_path) for i in range(8)]
    assert found == wanted
    assert len({parameters["alpha"] for parameters in wanted[2:]}) == 6
    alphas = [trial.params["alpha"] for trial in open_study(place, config).trials]
    assert alphas == [parameters["alpha"] for parameters in wanted]


def test_the_study_shows_its_metric_by_name(driver):
    assert driver.study.metric_names == ["map_11pt"]
    optuna.load_study(study_name=driver.place.study_name, storage=driver.study._storage)

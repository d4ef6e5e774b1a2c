"""An earlier search's trials teach a later one's sampler, and are no trials of its own."""

import pytest
from searching import SPACE, Driver, make_config

from ssd_dist.config import Range
from ssd_dist.distributed.first_points import plan_search
from ssd_dist.distributed.study import enqueue, num_finished, open_study, trial_records
from ssd_dist.distributed.study_storage import new_place, record_place
from ssd_dist.distributed.warm_start import enter_priors, is_warm, prior_trials, read_earlier


def begin(tmp_path, name, config):
    """A search in a folder of its own."""
    folder = tmp_path / name
    folder.mkdir()
    place = new_place(folder, None)
    record_place(folder, place)
    driver = Driver(config, place)
    driver.searcher._attributes = {"data_fingerprint": "cells"}
    return driver, folder


@pytest.fixture
def earlier(tmp_path):
    """Complete, complete, pruned, failed, diverged, under way; the queue is the first alone."""
    driver, folder = begin(tmp_path, "earlier", make_config(epochs=2))
    driver.run("t0", lambda _: 0.8, tmp_path)
    driver.run("t1", lambda _: 0.9, tmp_path)
    driver.run("t2", lambda _: 0.1, tmp_path)
    driver.start("t3")
    driver.searcher.on_trial_complete("t3", None, error=True)
    driver.start("t4")
    driver.searcher.report("t4", {"diverged": "nan", "map_11pt": 0.0, "epoch": 0})
    driver.searcher.on_trial_complete("t4", {})
    driver.start("t5")
    states = [trial.state.name for trial in driver.study.trials]
    assert states == ["COMPLETE", "COMPLETE", "PRUNED", "FAIL", "PRUNED", "RUNNING"]
    return driver, folder


def read(folder, config, place, fingerprint="cells"):
    return read_earlier(folder, config, place.url, fingerprint)


def test_finished_trials_are_taken_over_and_not_counted(earlier, place, tmp_path):
    source, folder = earlier
    config = make_config(trials=4, alpha=2.0)
    found = read(folder, config, place)
    assert len(found.trials) == 4  # all but the failed one and the one under way
    assert found.lines() == [f"warm start: 4 trials of {folder}"]

    study = open_study(place, config)
    enter_priors(study, found)
    driver = Driver(config, place)
    drawn = driver.run("a", lambda _: 0.6, tmp_path)
    assert drawn["alpha"] == 2.0  # the first points come first all the same
    [record] = trial_records(driver.study)
    assert record.map_11pt == 0.6
    assert num_finished(driver.study) == 1
    best = max(t.value for t in prior_trials(driver.study) if t.state.name == "COMPLETE")
    assert best == 0.9
    assert [t.params for t in prior_trials(driver.study)] == [
        source.study.trials[i].params for i in (0, 1, 2, 4)
    ]


def test_they_are_entered_once_however_often_the_driver_is_killed(earlier, place):
    _, folder = earlier
    config = make_config()
    found = read(folder, config, place)
    study = open_study(place, config)
    study.add_trial(found.trials[0])  # and killed
    assert not is_warm(study)
    for _ in range(2):
        study = open_study(place, config)
        enter_priors(study, found)
        enqueue(study, plan_search(config))
    assert is_warm(study)
    assert len(prior_trials(study)) == 4
    assert len(study.trials) == 4 + len(plan_search(config).points)


def test_the_pruner_does_not_compare_with_them(earlier, place, tmp_path):
    _, folder = earlier
    for pruner in ("asha", "median"):
        config = make_config(pruner=pruner, trials=4)
        found = read(folder, config, place)
        assert all(not trial.intermediate_values for trial in found.trials)
    study = open_study(place, config)
    enter_priors(study, found)
    driver = Driver(config, place, study)
    driver.start("a")
    assert not driver.epoch("a", 1, 0.01, tmp_path / "a")


def test_the_sampler_learns_from_them(tmp_path, place):
    """The earlier search's best lie at alpha 5: the later one draws there from the start."""

    def value_of(parameters):
        return 1 - abs(parameters["alpha"] - 5) / 10

    space = {"alpha": Range(low=0, high=10)}
    source, folder = begin(tmp_path, "many", make_config(space=space, epochs=1, sampler="random"))
    for index in range(25):
        source.run(f"t{index}", value_of, tmp_path)
    config = make_config(space=space, epochs=1, trials=8)
    study = open_study(place, config)
    enter_priors(study, read(folder, config, place))
    warm = Driver(config, place, study)
    drawn = [warm.run(f"w{index}", value_of, tmp_path)["alpha"] for index in range(8)]
    assert drawn[0] == 1.0  # the configuration's own
    assert sum(abs(alpha - 5) < 2.5 for alpha in drawn[1:]) >= 6


def test_cma_es_begins_from_their_distribution(tmp_path, place):
    source, folder = begin(tmp_path, "many", make_config(epochs=1, sampler="random", trials=20))
    for index in range(20):
        source.run(f"t{index}", lambda p: 1 / (1 + p["alpha"]), tmp_path)
    config = make_config(epochs=1, sampler="cmaes", trials=8)
    study = open_study(place, config)
    enter_priors(study, read(folder, config, place))
    warm = Driver(config, place, study)
    drawn = [warm.run(f"w{i}", lambda p: 1 / (1 + p["alpha"]), tmp_path) for i in range(8)]
    # The middle of the logarithmic range is 1; the best tenth of 20 draws lies below 0.2.
    assert sum(parameters["alpha"] < 0.6 for parameters in drawn[1:]) >= 5


def test_what_does_not_fit_is_skipped_and_counted(earlier, place):
    source, folder = earlier
    alphas = [source.study.trials[i].params["alpha"] for i in (0, 1, 2, 4)]
    low = min(alphas) * 1.001
    narrower = {**SPACE, "alpha": Range(low=low, high=20, log=True)}
    found = read(folder, make_config(space=narrower), place)
    assert len(found.trials) == 3
    assert found.lines()[0].endswith("1 skipped: alpha outside of the space")
    assert found.trials[0].distributions["alpha"].high == 20

    fewer = {"alpha": SPACE["alpha"]}
    assert len(read(folder, make_config(space=fewer), place).trials) == 4

    more = {**SPACE, "lr": Range(low=1e-4, high=1e-1)}
    with pytest.raises(ValueError, match=r"none of its finished trials.*4 lr was not searched"):
        read(folder, make_config(space=more), place)

    timed = make_config(objectives=("map_11pt", "ms_per_image"))
    found = read(folder, timed, place)
    assert found.skipped == {"ms_per_image was not measured": 2}  # the complete ones
    assert all(trial.state.name == "PRUNED" for trial in found.trials)


def test_a_search_of_two_objectives_is_taken_over_with_one_or_both(tmp_path, place):
    both = make_config(objectives=("map_11pt", "ms_per_image"))
    source, folder = begin(tmp_path, "both", both)
    source.run("a", lambda _: 0.5, tmp_path, ms_per_image=7.0)
    assert read(folder, both, place).trials[0].values == [0.5, 7.0]
    assert read(folder, make_config(), place).trials[0].values == [0.5]


def test_other_data_is_told(earlier, place):
    _, folder = earlier
    found = read(folder, make_config(), place, fingerprint="cats")
    assert found.lines()[1].startswith("note: they were measured on other data")
    assert len(read(folder, make_config(), place).lines()) == 1


def test_what_can_not_be_started_from_is_refused(earlier, place, tmp_path):
    _, folder = earlier
    for sampler in ("random", "grid"):
        config = make_config(sampler=sampler, num_grid_points=2)
        with pytest.raises(ValueError, match=f"sampler {sampler} does not learn"):
            read(folder, config, place)
    with pytest.raises(FileNotFoundError, match="no experiment"):
        read(tmp_path / "absent", make_config(), place)
    with pytest.raises(FileNotFoundError, match="not a search"):
        read(tmp_path, make_config(), place)
    _, empty = begin(tmp_path, "empty", make_config())
    with pytest.raises(ValueError, match=r"none of its finished trials can be taken over$"):
        read(empty, make_config(), place)

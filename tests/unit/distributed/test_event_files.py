"""TensorBoard's event files, as TensorBoard reads them."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from ssd_dist.config import Config
from ssd_dist.distributed.event_files import EventFiles, TrialEventFiles, hyperparameters

HYPERPARAMETERS = {
    "alpha": 1.5,
    "lr": 0.01,
    "model.norm": "batch",
    "deep": True,
    "strides": (8, 16),
}


def metrics(epoch, map_11pt, best=None, **more):
    return {
        "epoch": epoch,
        "map_11pt": map_11pt,
        "best_map_11pt": map_11pt if best is None else best,
        "loss": 2.5,
        "ap_11pt/cell": 0.25,
        "pid": 17,
        **more,
    }


def read(folder):
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def scalars(folder, tag):
    return [(event.step, pytest.approx(event.value)) for event in read(folder).Scalars(tag)]


def hparams(folder):
    """The HParams page's data of a run: experiment, session's start, session's end."""
    tags = ("experiment", "session_start_info", "session_end_info")
    found = read(folder).summary_metadata
    contents = [found[f"_hparams_/{tag}"].plugin_data.content for tag in tags]
    experiment, start, end = map(HParamsPluginData.FromString, contents)
    return experiment.experiment, start.session_start_info, end


def test_a_run_has_its_metrics_by_epoch_and_nothing_else(tmp_path):
    files = EventFiles(tmp_path)
    for epoch, value, best in ((1, 0.25, 0.25), (2, 0.75, 0.75), (3, 0.5, 0.75)):
        files.epoch("training", metrics(epoch, value, best), HYPERPARAMETERS)
        # Whoever watches has it at once.
        assert scalars(tmp_path / "tensorboard" / "training", "map_11pt")[-1] == (epoch, value)
    files.end("training")
    run = tmp_path / "tensorboard" / "training"
    assert set(read(run).Tags()["scalars"]) == {"map_11pt", "best_map_11pt", "loss", "ap_11pt/cell"}
    assert scalars(run, "map_11pt") == [(1, 0.25), (2, 0.75), (3, 0.5)]
    assert scalars(run, "best_map_11pt") == [(1, 0.25), (2, 0.75), (3, 0.75)]


def test_hyperparameters_and_the_best_accuracy_make_the_hparams_page(tmp_path):
    files = EventFiles(tmp_path)
    files.epoch("search/trial-0000", metrics(1, 0.5), HYPERPARAMETERS)
    files.end("search/trial-0000")
    experiment, start, _ = hparams(tmp_path / "tensorboard" / "search" / "trial-0000")
    assert [metric.name.tag for metric in experiment.metric_infos] == ["best_map_11pt"]
    assert {info.name for info in experiment.hparam_infos} == set(HYPERPARAMETERS)
    assert start.hparams["alpha"].number_value == 1.5
    assert start.hparams["model.norm"].string_value == "batch"
    assert start.hparams["deep"].bool_value is True
    assert start.hparams["strides"].string_value == "(8, 16)"


def test_a_run_that_is_resumed_has_no_step_twice(tmp_path):
    killed = EventFiles(tmp_path)
    for epoch in (1, 2, 3):
        killed.epoch("trial", metrics(epoch, 0.1 * epoch), HYPERPARAMETERS)
    # Its last checkpoint is that of epoch 2; what epoch 3 comes to now may be something else.
    resumed = EventFiles(tmp_path)
    for epoch in (3, 4):
        resumed.epoch("trial", metrics(epoch, 0.2 * epoch), HYPERPARAMETERS)
    # And a lost worker, within one driver.
    resumed.epoch("trial", metrics(4, 0.9), HYPERPARAMETERS)
    resumed.end("trial")
    run = tmp_path / "tensorboard" / "trial"
    assert len(list(run.iterdir())) == 3
    assert scalars(run, "map_11pt") == [(1, 0.1), (2, 0.2), (3, 0.6), (4, 0.9)]
    _, start, _ = hparams(run)
    assert start.hparams["lr"].number_value == 0.01


class _Trial:
    def __init__(self, number, **parameters):
        self.config = {"number": number, "parameters": parameters, "resume": "a/checkpoint"}


def test_trials_have_runs_of_their_own_with_what_was_searched(tmp_path):
    files = TrialEventFiles(EventFiles(tmp_path), Config(), "search")
    trials = [_Trial(0, lr=0.1, **{"model.norm": "none"}), _Trial(12, lr=0.2)]
    for trial in trials:
        files.log_trial_start(trial)
    for epoch in (1, 2):
        for trial in trials:
            files.log_trial_result(epoch, trial, metrics(epoch, 0.5))
    files.log_trial_result(3, trials[1], {"diverged": "loss nan", "map_11pt": 0.0, "epoch": 0})
    for trial in trials:
        files.log_trial_end(trial)
    folder = tmp_path / "tensorboard" / "search"
    assert sorted(path.name for path in folder.iterdir()) == ["trial-0000", "trial-0012"]
    assert scalars(folder / "trial-0012", "map_11pt") == [(1, 0.5), (2, 0.5)]
    _, start, _ = hparams(folder / "trial-0000")
    assert dict(start.hparams).keys() == {"alpha", "l2_lambda", "lr", "model.norm"}
    assert start.hparams["lr"].number_value == 0.1
    assert start.hparams["alpha"].number_value == Config().alpha


def test_a_trial_without_an_epoch_leaves_nothing(tmp_path):
    files = TrialEventFiles(EventFiles(tmp_path), Config(), "search")
    trial = _Trial(0, lr=1.0)
    files.log_trial_start(trial)
    files.log_trial_result(1, trial, {"diverged": "loss nan", "map_11pt": 0.0, "epoch": 0})
    files.log_trial_end(trial)
    assert list(tmp_path.iterdir()) == []


def test_what_was_not_searched_is_shown_as_it_was_trained():
    config = Config(alpha=2.0, lr=0.5)
    assert hyperparameters(config, {"lr": 0.25}) == {
        "alpha": 2.0,
        "l2_lambda": config.l2_lambda,
        "lr": 0.25,
    }

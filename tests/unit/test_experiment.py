import errno
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ssd_dist.config import Config
from ssd_dist.experiment import (
    TrialRecord,
    best_checkpoint,
    check_start,
    finish_experiment,
    latest_experiment,
    ranked,
    read_config,
    read_trials,
    start_experiment,
    storage_folder,
    write_json,
    write_trials,
)
from ssd_dist.search_config import Range, SearchConfig


def trial(number, map_11pt):
    return TrialRecord(
        number=number,
        state="complete",
        parameters={"lr": 0.1},
        map_11pt=map_11pt,
        epochs=2,
        seconds=1.5,
        curve=(0.1, 0.2),
        checkpoint="x",
    )


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "weights").write_text("w")
    return folder


def test_best_json_and_its_checkpoint(tmp_path, checkpoint):
    experiment = tmp_path / "runs" / "a"
    start_experiment(experiment, "train", Config(), "synthetic")
    path = finish_experiment(experiment, Config(alpha=3.0), 0.75, checkpoint)
    best = json.loads(path.read_text())
    assert best["config"]["alpha"] == 3.0
    assert {"l2_lambda", "lr"} <= set(best["config"])
    assert best["map_11pt"] == 0.75
    assert (Path(best["checkpoint"]) / "weights").read_text() == "w"
    assert best_checkpoint(experiment) == Path(best["checkpoint"])
    finish_experiment(experiment, Config(), 0.8, checkpoint)  # again, as a resumed one does
    names = sorted(p.name for p in experiment.iterdir())
    assert names == ["best.json", "best_checkpoint", "experiment.json"]


def test_an_experiment_can_be_moved(tmp_path, checkpoint):
    experiment = tmp_path / "a"
    start_experiment(experiment, "train", Config(), "synthetic")
    finish_experiment(experiment, Config(), 0.75, checkpoint)
    moved = experiment.rename(tmp_path / "b")
    assert (best_checkpoint(moved) / "weights").is_file()


def test_an_existing_experiment_is_not_overwritten(tmp_path):
    check_start(tmp_path / "a", "train", Config(), "synthetic", resume=False)
    assert not (tmp_path / "a").exists()
    start_experiment(tmp_path / "a", "train", Config(), "synthetic")
    with pytest.raises(FileExistsError, match="--resume"):
        check_start(tmp_path / "a", "train", Config(), "synthetic", resume=False)


@pytest.mark.parametrize("hard_links", [True, False])
def test_of_two_jobs_that_begin_it_at_once_one_is_refused(hard_links, tmp_path, monkeypatch):
    """Each has looked, and found nothing."""

    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    if not hard_links:
        monkeypatch.setattr(os, "link", refuse)
    folder = tmp_path / "a"
    for _ in range(2):
        check_start(folder, "train", Config(), "synthetic", resume=False)
    start_experiment(folder, "train", Config(), "synthetic")
    with pytest.raises(FileExistsError, match=f"experiment {folder} exists already: go on"):
        start_experiment(folder, "train", Config(alpha=2.0), "synthetic")
    assert read_config(folder) == Config()
    assert [path.name for path in folder.iterdir()] == ["experiment.json"]


def test_of_many_jobs_that_begin_it_at_once_one_does(tmp_path):
    barrier = threading.Barrier(8)

    def begin(number):
        barrier.wait()
        try:
            start_experiment(tmp_path / "a", "train", Config(seed=number), "synthetic")
        except FileExistsError:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        [begun] = [number for number in pool.map(begin, range(8)) if number is not None]
    assert read_config(tmp_path / "a").seed == begun


def test_resuming_asks_for_the_same_request(tmp_path):
    folder = tmp_path / "a"
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        check_start(folder, "tune", Config(), "synthetic", resume=True)
    start_experiment(folder, "tune", Config(), "synthetic")
    check_start(folder, "tune", Config(), "synthetic", resume=True)
    with pytest.raises(ValueError, match="kind was 'tune', now 'train'"):
        check_start(folder, "train", Config(), "synthetic", resume=True)
    with pytest.raises(ValueError, match="data was 'synthetic', now 'other'"):
        check_start(folder, "tune", Config(), "other", resume=True)
    with pytest.raises(ValueError, match=r"config\.alpha was 1\.0, now 2\.0"):
        check_start(folder, "tune", Config(alpha=2.0), "synthetic", resume=True)


def test_what_is_missing_is_named(tmp_path, checkpoint):
    with pytest.raises(FileNotFoundError, match="no experiment"):
        best_checkpoint(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"best\.json"):
        best_checkpoint(checkpoint)
    with pytest.raises(FileNotFoundError, match="is gone"):
        finish_experiment(tmp_path, Config(), 0.5, tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="no finished experiment"):
        latest_experiment(tmp_path / "runs")


def test_trials_are_kept_best_first(tmp_path):
    trials = [trial(0, 0.2), trial(1, None), trial(2, 0.7)]
    assert read_trials(tmp_path) is None
    write_trials(tmp_path, trials)
    assert [t.number for t in read_trials(tmp_path)] == [2, 0, 1]
    assert read_trials(tmp_path) == ranked(trials)


def test_the_configuration_comes_back_with_its_search_space(tmp_path):
    config = Config(lr=0.25, search=SearchConfig(space={"lr": Range(low=0.1, high=0.5)}))
    start_experiment(tmp_path, "tune", config, "synthetic")
    assert read_config(tmp_path) == config


def test_writing_is_all_or_nothing(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_submitted_job_stores_at_home(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert storage_folder("runs") == tmp_path / "runs"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert storage_folder("runs") == tmp_path / "home" / "runs"
    assert storage_folder("/data") == Path("/data")
    with pytest.raises(ValueError, match="s3://"):
        storage_folder("s3://bucket/runs")

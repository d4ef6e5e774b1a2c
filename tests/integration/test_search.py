"""Searches with real trials: several objectives, a database, a start from an earlier search."""

import optuna
import pytest
import yaml
from running import read_json, run_job

from ssd_dist.checkpoint import load_checkpoint

ATTRIBUTES = {
    "ray_trial_id", "git_commit", "data_fingerprint", "machine", "checkpoint", "latest_checkpoint",
}  # fmt: skip


@pytest.fixture
def both_objectives(tiny_config, tmp_path):
    """The small configuration, with time beside accuracy."""
    config = yaml.safe_load(tiny_config.read_text())
    config["search"]["objectives"] = ["map_11pt", "ms_per_image"]
    path = tmp_path / "both.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def tune(config, data, storage, name, *arguments, env):
    done = run_job(
        "tune.py", "--config", config, "--data", data, "--storage", storage, "--name", name,
        "--epochs", 1, *arguments, env=env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_objectives_in_a_database_and_a_warm_start(
    both_objectives, tiny_config, voc_root, tmp_path, ray_server
):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    environment = {**ray_server.environment, "SSD_DIST_STUDY_STORAGE": url}
    shown = tune(both_objectives, voc_root, tmp_path, "first", "--trials", 3, env=environment)
    assert "no trial is stopped early" in shown
    assert url in shown
    assert not (tmp_path / "first" / "study.db").exists()
    trials = read_json(tmp_path / "first" / "trials.json")
    assert [trial["state"] for trial in trials] == ["complete"] * 3
    assert all(trial["ms_per_image"] > 0 for trial in trials)
    front = [trial for trial in trials if trial["pareto"]]
    best = read_json(tmp_path / "first" / "best.json")
    assert best["map_11pt"] == max(trial["map_11pt"] for trial in trials)
    assert best["map_11pt"] in [trial["map_11pt"] for trial in front]

    snapshots = [path for path in (tmp_path / "first" / "ray").rglob("*") if path.is_file()]
    assert len(snapshots) > 10
    assert not any(b"shared.db" in path.read_bytes() for path in snapshots)  # nor any password

    place = read_json(tmp_path / "first" / "study.json")
    study = optuna.load_study(study_name=place["study_name"], storage=url)
    assert {trial.number for trial in study.best_trials} == {trial["number"] for trial in front}
    fingerprint = load_checkpoint(tmp_path / "first" / "best_checkpoint").data_fingerprint
    for trial in study.trials:
        assert set(trial.user_attrs) >= ATTRIBUTES
        assert trial.user_attrs["data_fingerprint"] == fingerprint
        assert ":" in trial.user_attrs["machine"]

    shown = tune(
        tiny_config, voc_root, tmp_path, "second", "--trials", 2, "--warm-start",
        tmp_path / "first", env=environment,
    )  # fmt: skip
    assert f"warm start: 3 trials of {tmp_path / 'first'}" in shown
    assert "other data" not in shown
    trials = read_json(tmp_path / "second" / "trials.json")
    assert len(trials) == 2
    assert read_json(tmp_path / "second" / "best.json")["map_11pt"] == trials[0]["map_11pt"]
    assert trials[0]["ms_per_image"] is None


def test_the_time_of_a_trial_of_two_workers(both_objectives, voc_root, tmp_path, ray_server):
    tune(
        both_objectives, voc_root, tmp_path, "nested", "--trials", 1, "--workers-per-trial", 2,
        env=ray_server.environment,
    )  # fmt: skip
    [trial] = read_json(tmp_path / "nested" / "trials.json")
    assert trial["state"] == "complete"
    assert trial["ms_per_image"] > 0
    assert trial["pareto"]

"""Trainings whose loss is not finite: told with its place, and a search goes on."""

import re

import pytest
import yaml
from running import read_json, run_job

PLACE = (
    r"loss \S+ with gradient norm \S+ at step \d+ of the epoch "
    r"\(lr \S+, pictures (train_\d{3}, ){7}train_\d{3}\): lower the learning rate"
)


@pytest.fixture
def diverging_config(tiny_config, tmp_path):
    """Its own learning rate, which a search tries first, is one that no training survives."""
    config = yaml.safe_load(tiny_config.read_text())
    config["search"]["space"] = {"lr": {"choices": [1e8, 1e-3]}}
    config |= {"lr": 1e8, "optimizer": {"name": "sgd", "gradient_clip": None}}
    path = tmp_path / "diverging.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_a_search_goes_on_after_a_trial_that_diverges(
    diverging_config, voc_root, tmp_path, ray_server
):
    done = run_job(
        "tune.py", "--config", diverging_config, "--data", voc_root, "--storage", tmp_path,
        "--name", "s", "--trials", 2, "--epochs", 2, env=ray_server.environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    good, diverged = read_json(tmp_path / "s" / "trials.json")
    assert (good["state"], good["parameters"]) == ("complete", {"lr": 1e-3})
    assert (diverged["state"], diverged["parameters"]) == ("diverged", {"lr": 1e8})
    assert (diverged["number"], diverged["map_11pt"]) == (0, None)
    assert re.fullmatch(PLACE, diverged["error"])
    assert read_json(tmp_path / "s" / "best.json")["config"]["lr"] == 1e-3


def test_a_training_that_diverges_says_where(diverging_config, voc_root, tmp_path, ray_server):
    done = run_job(
        "train.py", "--config", diverging_config, "--data", voc_root, "--storage", tmp_path,
        "--name", "t", "--workers", 2, env=ray_server.environment,
    )  # fmt: skip
    assert done.returncode == 1
    assert re.fullmatch(f"error: the training diverged: {PLACE}", done.stderr.strip())
    assert not (tmp_path / "t" / "best.json").exists()

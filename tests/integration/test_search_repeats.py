"""The best of a search beside the paper's defaults, with three seeds each: killed, gone on with,
and reported; with real trainings."""

from pathlib import Path

import optuna
import pytest
import yaml
from running import kill, read_json, run_job, start_job, wait_until

from ssd_dist.checkpoint import load_checkpoint
from ssd_dist.distributed.study import LATEST_EPOCH


@pytest.fixture
def repeating(tiny_config, tmp_path):
    """The small configuration, with the best configuration repeated; its λ is not searched."""
    config = yaml.safe_load(tiny_config.read_text())
    config["epochs"] = 1
    config["l2_lambda"] = 1e-3
    del config["search"]["space"]["l2_lambda"]
    config["search"] |= {"trials": 1, "repeats": {"top_k": 1}}
    path = tmp_path / "repeating.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def repeats_of(study_db):
    """The trials of the repeats' study; none before there is one."""
    storage = f"sqlite:///{study_db}"
    try:
        names = optuna.get_all_study_names(storage)
        [name] = [name for name in names if name.endswith("-repeats")]
        return optuna.load_study(study_name=name, storage=storage).trials
    except Exception:  # not there yet
        return []


def finished(trials):
    """Number → when it was finished."""
    return {trial.number: trial.datetime_complete for trial in trials if trial.state.is_finished()}


def test_killed_repeats_go_on_and_are_reported(repeating, voc_root, tmp_path, ray_server):
    folder, log = tmp_path / "r", tmp_path / "driver.log"
    arguments = [
        "--config", repeating, "--data", voc_root, "--storage", tmp_path, "--name", "r",
    ]  # fmt: skip
    driver = start_job("tune.py", *arguments, env=ray_server.environment, log=log)
    wait_until(lambda: len(finished(repeats_of(folder / "study.db"))) > 1, 240, log.read_text)
    kill(driver)
    left = repeats_of(folder / "study.db")
    before = finished(left)
    # Their only epoch was stored when the driver was killed: they are closed, and not run again.
    ended = [one for one in left if one.number not in before and LATEST_EPOCH in one.user_attrs]
    assert len(before) < 6, "the repeats were over before they were killed"
    assert len(read_json(folder / "trials.json")) == 1
    assert not (folder / "best.json").exists()

    resumed = run_job("tune.py", *arguments, "--resume", env=ray_server.environment)
    assert resumed.returncode == 0, resumed.stderr
    after = finished(repeats_of(folder / "study.db"))
    assert sorted(after) == [0, 1, 2, 3, 4, 5]
    assert {number: after[number] for number in before} == before  # none was run again
    assert resumed.stdout.count(", seed ") == 6 - len(before) - len(ended)
    assert "Trained again in full" in resumed.stdout

    repeats = read_json(folder / "repeats.json")
    assert [len(one["runs"]) for one in repeats] == [3, 3]
    assert sorted(one["is_paper"] for one in repeats) == [False, True]
    for one in repeats:
        assert one["seeds"] == [1, 2, 3]
        assert [run["epochs"] for run in one["runs"]] == [1, 1, 1]
        for run in one["runs"]:
            trained = load_checkpoint(Path(run["checkpoint"])).config
            assert (trained.seed, trained.l2_lambda) == (
                run["parameters"]["seed"],
                2.5e-4 if one["is_paper"] else 1e-3,
            )
    winner, best = repeats[0], read_json(folder / "best.json")
    assert winner["mean"] == max(one["mean"] for one in repeats)
    assert best["repeats"]["values"] == winner["values"]
    assert best["map_11pt"] == max(winner["values"])
    assert best["config"]["lr"] == winner["parameters"]["lr"]
    kept = load_checkpoint(folder / "best_checkpoint")
    assert kept.metrics["map_11pt"] == best["map_11pt"]
    assert kept.config.seed == best["config"]["seed"]

    moved = folder.rename(tmp_path / "moved")
    evaluated = run_job(
        "evaluate.py", "--experiment", moved, "--analysis", "none", env=ray_server.environment
    )
    assert evaluated.returncode == 0, evaluated.stderr
    report = read_json(moved / "report" / "report.json")
    tested = {one["is_paper"]: one["split_values"] for one in report["repeats"]["configurations"]}
    assert [len(values) for values in tested.values()] == [3, 3]
    # The best checkpoint is one of them, and was evaluated by another way.
    best_seed = winner["seeds"].index(best["config"]["seed"])
    assert tested[winner["is_paper"]][best_seed] == report["map_11pt"]
    assert report["repeats"]["sentence"] in evaluated.stdout

"""The three jobs as a user runs them: real processes, a real Ray, real files."""

import os

import optuna
import pytest
from running import ROOT, kill, read_json, read_scalars, run_job, start_job, wait_until

from ssd_dist.checkpoint import load_checkpoint
from ssd_dist.sole_job import sole_job

REPORT_KEYS = {"map_11pt", "ap_11pt", "num_images", "num_parameters", "num_macs"}


def flags(config, data, storage, name):
    return ["--config", config, "--data", data, "--storage", storage, "--name", name]


def check_report(folder, class_names, num_images):
    report = read_json(folder / "report.json")
    assert set(report) >= REPORT_KEYS
    assert 0 <= report["map_11pt"] <= 1
    assert set(report["ap_11pt"]) == set(class_names)
    assert report["num_images"] == num_images
    html = (folder / "report.html").read_text()
    assert "<html" in html
    assert f"{report['map_11pt']:.3f}" in html
    return report


def states(study_path):
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{study_path}")  # the only one
    return [t.state.name for t in study.trials if t.state != optuna.trial.TrialState.WAITING]


def test_train_then_evaluate_without_a_running_ray(tiny_config, voc_root, tmp_path, environment):
    """The job starts a Ray of its own, and ends it; paths are taken from where it was typed."""
    relative = os.path.relpath(voc_root, ROOT)
    arguments = [*flags(tiny_config, relative, tmp_path, "a"), "--epochs", 6]
    done = run_job("train.py", *arguments, env=environment)
    assert done.returncode == 0, done.stderr
    best = read_json(tmp_path / "a" / "best.json")
    assert {"alpha", "l2_lambda", "lr"} <= set(best["config"])
    checkpoint = load_checkpoint(tmp_path / "a" / "best_checkpoint")
    assert best["checkpoint"] == str(tmp_path / "a" / "best_checkpoint")
    assert checkpoint.metrics["map_11pt"] == best["map_11pt"]
    history = load_checkpoint(tmp_path / "a" / "best_checkpoint").history
    assert best["map_11pt"] == max(epoch["map_11pt"] for epoch in history)
    lines = done.stdout.splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 6
    assert lines[-1].startswith("Next: python jobs/evaluate.py")
    assert "dashboard" not in done.stdout  # Ray's own is there for searches and services
    # Of the six checkpoints the two best are kept, and the last, to go on from.
    kept = [load_checkpoint(path.parent) for path in (tmp_path / "a").glob("ray/*/checkpoint.json")]
    kept.sort(key=lambda one: one.epoch)
    assert kept[-1].epoch == 6
    values = sorted(epoch["map_11pt"] for epoch in kept[-1].history)
    assert set(values[-2:]) <= {one.metrics["map_11pt"] for one in kept}
    assert len(kept) <= 3

    evaluated = run_job(
        "evaluate.py", "--experiment", tmp_path / "a", "--data", voc_root, "--out",
        tmp_path / "report", env=environment,
    )  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr
    report = check_report(tmp_path / "report", checkpoint.class_names, 8)
    assert report["leaderboard"] is None
    assert report["timing"]["train_step_ms"]["total"]["median"] > 0
    assert report["law"] is None  # takes --analysis full
    assert read_json(tmp_path / "report" / "trace.json")["traceEvents"]
    assert (tmp_path / "report" / "report.md").read_text().startswith("# ssd")
    assert str(tmp_path / "report" / "report.html") in evaluated.stdout


def test_a_search_that_is_killed_and_resumed(tiny_config, voc_root, tmp_path, ray_server):
    """kill -9 of the driver in the middle: no trial is lost, none is run twice."""
    arguments = [*flags(tiny_config, voc_root, tmp_path, "s"), "--trials", 4, "--epochs", 3]
    study = tmp_path / "s" / "study.db"
    log = tmp_path / "driver.log"
    driver = start_job("tune.py", *arguments, env=ray_server.environment, log=log)

    def one_is_finished():
        return study.exists() and any(s in ("COMPLETE", "PRUNED") for s in _states_or_none(study))

    wait_until(one_is_finished, 150, lambda: f"no trial finished; {log.read_text()}")
    kill(driver)
    before = {i: s for i, s in enumerate(states(study)) if s in ("COMPLETE", "PRUNED")}
    assert len(before) < 4, "the search was over before it was killed"

    again = run_job("tune.py", *arguments, env=ray_server.environment)
    assert again.returncode != 0
    assert "--resume" in again.stderr

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSD_DIST_CACHE", ray_server.environment["SSD_DIST_CACHE"])
        with sole_job(tmp_path / "s"):
            busy = run_job("tune.py", *arguments, "--resume", env=ray_server.environment)
    assert busy.returncode == 1
    assert "is being made by another job" in busy.stderr
    assert busy.stderr.count("\n") == 1

    resumed = run_job("tune.py", *arguments, "--resume", env=ray_server.environment)
    assert resumed.returncode == 0, resumed.stderr
    after = states(study)
    assert len(after) == 4
    assert all(state in ("COMPLETE", "PRUNED") for state in after)
    assert all(after[i] == state for i, state in before.items())

    best = read_json(tmp_path / "s" / "best.json")
    trials = read_json(tmp_path / "s" / "trials.json")
    assert best["map_11pt"] == trials[0]["map_11pt"] == max(t["map_11pt"] for t in trials)
    assert best["config"]["lr"] == trials[0]["parameters"]["lr"]
    assert (
        load_checkpoint(tmp_path / "s" / "best_checkpoint").metrics["map_11pt"]
        == (best["map_11pt"])
    )
    assert "Leaderboard" in resumed.stdout

    # How to watch it is told, and there is something to be seen: no epoch twice, a picture a trial.
    for command in ("python jobs/dashboard.py --experiment", "tensorboard --logdir"):
        assert f"{command} {tmp_path / 's'}" in log.read_text()
    assert "Ray's dashboard: http://" in log.read_text()
    for trial in trials:
        run = tmp_path / "s" / "tensorboard" / "search" / f"trial-{trial['number']:04d}"
        scalars = read_scalars(run, "map_11pt")
        assert scalars == [(i, pytest.approx(v)) for i, v in enumerate(trial["curve"], start=1)]
    assert len(list((tmp_path / "s" / "artifacts").iterdir())) == 4

    once_more = run_job("tune.py", *arguments, "--resume", env=ray_server.environment)
    assert once_more.returncode == 0, once_more.stderr
    assert states(study) == after
    assert read_json(tmp_path / "s" / "best.json") == best

    evaluated = run_job(
        "evaluate.py", "--experiment", tmp_path / "s", "--analysis", "none",
        env=ray_server.environment,
    )  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr
    report = check_report(tmp_path / "s" / "report", trials_classes(tmp_path), 8)
    assert len(report["leaderboard"]) == 4


def trials_classes(tmp_path):
    return load_checkpoint(tmp_path / "s" / "best_checkpoint").class_names


def _states_or_none(study):
    try:
        return states(study)
    except Exception:  # the file is there before its tables are
        return []


def test_trials_of_two_workers(tiny_config, voc_root, tmp_path, ray_server):
    done = run_job(
        "tune.py", *flags(tiny_config, voc_root, tmp_path, "n"), "--trials", 2, "--epochs", 1,
        "--workers-per-trial", 2, env=ray_server.environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trials = read_json(tmp_path / "n" / "trials.json")
    assert [trial["state"] for trial in trials] == ["complete", "complete"]
    assert (tmp_path / "n" / "best_checkpoint" / "model.safetensors").is_file()
    assert len(list((tmp_path / "n" / "artifacts").iterdir())) == 2


def test_a_killed_worker_costs_an_epoch_at_most(tiny_config, voc_root, tmp_path, ray_server):
    arguments = [*flags(tiny_config, voc_root, tmp_path, "k"), "--epochs", 12, "--workers", 2]
    log = tmp_path / "driver.log"
    driver = start_job("train.py", *arguments, env=ray_server.environment, log=log)

    def checkpoints():
        return sorted((tmp_path / "k" / "ray").glob("checkpoint_*/checkpoint.json"))

    wait_until(lambda: len(checkpoints()) > 1, 120, lambda: f"no checkpoint; {log.read_text()}")
    workers = ray_server.named("ray::RayTrainWorker")
    assert workers
    workers[0].kill()
    assert driver.wait(timeout=200) == 0, log.read_text()
    best = read_json(tmp_path / "k" / "best.json")
    assert best["map_11pt"] >= 0
    last = max((load_checkpoint(path.parent) for path in checkpoints()), key=lambda c: c.epoch)
    assert [epoch["epoch"] for epoch in last.history] == list(range(1, 13))
    scalars = read_scalars(tmp_path / "k" / "tensorboard" / "training", "map_11pt")
    assert scalars == [(epoch["epoch"], pytest.approx(epoch["map_11pt"])) for epoch in last.history]


@pytest.mark.parametrize("script", ["train.py", "tune.py"])
def test_mistakes_are_told_in_one_line_and_leave_nothing(
    script, tiny_config, voc_root, tmp_path, ray_server
):
    def refused(*arguments):
        done = run_job(script, *arguments, env=ray_server.environment)
        assert done.returncode != 0
        [line] = done.stderr.strip().splitlines()
        assert line.startswith("error: ")
        return line

    absent = refused(*flags(tiny_config, tmp_path / "absent", tmp_path / "runs", "x"))
    assert str(tmp_path / "absent") in absent
    assert not (tmp_path / "runs").exists()
    missing = refused(*flags(tmp_path / "no.yaml", voc_root, tmp_path / "runs", "x"))
    assert "no.yaml" in missing
    flag = "--workers" if script == "train.py" else "--workers-per-trial"
    many = refused(*flags(tiny_config, voc_root, tmp_path / "runs", "x"), flag, 64)
    assert "64" in many
    assert not (tmp_path / "runs").exists()

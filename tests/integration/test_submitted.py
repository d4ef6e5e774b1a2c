"""`ray job submit`, `ray job logs`, `ray job stop`: a job on a Ray that others use as well."""

import re
import time

import pytest
from clusters import title_of
from outcomes import check_search, checkpoints
from running import read_json, run_job, wait_until

from ssd_dist.checkpoint import load_checkpoint

STOP_WITHIN_S = 30
COORDINATOR = "_AutoscalingCoordinatorActor"
"""Ray's own: the first training starts it, and all that come share it."""


def submit(server, job, script, *arguments):
    server.ray(
        "job", "submit", "--no-wait", "--submission-id", job, "--working-dir", ".", "--",
        "python", f"jobs/{script}", *arguments,
    )  # fmt: skip


def follow(server, job):
    """What the job itself printed, line by line, once it has ended."""
    text = server.ray("job", "logs", "-f", job)
    # Ray's own lines come before and behind it.
    text = text.partition("Running entrypoint for job")[2].partition("\n")[2]
    return re.split(r"\n[^\n]*\t(?:INFO sdk|SUCC cli)\.py", text)[0].splitlines()


@pytest.fixture
def flags(tiny_config, voc_root, tmp_path):
    return ["--config", tiny_config, "--data", voc_root, "--storage", tmp_path, "--name", "s"]


def test_a_submitted_search_tells_what_happens_and_no_more(flags, tmp_path, ray_server):
    submit(ray_server, "read", "tune.py", *flags, "--trials", 2)
    lines = follow(ray_server, "read")
    folder = tmp_path / "s"
    check_search(folder, num_trials=2, num_epochs=3)
    text = "\n".join(lines)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text), repr(text)  # no colours, no bars
    starts = [
        r"data: 24 training and 8 validation pictures, 5 classes \(cross, disc, square, star, tri",
        r"Ray's dashboard: http://127\.0\.0\.1:\d+; it asks for the token that ",
        r"2 trials, 2 at once with 1 cpu worker\(s\) each, in ",
        r"its trials: python jobs/dashboard\.py --experiment ",
        r"its curves: tensorboard --logdir ",
        r"  1/2  trial [01] +mAP 0\.\d{4} \(best 0\.\d{4}\)  (complete|pruned) +after \d epochs ",
        r"  2/2  trial [01] +mAP 0\.\d{4} ",
        r"Leaderboard \(validation 11-point mAP\)",
    ]
    notes = [line for line in lines if line.startswith("note: ")]
    told = [line for line in lines if line not in notes]
    for line, start in zip(told, starts, strict=False):
        assert re.match(start, line), text
    table = told[len(starts) : -2]
    assert all(line[0] in "┏┃┡│└" for line in table), text
    assert sum(line[0] == "│" for line in table) == 2
    best = read_json(folder / "best.json")
    assert told[-2].startswith(f"Best validation mAP {best['map_11pt']:.4f}, trial ")
    assert told[-1].startswith(f"Next: python jobs/evaluate.py --experiment {folder}")
    assert len(set(lines)) == len(lines)


@pytest.mark.parametrize(
    ("workers_per_trial", "num_trials"), [(1, 3), pytest.param(2, 2, marks=pytest.mark.cluster)]
)
def test_a_stopped_search_leaves_nothing_running(
    workers_per_trial, num_trials, flags, tmp_path, ray_server
):
    """Neither a process nor an actor nor a placement group; what it had found is not lost."""
    num_epochs = 20
    more = ["--trials", num_trials, "--epochs", num_epochs]
    more += ["--workers-per-trial", workers_per_trial]
    job, folder = f"stop-{workers_per_trial}", tmp_path / "s"

    def is_new(actor):
        return actor["actor_id"] not in others and actor["class_name"] != COORDINATOR

    def ours():
        """What belongs to this job: not what Ray itself has started since, for all of its jobs, nor
        what Ray Data has left of earlier ones."""
        actors, groups = ray_server.listed("actors"), ray_server.listed("placement-groups")
        new = [p for p in ray_server.processes() if p not in before]
        return [
            *(a for a in actors if a["state"] != "DEAD" and is_new(a)),
            *(g for g in groups if g["state"] != "REMOVED"),
            *(title for title in map(title_of, new) if title and COORDINATOR not in title),
        ]

    before = ray_server.processes()
    others = {actor["actor_id"] for actor in ray_server.listed("actors")}
    submit(ray_server, job, "tune.py", *flags, *more)
    wait_until(
        lambda: any(load_checkpoint(path).epoch > 1 for path in checkpoints(folder)), 150,
        lambda: ray_server.ray("job", "logs", job),
    )  # fmt: skip
    assert ours()
    began = time.monotonic()
    ray_server.ray("job", "stop", job)
    wait_until(lambda: not ours(), began + STOP_WITHIN_S - time.monotonic(), ours)
    print(f"stopped in {time.monotonic() - began:.1f} s")
    assert not (folder / "trials.json").exists(), "it was over before it was stopped"

    submit(ray_server, f"{job}-again", "tune.py", *flags, *more, "--resume")
    text = "\n".join(follow(ray_server, f"{job}-again"))
    assert "Best validation mAP" in text, text
    check_search(folder, num_trials, num_epochs)


@pytest.mark.parametrize("script", ["train.py", "tune.py"])
def test_a_wrong_token_is_told_in_one_line(script, flags, tmp_path, ray_server):
    token = tmp_path / "token"
    token.write_text("f" * 64)
    done = run_job(
        script, *flags, env={**ray_server.environment, "RAY_AUTH_TOKEN_PATH": str(token)}
    )
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert line.startswith(f"error: the Ray at {ray_server.environment['RAY_ADDRESS']} asks for ")
    assert f"another token than that in {token}: take that of its head node" in line
    assert not (tmp_path / "s").exists()

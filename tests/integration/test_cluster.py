"""Clusters of several nodes, emulated on one machine: nodes die, come, and have GPUs to share."""

import json
import subprocess
import sys

import pytest
from clusters import start_ray
from outcomes import check_search, checkpoints, last_history
from running import ROOT, kill, read_json, run_job, start_job, wait_until

from ssd_dist.optimizer import learning_rate

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def head(environment):
    """A Ray whose head trains nothing, as in the cloud."""
    with start_ray(environment, num_cpus=0) as server:
        yield server


@pytest.fixture
def cluster(head):
    """The same, for one test, which adds the nodes that it needs."""
    yield head
    for node in list(head.nodes):
        head.kill_node(node)
    wait_until(lambda: head.num_nodes() == 1, 60, lambda: head.listed("nodes"))


def flags(config, data, storage, name, *more):
    return ["--config", config, "--data", data, "--storage", storage, "--name", name, *more]


@pytest.mark.parametrize(
    ("workers_per_trial", "cpus_per_node"),
    [
        pytest.param(1, 1, id="trials"),
        # Both trials lose a worker. What is left holds one of them, so one has to wait for the
        # other to end; neither may keep what it has and wait for the rest.
        pytest.param(2, 2, id="nested"),
    ],
)
def test_a_node_dies_in_the_middle_of_a_search(
    workers_per_trial, cpus_per_node, tiny_config, voc_root, tmp_path, cluster
):
    log, folder = tmp_path / "driver.log", tmp_path / "s"
    num_trials, num_epochs = (4, 6) if workers_per_trial == 1 else (2, 6)
    node, _ = cluster.add_node(cpus_per_node), cluster.add_node(cpus_per_node)
    driver = start_job(
        "tune.py",
        *flags(tiny_config, voc_root, tmp_path, "s", "--trials", num_trials),
        "--epochs", num_epochs, "--workers-per-trial", workers_per_trial,
        env=cluster.environment, log=log,
    )  # fmt: skip
    wait_until(lambda: checkpoints(folder), 150, log.read_text)
    assert driver.poll() is None, log.read_text()
    cluster.kill_node(node)
    assert driver.wait(timeout=240) == 0, log.read_text()
    assert "2 at once" in log.read_text()
    assert "Traceback" not in log.read_text()
    check_search(folder, num_trials, num_epochs)


def test_a_node_dies_in_the_middle_of_a_training(tiny_config, voc_root, tmp_path, cluster):
    """One of two workers is lost with it, and the other goes on alone."""
    log, folder = tmp_path / "driver.log", tmp_path / "t"
    more = ["--workers", "1..2", "--epochs", 12]
    node, _ = cluster.add_node(1), cluster.add_node(1)
    driver = start_job(
        "train.py", *flags(tiny_config, voc_root, tmp_path, "t", *more),
        env={**cluster.environment, "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "5"}, log=log,
    )  # fmt: skip
    wait_until(lambda: "epoch   3/12" in log.read_text(), 150, log.read_text)
    assert len(cluster.named("ray::RayTrainWorker")) == 2
    cluster.kill_node(node)
    assert driver.wait(timeout=240) == 0, log.read_text()
    assert "note: going on from the last checkpoint with 1 worker(s)" in log.read_text()
    assert "Traceback" not in log.read_text()
    history = last_history(folder)
    assert [epoch["epoch"] for epoch in history] == list(range(1, 13))
    best = read_json(folder / "best.json")
    assert best["map_11pt"] == max(epoch["map_11pt"] for epoch in history)
    # The global batch stayed: as many steps an epoch as before, at the rates that were planned.
    planned = [
        learning_rate(3 * i + 2, peak=1e-3, num_steps=36, warmup_steps=3, name="cosine")
        for i in range(12)
    ]
    assert [epoch["lr"] for epoch in history] == planned


ELASTIC = """
import sys
from pathlib import Path
from ssd_dist.config import load_config, replace_at
from ssd_dist.distributed import train
from ssd_dist.terminal import run_job

train.RESIZE_INTERVAL_S = 3.0
config, data, folder = sys.argv[1:]
config = replace_at(load_config(Path(config)), {"epochs": 1000})
job = lambda terminal: train.run_training(
    config, data, Path(folder), terminal, num_workers=(1, 2)
)
sys.exit(run_job(job))
"""


def test_a_training_grows_with_the_cluster(tiny_config, voc_root, tmp_path, cluster):
    log, folder = tmp_path / "driver.log", tmp_path / "e"
    cluster.add_node(1)
    with log.open("wb") as output:
        driver = subprocess.Popen(
            [sys.executable, "-c", ELASTIC, tiny_config, voc_root, folder],
            env=cluster.environment, cwd=ROOT, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        wait_until(lambda: "epoch   2/1000" in log.read_text(), 150, log.read_text)
        cluster.add_node(1)
        resumed = "going on from the last checkpoint with 2 worker(s)"
        wait_until(lambda: resumed in log.read_text(), 150, log.read_text)

        def num_epochs_with_two():
            return log.read_text().partition(resumed)[2].count("epoch ")

        wait_until(lambda: num_epochs_with_two() >= 3, 90, log.read_text)
    finally:
        kill(driver)
    epochs = [epoch["epoch"] for epoch in last_history(folder)]
    assert epochs == list(range(1, len(epochs) + 1))
    shown = [line.split()[1] for line in log.read_text().splitlines() if line.startswith("epoch")]
    assert len(shown) - len(set(shown)) <= 1  # the epoch under way, if it had been told


SHARED_GPU = """
import json, sys, tempfile, time
from pathlib import Path
import ray
from ray import tune
from ssd_dist.config import load_config
from ssd_dist.distributed import tuner
from ssd_dist.distributed.search import run_search
from ssd_dist.terminal import run_job

def stand_in(suggestion, request):
    began = time.time()
    gpus = ray.get_runtime_context().get_accelerator_ids()["GPU"]
    resources = ray.get_runtime_context().get_assigned_resources()
    time.sleep(4)
    span = {"gpus": gpus, "share": resources["GPU"], "began": began, "ended": time.time()}
    Path(notes, str(suggestion["number"])).write_text(json.dumps(span))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "weights").write_bytes(b"none")
        report = {"epoch": 1, "map_11pt": 0.5}
        tune.report(report, checkpoint=tune.Checkpoint(folder))

config, folder, notes = sys.argv[1:]
tuner.run_trial = stand_in
config = load_config(Path(config))
job = lambda terminal: run_search(
    config, "synthetic", Path(folder), terminal, gpus_per_trial=0.25
)
sys.exit(run_job(job))
"""


def test_trials_share_a_gpu(tiny_config, voc_root, tmp_path, cluster):
    """Of four GPU quarters and eight cores four trials at once make use; with trials that only
    sleep, as the GPU is none."""
    config = tmp_path / "config.yaml"
    config.write_text(tiny_config.read_text().replace("epochs: 3", "epochs: 1"))
    notes = tmp_path / "notes"
    notes.mkdir()
    cluster.add_node(8, num_gpus=1)
    done = subprocess.run(
        [sys.executable, "-c", SHARED_GPU, config, tmp_path / "g", notes],
        env=cluster.environment, cwd=ROOT, capture_output=True, text=True, timeout=200,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    refused = run_job(
        "tune.py", *flags(config, voc_root, tmp_path, "x"), "--gpus-per-trial", 0.25,
        "--concurrent", 5, env=cluster.environment,
    )  # fmt: skip
    assert "4 trials, 4 at once with 1 cuda worker(s) each" in done.stdout
    spans = [json.loads(path.read_text()) for path in notes.iterdir()]
    assert len(spans) == 4
    assert all(span["gpus"] == ["0"] and span["share"] == 0.25 for span in spans)
    assert max(span["began"] for span in spans) < min(span["ended"] for span in spans)
    [line] = refused.stderr.strip().splitlines()
    assert line.startswith(
        "error: 5 trials at once with 1 worker(s) each need 5 times 0.25 of a GPU"
    )
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--gpus-per-trial", 0.25], "this Ray has no GPU"),
        (["--concurrent", 2, "--workers-per-trial", 2], "need 4 CPU cores, and this Ray has 2"),
    ],
)
def test_what_can_never_run_is_refused(more, words, tiny_config, voc_root, tmp_path, ray_server):
    done = run_job(
        "tune.py", *flags(tiny_config, voc_root, tmp_path, "x", *more), env=ray_server.environment
    )
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert not (tmp_path / "x").exists()

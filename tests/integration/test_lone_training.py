"""A training that starts its own Ray: what it goes without, and that it recovers all the same."""

import signal
import tempfile
from pathlib import Path

import psutil
import pytest
from running import kill, run_job, start_job, wait_until

from ssd_dist.checkpoint import load_checkpoint

EPOCHS = 40
"""More than go by, of a tenth of a second to a second each, until a worker is killed."""


@pytest.fixture
def ray_folder():
    """Where its Ray keeps its files: a short path, as sockets are among them."""
    with tempfile.TemporaryDirectory(prefix="ssd_dist_", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def start(tiny_config, voc_root, tmp_path, environment, ray_folder):
    """Starts the training; the job, and its processes by a part of their titles."""
    arguments = [
        "--config", tiny_config, "--data", voc_root, "--storage", tmp_path, "--name", "lone",
        "--epochs", EPOCHS, "--workers", 2,
    ]  # fmt: skip

    def start():
        job = start_job(
            "train.py",
            *arguments,
            env={**environment, "RAY_TMPDIR": str(ray_folder)},
            log=tmp_path / "driver.log",
        )
        root = psutil.Process(job.pid)

        def named(part):
            found = []
            for process in root.children(recursive=True):
                try:
                    if part in " ".join(process.cmdline()):
                        found.append(process)
                except psutil.Error:
                    continue
            return found

        return job, named

    start.arguments = arguments
    return start


@pytest.fixture
def log(tmp_path):
    return (tmp_path / "driver.log").read_text


@pytest.fixture
def history(tmp_path):
    """Finished epochs by the newest checkpoint."""

    def history():
        files = list((tmp_path / "lone" / "ray").glob("checkpoint_*/checkpoint.json"))
        checkpoints = [load_checkpoint(file.parent) for file in files]
        return max((one.history for one in checkpoints), key=len, default=())

    return history


def test_it_has_few_processes_and_survives_the_end_of_a_worker(
    start, log, history, tmp_path, ray_folder
):
    job, named = start()
    files = tmp_path / "lone" / "ray"
    cores = psutil.Process().cpu_affinity()
    if len(cores) == 2:
        # For five seconds at least; one that has to wait for its core gives it up.
        wait_until(
            lambda: (
                sorted(worker.cpu_affinity() for worker in named("ray::RayTrainWorker"))
                == [[core] for core in cores]
            ),
            150,
            log,
        )
    # Ray knows of a checkpoint a while after it is there.
    wait_until((files / "checkpoint_manager_snapshot.json").exists, 150, log)
    for part in (
        "PlacementGroupCleaner", "AutoscalingCoordinator", "_Janitor", "Controller", "Synchroniz",
        "dashboard.py", "monitor.py", "log_monitor.py",
    ):  # fmt: skip
        assert named(part) == []
    workers = named("ray::RayTrainWorker")
    assert len(workers) == 2
    workers[0].kill()
    assert job.wait(timeout=200) == 0, log()
    assert [epoch["epoch"] for epoch in history()] == list(range(1, EPOCHS + 1))
    lines = [line for line in log().splitlines() if line.startswith("epoch ")]
    # No epoch's line is lost; that under way may be told again.
    told = sorted({int(line.split()[1].partition("/")[0]) for line in lines})
    assert told == list(range(1, EPOCHS + 1))
    assert "note: going on from the last checkpoint with 2 worker(s)" in log()
    # The agent fails to report the end of the worker, once, and not again and again to find whom
    # to report to.
    (agent,) = ray_folder.glob("ray/session_2*/logs/dashboard_agent.log")
    assert "Get dashboard http address failed" not in agent.read_text()


def test_asked_to_end_it_leaves_nothing_running_and_goes_on_later(
    start, log, history, environment, tmp_path
):
    job, named = start()
    files = tmp_path / "lone" / "ray"
    wait_until(lambda: len(list(files.glob("checkpoint_*/checkpoint.json"))) > 1, 150, log)
    processes = named("ray")
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=60) != 0
    assert "go on with it by --resume" in log()
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert alive == []
    # As many workers as there is room for, up to two.
    arguments = [*start.arguments[:-1], "1..2", "--resume"]
    done = run_job("train.py", *arguments, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert [epoch["epoch"] for epoch in history()] == list(range(1, EPOCHS + 1))


def test_what_trains_and_leads_ends_with_a_job_that_was_killed(start, log):
    job, named = start()
    wait_until(lambda: len(named("ray::RayTrainWorker")) == 2, 150, log)
    # Ray's own agents outlive its raylet.
    agents = [*named("ray::DashboardAgent"), *named("ray::RuntimeEnvAgent")]
    others = [one for one in named("ray") if one not in agents]
    assert any("raylet" in " ".join(one.cmdline()) for one in others)
    kill(job)
    _, alive = psutil.wait_procs(others, timeout=60)
    for agent in agents:
        agent.kill()
    assert alive == []

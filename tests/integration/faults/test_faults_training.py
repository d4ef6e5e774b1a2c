"""One training after fault upon fault: it ends as if nothing had been."""

import time

import pytest
from comparisons import differences_to_undisturbed
from injections import (
    Job,
    assert_nothing_remains,
    await_watchdog,
    gone,
    hang,
    kill,
    logs_with,
    running_environment,
)
from outcomes import checkpoints, last_history

from ssd_dist.checkpoint import load_training_state

EPOCHS = 80  # long enough for all faults on a fast machine: 0.4 s an epoch
HANG_TIMEOUT_S = 6


@pytest.fixture(scope="module")
def training(tiny_config, voc_root, tmp_path_factory, ray_server):
    """A training of one worker whose epochs have 24 steps."""
    config = tmp_path_factory.mktemp("config") / "long.yaml"
    config.write_text(
        tiny_config.read_text().replace("global_batch_size: 8", "global_batch_size: 1")
    )
    storage = tmp_path_factory.mktemp("runs")
    job = Job(
        "train.py",
        [
            *("--config", config, "--data", voc_root, "--storage", storage, "--name", "t"),
            *("--workers", 1, "--epochs", EPOCHS, "--hang-timeout", HANG_TIMEOUT_S),
        ],
        running_environment(ray_server.environment),
        storage / "t",
        storage / "log",
    )
    job.start()
    return job


def test_a_training_goes_on_after_each_fault(training, voc_root, tmp_path, ray_server):
    training.await_epochs()
    kill(training.workers(ray_server)[0])

    training.await_epochs()
    hung = training.workers(ray_server)[0]
    hang(hung)
    await_watchdog(hung, HANG_TIMEOUT_S + 20)
    [log] = logs_with(ray_server, f"worker {hung.pid} has made no step for")
    assert "Thread 0x" in log
    assert "training.py" in log  # where it was

    training.await_epochs()
    ended = training.workers(ray_server)[0]
    ended.terminate()
    ended.wait(20)
    [state] = training.interrupted()  # within 20 s
    assert 0 < load_training_state(state)["epoch_part"]["num_steps"] <= 24

    training.await_epochs()
    assert training.interrupted() == []  # it went on from there, and is beyond it
    with gone(training.folder):
        time.sleep(4)
    training.await_epochs()
    training.driver.terminate()
    assert training.wait(30) == 1
    [error] = [line for line in training.printed().splitlines() if line.startswith("error: ")]
    assert "SIGTERM" in error
    assert len(training.interrupted()) == 1

    training.start()
    training.await_epochs()
    kill(training.driver)
    training.start()
    assert training.wait() == 0, training.printed()

    assert [epoch["epoch"] for epoch in last_history(training.folder)] == list(range(1, EPOCHS + 1))
    kept = checkpoints(training.folder)
    assert differences_to_undisturbed(kept, str(voc_root), tmp_path) == []
    assert training.interrupted() == []
    assert_nothing_remains(ray_server)

"""One search after fault upon fault: no trial is lost, none is run twice, none ends otherwise."""

import time

import pytest
import yaml
from comparisons import differences_to_undisturbed, finished_trials, wrong_in_search
from injections import (
    Job,
    assert_nothing_remains,
    await_watchdog,
    gone,
    hang,
    kill,
    running_environment,
)
from outcomes import checkpoints
from running import read_json

TRIALS, EPOCHS = 6, 40  # long enough for all faults on a fast machine: 0.2 s an epoch
HANG_TIMEOUT_S = 6
HUGE = 10**12
"""Channels that no machine has the memory for: 256 TB for the first layer's weights."""


@pytest.fixture(scope="module")
def search(tiny_config, voc_root, tmp_path_factory, ray_server):
    """Six trials, two at once; one of them is too large for any memory."""
    config = yaml.safe_load(tiny_config.read_text())
    config["epochs"] = EPOCHS
    config["search"] |= {
        "trials": TRIALS,
        "sampler": "grid",
        "pruner": "none",
        "space": {
            "model.neck_channels": {"choices": [16, HUGE]},
            "lr": {"choices": [1e-4, 1e-3, 1e-2]},
        },
    }
    storage = tmp_path_factory.mktemp("runs")
    path = storage / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    job = Job(
        "tune.py",
        [
            *("--config", path, "--data", voc_root, "--storage", storage, "--name", "s"),
            *("--hang-timeout", HANG_TIMEOUT_S),
        ],
        running_environment(ray_server.environment),
        storage / "s",
        storage / "log",
    )
    job.start()
    return job


def test_a_search_goes_on_after_each_fault(search, voc_root, tmp_path, ray_server):
    search.await_epochs(2)
    kill(search.workers(ray_server)[0])

    search.await_epochs(2)
    hung = search.workers(ray_server)[-1]
    hang(hung)
    await_watchdog(hung, HANG_TIMEOUT_S + 20)

    search.await_epochs(2)
    with gone(search.folder):
        time.sleep(5)
    search.await_epochs(1)

    search.driver.terminate()
    assert search.wait(30) == 1
    [error] = [line for line in search.printed().splitlines() if line.startswith("error: ")]
    assert "SIGTERM" in error
    before = finished_trials(search.folder)

    search.start()
    assert search.wait() == 0, search.printed()
    assert wrong_in_search(search.folder, before, TRIALS) == []
    trials = read_json(search.folder / "trials.json")
    states = {t["number"]: t["state"] for t in trials}
    too_large = [t for t in trials if t["parameters"]["model.neck_channels"] == HUGE]
    assert [states[t["number"]] for t in too_large] == ["failed"] * 3
    for trial in too_large:
        assert trial["error"].startswith("out of memory with 8 pictures of 64 pixels a step")
        assert f"note: trial {trial['number']} failed: out of memory" in search.printed()
    others = [t for t in trials if t not in too_large]
    assert [t["epochs"] for t in others] == [EPOCHS] * 3
    for trial in others:
        kept = [
            p
            for p in checkpoints(search.folder)
            if p.parent.name.endswith(f"{trial['number']:04d}")
        ]
        assert differences_to_undisturbed(kept, str(voc_root), tmp_path) == []
    assert search.interrupted() == []
    assert_nothing_remains(ray_server)

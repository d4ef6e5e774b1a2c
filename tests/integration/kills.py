"""Kills the driver of a search again and again, and counts what is left.

python tests/integration/kills.py [--kills 5] [--trials 12] [--seed 0]

Each time `kill -9` comes at a random moment, and the search goes on by `--resume`. At the end every
trial must be there once, in trials.json as in the study; none that was finished at a kill may have
changed since. Ends with status 1 and says what is wrong, if anything is.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
import yaml
from comparisons import finished_trials, wrong_in_search

ROOT = Path(__file__).parents[2]
EPOCHS = 80
CONFIG = {
    "lr": 1e-3,
    "epochs": EPOCHS,
    "global_batch_size": 8,
    "model": {
        "backbone": "test_resnet.r160_in1k",
        "image_size": 64,
        "feature_strides": [8, 16],
        "neck_channels": 16,
        "num_extra_maps": 0,
    },
    "optimizer": {"name": "adamw"},
    "search": {"grace_epochs": 1, "repeats": {"top_k": 0}},
}
_EARLIEST_S, _LATEST_S = 2.0, 40.0
"""When a kill comes, after the start of the driver. It takes ten seconds until the first epoch."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Kill a search at random moments, resume it each time, and check what is left."""

    kills: int = 5
    """How often."""
    trials: int = 12
    """Trials of the search."""
    seed: int = 0
    """Of the moments."""


def main(arguments: Arguments) -> list[str]:
    """Runs, kills, resumes, checks; what is wrong, in sentences."""
    moments = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as storage:
        config = Path(storage) / "config.yaml"
        config.write_text(yaml.safe_dump(CONFIG))
        folder = Path(storage) / "search"
        command = [sys.executable, "jobs/tune.py", "--config", str(config), "--storage", storage]
        command += ["--name", folder.name, "--trials", str(arguments.trials)]
        finished: dict[int, tuple[object, ...]] = {}
        num_kills = 0
        while num_kills < arguments.kills:
            delay = moments.uniform(_EARLIEST_S, _LATEST_S)
            if killed_after(delay, command, resume=(folder / "experiment.json").exists()):
                num_kills += 1
                changed = {
                    n for n, was in finished.items() if finished_trials(folder).get(n) != was
                }
                if changed:
                    return [f"trials {sorted(changed)} were finished, and have changed"]
                finished = finished_trials(folder)
                print(f"kill {num_kills} after {delay:.1f} s: {len(finished)} finished", flush=True)
            else:
                print("the search was over before the next kill")
                break
        resume = ["--resume"] if (folder / "experiment.json").exists() else []
        last = subprocess.run([*command, *resume], cwd=ROOT, capture_output=True, text=True)
        if last.returncode != 0:
            return [f"the last resume failed: {last.stderr.strip()}"]
        return wrong_in_search(folder, finished, arguments.trials)


def killed_after(seconds: float, command: list[str], *, resume: bool) -> bool:
    """Starts the driver and kills it; False if it ended before."""
    driver = subprocess.Popen(
        [*command, "--resume"] if resume else command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        driver.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        time.sleep(1.0)  # its Ray notices, and ends
        return True
    return False


if __name__ == "__main__":
    arguments = tyro.cli(Arguments)
    began = time.perf_counter()
    wrong = main(arguments)
    print("\n".join(wrong) or f"{arguments.trials} trials, each there once", end="")
    print(f"; {time.perf_counter() - began:.0f} s")
    sys.exit(1 if wrong else 0)

"""How the integration tests run the jobs: as a user does, in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).parent / "ray"


def run_job(script: str, *arguments: object, env: dict[str, str], timeout: float = 240):
    """`python jobs/<script> …` as a user types it; the finished process with its output."""
    command = [sys.executable, f"jobs/{script}", *map(str, arguments)]
    return subprocess.run(
        command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
    )


def start_job(script: str, *arguments: object, env: dict[str, str], log: Path) -> subprocess.Popen:
    """The same, not waited for; in a process group of its own. What it prints goes to `log`."""
    command = [sys.executable, f"jobs/{script}", *map(str, arguments)]
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            env=env,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A shell that runs the tests in the background has its children ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def kill(process: subprocess.Popen) -> None:
    """kill -9, and wait."""
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=30)


def wait_until(condition, timeout: float, what) -> None:
    """Polls until `condition()` is true; after `timeout` seconds fails with what `what()` says."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {timeout} s: {what()}")
        time.sleep(0.2)


def read_scalars(run: Path, tag: str) -> list[tuple[int, float]]:
    """(step, value) of a run in an experiment's event files, as TensorBoard shows them."""
    accumulator = EventAccumulator(str(run))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def read_json(path: Path):
    return json.loads(path.read_text())

"""A worker that hangs is ended by a process that watches it: real processes, real signals."""

import re
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from ssd_dist.config import Config
from ssd_dist.distributed.search import run_search
from ssd_dist.distributed.train import run_training
from ssd_dist.distributed.watchdog import Watchdog, check_limit
from ssd_dist.terminal import Terminal

WORK = """
import sys, time
from ssd_dist.distributed import watchdog
from ssd_dist.distributed.watchdog import Watchdog

watchdog.START_S = {start_s}

def step():
    time.sleep(0.05)

with Watchdog({limit}) as watchdog:
    for _ in range({steps}):
        step()
        watchdog.sign_of_life()
        print("step", flush=True)
    {then}
print("over", flush=True)
"""


def start(*, limit, steps, then="pass", start_s=1800.0):
    code = textwrap.dedent(WORK).format(limit=limit, steps=steps, then=then, start_s=start_s)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_one_that_waits_for_ever_is_ended_with_its_stack():
    worker = start(limit=1.0, steps=3, then="time.sleep(1000)  # the place")
    _, log = worker.communicate(timeout=60)
    assert worker.returncode == -signal.SIGKILL
    assert f"worker {worker.pid} has made no step for" in log
    assert 'File "<string>", line 16 in <module>' in log


def test_one_that_is_stopped_is_ended_too():
    worker = start(limit=1.0, steps=10_000)
    for _ in range(5):
        assert worker.stdout.readline() == "step\n"
    worker.send_signal(signal.SIGSTOP)
    _, log = worker.communicate(timeout=60)
    assert worker.returncode == -signal.SIGKILL
    # Wherever in its loop the signal met it.
    assert re.search(r'File "<string>", line (12|13|14|15) in <module>', log), log


def test_what_comes_before_the_first_steps_end_may_take_longer():
    worker = start(limit=0.5, steps=1, then="time.sleep(2)")
    said, log = worker.communicate(timeout=60)
    assert worker.returncode == 0, log
    assert said.endswith("over\n")


def test_but_not_for_ever():
    worker = start(limit=0.5, steps=1, then="time.sleep(1000)", start_s=1.0)
    _, log = worker.communicate(timeout=60)
    assert worker.returncode == -signal.SIGKILL
    assert "has made no step for" in log


def test_zero_watches_nobody():
    worker = start(limit=0, steps=3, then="time.sleep(2)")
    said, log = worker.communicate(timeout=60)
    assert worker.returncode == 0, log
    assert said.endswith("over\n")


def test_the_watching_process_ends_with_what_it_watches():
    worker = start(limit=100.0, steps=10_000)
    worker.stdout.readline()
    [watching] = psutil.Process(worker.pid).children()
    worker.kill()
    worker.communicate()
    watching.wait(10)

    with Watchdog(100.0) as watchdog:
        process = watchdog._process
        assert process.poll() is None
    assert process.poll() is not None


@pytest.mark.parametrize("given", [None, 7.0])
def test_the_limit_is_the_users_or_goes_by_what_was_seen(given, monkeypatch):
    sent = []
    now = iter([0.0, 1.0, 31.0, 32.5])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    monkeypatch.setattr("os.write", lambda descriptor, data: sent.append(float(data)))
    watchdog = Watchdog(given)
    watchdog._process = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    for _ in range(4):
        watchdog.sign_of_life()
    watchdog._process.communicate()
    # Pauses of 1, 30 and 1.5 seconds.
    assert sent == ([300.0, 600.0, 600.0] if given is None else [7.0] * 3)


@pytest.mark.parametrize("run", [run_training, run_search])
@pytest.mark.parametrize("limit", [-5.0, 0.5, 1.0, float("nan")])
def test_a_limit_that_would_end_workers_that_are_well_is_refused(limit, run, tmp_path):
    told = f"--hang-timeout must be 0, for never, or at least 5, not {limit:g}$"
    with pytest.raises(ValueError, match=told):
        run(Config(), "synthetic", tmp_path, Terminal(), hang_timeout_s=limit)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [None, 0, 5, 7.5, float("inf")])
def test_other_limits_are_taken(limit):
    check_limit(limit)

"""Workers keep to a core each, as long as it is theirs. In processes of their own: an affinity is
of the whole process."""

import os
import subprocess
import sys

import pytest

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
pytestmark = pytest.mark.skipif(CORES < 2, reason="needs two cores, on Linux")

BEGIN = """
import contextlib, os, subprocess, sys, threading, time
from pathlib import Path
from ssd_dist.distributed.own_core import own_core

cores = sorted(os.sched_getaffinity(0))

def of_all_threads():
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # that which looks has just ended
            found.add(tuple(sorted(os.sched_getaffinity(int(task.name)))))
    return found

threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + program],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_threads_keep_to_the_core_and_get_the_others_back():
    run("""
with own_core(1, len(cores)):
    assert of_all_threads() == {(cores[1],)}
assert of_all_threads() == {tuple(cores)}
""")


def test_fewer_workers_than_cores_are_left_to_the_system():
    run("""
with own_core(0, len(cores) - 1):
    assert of_all_threads() == {tuple(cores)}
""")


def test_a_core_that_somebody_else_is_at_work_on_is_given_up():
    run("""
hog = subprocess.Popen([sys.executable, "-c",
    f"import os\\nos.sched_setaffinity(0, [{cores[0]}])\\nwhile True: pass"])
try:
    with own_core(0, len(cores), look_every_s=0.5):
        end = time.monotonic() + 60
        while of_all_threads() != {tuple(cores)}:
            assert time.monotonic() < end, "still there"
finally:
    hog.kill()
""")


def test_a_core_of_one_s_own_is_kept():
    run("""
with own_core(0, len(cores), look_every_s=0.1):
    time.sleep(1)  # ready to run for a moment only, whatever else this machine does
    assert of_all_threads() == {(cores[0],)}
""")

"""Two jobs on one experiment: the second is refused, until the first has ended, however."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from ssd_dist.sole_job import sole_job

HOLDER = """
import sys, time
from pathlib import Path
from ssd_dist.sole_job import sole_job
with sole_job(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSD_DIST_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_second_job_is_refused_until_the_first_has_ended(tmp_path, end):
    folder = tmp_path / "runs/mine"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(FileExistsError, match=f"{folder} is being made"), sole_job(folder):
            pytest.fail("two at once")
        with sole_job(tmp_path / "runs/other"):
            pass
        first.send_signal(end)
        first.wait()
    with sole_job(folder):
        pass
    assert not folder.exists()


def test_an_error_ends_it_as_well(tmp_path):
    with pytest.raises(RuntimeError), sole_job(tmp_path):
        raise RuntimeError
    with sole_job(tmp_path):
        pass


def test_a_link_is_the_same_experiment(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with (
        sole_job(tmp_path / "real"),
        pytest.raises(FileExistsError, match="another job"),
        sole_job(tmp_path / "link"),
    ):
        pass

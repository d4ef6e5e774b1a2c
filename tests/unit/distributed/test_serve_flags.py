"""What `jobs/serve.py` refuses before it reads a detector."""

import importlib.util
import sys
from pathlib import Path

import pytest

from ssd_dist.terminal import Terminal

pytest.importorskip("fastapi_offline", reason="the extra `serve` is not installed")
JOB = Path(__file__).parents[3] / "jobs" / "serve.py"


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_a_port_that_there_is_not_is_refused(port, monkeypatch):
    """The system would take one 65536 lower, without a word."""
    spec = importlib.util.spec_from_file_location("serve_job", JOB)
    job = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "serve_job", job)  # dataclasses look there
    spec.loader.exec_module(job)
    with pytest.raises(ValueError, match=f"--port must be from 0 to 65535, not {port}"):
        job.main(job.Arguments(port=port), Terminal())

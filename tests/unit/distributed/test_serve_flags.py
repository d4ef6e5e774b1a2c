"""What `jobs/serve.py` refuses before it reads a detector."""

import pytest

from ssd_dist.terminal import Terminal

pytest.importorskip("fastapi_offline", reason="the extra `serve` is not installed")


@pytest.fixture
def job(load_job):
    return load_job("serve")


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_a_port_that_there_is_not_is_refused(port, job):
    """The system would take one 65536 lower, without a word."""
    with pytest.raises(ValueError, match=f"--port must be from 0 to 65535, not {port}"):
        job.main(job.Arguments(port=port), Terminal())


@pytest.mark.parametrize(
    ("workers", "sentence"),
    [
        ({"min_workers": 3, "max_workers": 1}, "at least 1 and at most --max-workers 1, not 3"),
        ({"min_workers": 0}, "at least 1, not 0"),
    ],
)
def test_workers_that_do_not_fit_each_other_are_refused(workers, sentence, job, tmp_path):
    with pytest.raises(ValueError, match=f"--min-workers must be {sentence}"):
        job.main(job.Arguments(checkpoint=str(tmp_path), **workers), Terminal())

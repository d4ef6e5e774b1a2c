"""What is to be a folder of this machine can't be a bucket: the jobs say so."""

import pytest
import tyro

from ssd_dist.terminal import Terminal


@pytest.mark.parametrize("job", ["evaluate", "predict", "export"])
def test_results_go_to_a_folder(job, load_job, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(load_job(job), "--out", "s3://bucket/results")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("job", ["evaluate", "predict", "export", "serve"])
def test_a_single_checkpoint_comes_from_a_folder(job, load_job):
    if job == "serve":
        pytest.importorskip("fastapi_offline", reason="the extra `serve` is not installed")
    refused(load_job(job), "--checkpoint", "gs://bucket/checkpoint")


def refused(job, flag, uri):
    arguments = tyro.cli(job.Arguments, args=[flag, uri])
    with pytest.raises(ValueError, match=f"^{uri}: a folder is needed here; buckets are for "):
        job.main(arguments, Terminal())

import os
import tempfile

import pytest
from strangers_bucket import strangers_bucket

from ssd_dist.distributed.buckets import (
    BucketError,
    below,
    check_uri,
    is_directory,
    is_uri,
    local_copy,
    located,
    open_location,
    reason,
    shown_location,
)
from ssd_dist.distributed.mirror import pull

MINIO = "s3://bucket/runs?endpoint_override=http://minio:9000"


@pytest.mark.parametrize(
    ("location", "inside"),
    [
        ("/data/runs", "/data/runs/a/ray"),
        ("s3://bucket/runs", "s3://bucket/runs/a/ray"),
        ("s3://bucket/runs/", "s3://bucket/runs/a/ray"),
        ("s3://bucket", "s3://bucket/a/ray"),
        (MINIO, "s3://bucket/runs/a/ray?endpoint_override=http://minio:9000"),
    ],
)
def test_below_keeps_a_uris_options(location, inside):
    assert below(location, "a", "ray") == inside


@pytest.mark.parametrize("storage", ["/data/runs", "s3", f"{MINIO}&region=x", "gs://anonymous@b/x"])
def test_rays_path_and_ours_name_the_same_place(storage, bucket):
    """Law: what pyarrow makes of a location, `located` undoes."""
    storage = bucket if storage == "s3" else storage
    inside = below(storage, "ray", "checkpoint_000001")
    _, path = open_location(inside)
    assert located(path, storage) == inside


@pytest.mark.parametrize(
    "location",
    [
        "hdfs://node/runs",
        "file:///data",
        "s3://",
        "s3:///runs",
        "http://host/x",
        "s3://b/../x",
        "s3://b/x#1",
    ],
)
def test_other_uris_are_refused_with_what_to_give(location):
    with pytest.raises(ValueError, match="give a folder, s3://bucket/folder or gs://"):
        check_uri(location)


def test_keys_in_a_uri_are_refused_and_not_repeated():
    with pytest.raises(ValueError, match="AWS_ACCESS_KEY_ID") as caught:
        check_uri("s3://AKIA:hush@bucket/runs")
    assert "hush" not in str(caught.value)
    assert shown_location("s3://AKIA:hush@bucket/runs") == "s3://***@bucket/runs"


def test_a_folder_is_its_own_copy(tmp_path):
    assert not is_uri(str(tmp_path))
    assert is_directory(str(tmp_path))
    assert not is_directory(str(tmp_path / "absent"))
    with local_copy(str(tmp_path)) as folder:
        assert folder == tmp_path


def test_a_copy_from_a_bucket(bucket, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    filesystem, path = open_location(below(bucket, "checkpoint"))
    with filesystem.open_output_stream(f"{path}/nested/a.txt") as stream:
        stream.write(b"a")
    assert is_directory(below(bucket, "checkpoint"))
    assert not is_directory(below(bucket, "other"))
    with local_copy(below(bucket, "checkpoint")) as folder:
        assert (folder / "nested" / "a.txt").read_text() == "a"
    assert not folder.exists()
    with (
        pytest.raises(FileNotFoundError, match=r"s3://.*/other is gone"),
        local_copy(below(bucket, "other")),
    ):
        pass


@pytest.mark.parametrize("name", ["../../stray", "nested/../../stray", "./stray", "nested//stray"])
def test_a_strangers_bucket_writes_nowhere_else(name, tmp_path, monkeypatch):
    """A store may hold an object of any name."""
    monkeypatch.setenv("SSD_DIST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with strangers_bucket({"m/best.json": b"{}", f"m/checkpoint/{name}": b"stray"}) as uri:
        with pytest.raises(BucketError, match=f"object 'strange/m/checkpoint/{name}' can't be"):
            pull(uri("m"))
        with (
            pytest.raises(BucketError, match=f"object 'strange/m/checkpoint/{name}' can't be"),
            local_copy(uri("m/checkpoint")),
        ):
            pytest.fail("it was copied")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_strangers_bucket_is_copied(tmp_path, monkeypatch):
    monkeypatch.setenv("SSD_DIST_CACHE", str(tmp_path))
    with strangers_bucket({"m/best.json": b"{}", "m/checkpoint/nested/a": b"a"}) as uri:
        assert (pull(uri("m")) / "checkpoint" / "nested" / "a").read_bytes() == b"a"
        with local_copy(uri("m/checkpoint")) as folder:
            assert (folder / "nested" / "a").read_bytes() == b"a"


def test_the_gist_of_an_error(bucket):
    filesystem, _ = open_location(bucket)
    with pytest.raises(OSError, match="NO_SUCH_BUCKET") as caught:
        filesystem.open_output_stream("absent-bucket/a")
    gist = reason(caught.value)
    assert gist.startswith("AWS Error NO_SUCH_BUCKET")
    assert "Request ID" not in gist
    assert reason(OSError(28, "x")) == os.strerror(28)
    assert reason(OSError()) == "OSError"

"""Experiments in a bucket, and the check of a storage from every node."""

import shutil
import subprocess
import uuid

import optuna
import pytest
from clusters import start_ray
from moto.server import ThreadedMotoServer
from pyarrow.fs import FileSelector, S3FileSystem
from running import kill, run_job, start_job, wait_until

pytestmark = pytest.mark.cluster

OBJECTS = "trials.json", "best.json", "study.db", "best_checkpoint/model.safetensors"


@pytest.fixture(scope="module")
def s3():
    """An S3 of the tests' own; the environment that leads there."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    server.stop()


@pytest.fixture(scope="module")
def filesystem(s3):
    return S3FileSystem(
        access_key="key",
        secret_key="secret",
        endpoint_override=s3["AWS_ENDPOINT_URL"].removeprefix("http://"),
        scheme="http",
        allow_bucket_creation=True,
    )


@pytest.fixture(scope="module")
def two_nodes(environment, s3):
    """A Ray of two nodes with a core each, which both know the S3."""
    with start_ray({**environment, **s3}, num_cpus=1) as server:
        server.add_node(1)
        yield server


def read(filesystem, path):
    with filesystem.open_input_stream(path) as stream:
        return stream.read()


def test_a_search_in_a_bucket_outlives_its_machine(
    tiny_config, voc_root, tmp_path, two_nodes, filesystem
):
    """kill -9 of the driver; what its machine had is gone; another one goes on from the bucket."""
    filesystem.create_dir("bucket")
    first = {**two_nodes.environment, "SSD_DIST_CACHE": str(tmp_path / "first")}
    second = {**two_nodes.environment, "SSD_DIST_CACHE": str(tmp_path / "second")}
    arguments = [
        "--config", tiny_config, "--data", voc_root, "--storage", "s3://bucket/runs", "--name", "s",
        "--trials", 3, "--epochs", 3, "--top-k", 0,
    ]  # fmt: skip
    log = tmp_path / "driver.log"
    driver = start_job("tune.py", *arguments, env=first, log=log)

    def finished():
        """The finished trials that the bucket knows of."""
        if filesystem.get_file_info("bucket/runs/s/study.db").type.name != "File":
            return {}
        copy = tmp_path / f"{uuid.uuid4().hex}.db"
        copy.write_bytes(read(filesystem, "bucket/runs/s/study.db"))
        study = optuna.load_study(study_name=None, storage=f"sqlite:///{copy}")
        return {t.number: t.values for t in study.trials if t.state.name in ("COMPLETE", "PRUNED")}

    wait_until(lambda: finished() or driver.poll() is not None, 240, log.read_text)
    assert driver.poll() is None, log.read_text()
    kill(driver)
    before = finished()
    assert len(before) < 3
    shutil.rmtree(tmp_path / "first")

    resumed = run_job("tune.py", *arguments, "--resume", env=second)
    assert resumed.returncode == 0, resumed.stderr
    after = finished()
    assert len(after) == 3
    assert all(after[number] == values for number, values in before.items())
    assert all(filesystem.get_file_info(f"bucket/runs/s/{o}").size > 0 for o in OBJECTS)
    checkpoints = filesystem.get_file_info(FileSelector("bucket/runs/s/ray", recursive=True))
    assert any(info.base_name == "model.safetensors" for info in checkpoints)

    experiment = "s3://bucket/runs/s"
    assert f"Next: python jobs/evaluate.py --experiment {experiment}" in resumed.stdout
    again = run_job("tune.py", *arguments, env=second)
    assert "exists already" in again.stderr
    third = {**two_nodes.environment, "SSD_DIST_CACHE": str(tmp_path / "third")}
    evaluated = run_job("evaluate.py", "--experiment", experiment, "--analysis", "none", env=third)
    assert evaluated.returncode == 0, evaluated.stderr
    assert b"leaderboard" in read(filesystem, "bucket/runs/s/report/report.json")


def test_a_training_of_two_nodes_in_a_bucket(
    tiny_config, voc_root, tmp_path, two_nodes, filesystem
):
    filesystem.create_dir("other")
    environment = {**two_nodes.environment, "SSD_DIST_CACHE": str(tmp_path / "cache")}
    done = run_job(
        "train.py", "--config", tiny_config, "--data", voc_root, "--storage", "s3://other",
        "--name", "t", "--workers", 2, "--epochs", 1, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b'"map_11pt"' in read(filesystem, "other/t/best.json")
    names = {info.path for info in filesystem.get_file_info(FileSelector("other/t"))}
    assert not any("storage-check" in name for name in names)


def test_a_bucket_that_is_not_there_is_told_before_anything(
    tiny_config, voc_root, tmp_path, two_nodes
):
    environment = {**two_nodes.environment, "SSD_DIST_CACHE": str(tmp_path / "cache")}
    done = run_job(
        "train.py", "--config", tiny_config, "--data", voc_root, "--storage", "s3://no-bucket",
        "--name", "t", env=environment,
    )  # fmt: skip
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert "s3://no-bucket/t" in line
    assert "NO_SUCH_BUCKET" in line or "RESOURCE_NOT_FOUND" in line or "not found" in line


def _check(two_nodes, folder):
    """check_storage in a process of its own; what it says."""
    code = (
        "import sys, ray\n"
        "from ssd_dist.distributed.storage_check import check_storage\n"
        "ray.init(log_to_driver=False, logging_level='ERROR')\n"
        "try:\n    check_storage(sys.argv[1])\nexcept OSError as error:\n    print(error)\n"
    )
    command = ["python", "-c", code, str(folder)]
    done = subprocess.run(
        command, env=two_nodes.environment, capture_output=True, text=True, timeout=90, check=True
    )
    return done.stdout.strip()


def test_a_folder_that_a_node_does_not_share_is_told(two_nodes, tmp_path):
    """A node in a mount namespace of its own, in which the folder is another one."""
    shared, private = tmp_path / "shared", tmp_path / "private"
    private.mkdir()
    hide = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs none {private}"
    if subprocess.run([*hide, mount], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets no process mount anything")
    assert _check(two_nodes, shared / "runs") == ""
    assert not shared.exists()

    node = two_nodes.add_node(1, prefix=[*hide, f'{mount} && exec "$@"', "sh"])
    try:
        assert _check(two_nodes, shared / "runs") == ""
        told = _check(two_nodes, private)
    finally:
        two_nodes.kill_node(node)
    assert told.startswith(f"the storage {private} can't be used from node ")
    assert "it does not see what the driver writes there" in told
    assert list(private.iterdir()) == []


def test_a_node_that_has_just_died_is_not_asked(two_nodes, tmp_path):
    node = two_nodes.add_node(1)
    two_nodes.kill_node(node)  # Ray lists it for some seconds still, and tells of its end itself
    assert "can't be used" not in _check(two_nodes, tmp_path / "runs")


def test_a_folder_that_can_not_be_written_is_told(two_nodes, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    told = _check(two_nodes, tmp_path / "file" / "runs")
    assert told == (
        f"the storage {tmp_path}/file/runs can't be used from the driver's machine: Not a directory"
    )

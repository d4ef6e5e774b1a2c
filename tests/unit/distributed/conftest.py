"""Where the studies of the tests lie, a bucket, and the jobs as modules."""

import importlib.util
import sys
import uuid
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from pyarrow.fs import S3FileSystem
from searching import Driver, make_config
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine

from ssd_dist.distributed.study_storage import StudyPlace, new_place

JOBS = Path(__file__).parents[3] / "jobs"
S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(autouse=True)
def hasty_disk():
    """Nobody cuts the power during a test: SQLite need not wait for the disk."""

    def hurry(connection, record):
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", hurry)
    yield
    event.remove(Engine, "connect", hurry)


@pytest.fixture
def load_job(monkeypatch):
    """Imports the script `jobs/NAME.py` as a module."""

    def load(name):
        spec = importlib.util.spec_from_file_location(f"{name}_job", JOBS / f"{name}.py")
        job = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, job)  # dataclasses look there
        spec.loader.exec_module(job)
        return job

    return load


@pytest.fixture
def place(tmp_path) -> StudyPlace:
    """A study's place in an experiment's folder."""
    (tmp_path / "experiment").mkdir()
    return new_place(tmp_path / "experiment", None)


@pytest.fixture
def memory() -> StudyPlace:
    """A place that no process but this one sees: for the tests in which nothing is reopened."""
    return StudyPlace(URL.create("sqlite"), "study", own_file=False)


@pytest.fixture
def driver(place) -> Driver:
    """A search at its start."""
    return Driver(make_config(), place)


@pytest.fixture(scope="session")
def s3_server():
    """Address of an S3 of the tests' own, in this process."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server, monkeypatch) -> str:
    """URI of a folder in a bucket that nobody else uses."""
    for name, value in S3_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    address = s3_server.removeprefix("http://")
    S3FileSystem(endpoint_override=address, scheme="http", allow_bucket_creation=True).create_dir(
        name
    )
    return f"s3://{name}/runs"

"""Where the studies of the tests lie."""

import pytest
from searching import Driver, make_config
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine

from ssd_dist.distributed.study_storage import StudyPlace, new_place


@pytest.fixture(autouse=True)
def hasty_disk():
    """Nobody cuts the power during a test: SQLite need not wait for the disk."""

    def hurry(connection, record):
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", hurry)
    yield
    event.remove(Engine, "connect", hurry)


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

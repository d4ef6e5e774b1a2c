"""A study in a database: found again, apart from others, and without its password anywhere."""

import contextlib
import pickle
import sqlite3
import threading
import time
from pathlib import Path

import optuna
import pytest
from searching import Driver, make_config
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine

from ssd_dist.distributed import searcher as searcher_module
from ssd_dist.distributed import study_storage as study_storage_module
from ssd_dist.distributed.searcher import StorageGuard
from ssd_dist.distributed.study import load_study, num_finished, open_study
from ssd_dist.distributed.study_storage import (
    STORAGE_VARIABLE,
    StudyPlace,
    StudyStorageError,
    disk_failure,
    earlier_place,
    existing_place,
    masked,
    new_place,
    open_storage,
    parse_url,
    record_place,
    without_secrets,
)

SECRET = "postgresql://me:s3cr%40t@host:1/db"


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(STORAGE_VARIABLE, raising=False)


def make_folder(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    return folder


def test_two_experiments_of_one_name_in_one_database(tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    places = [new_place(make_folder(tmp_path, n) / "search", url) for n in ("here", "there")]
    drivers = [Driver(make_config(), place) for place in places]
    drivers[0].run("a", lambda _: 0.5, tmp_path)
    assert [num_finished(driver.study) for driver in drivers] == [1, 0]
    names = optuna.get_all_study_names(url)
    assert len(set(names)) == 2
    assert all(name.startswith("search-") for name in names)


def test_a_study_is_found_again_where_it_was_put(tmp_path):
    folder, url = make_folder(tmp_path, "a"), f"sqlite:///{tmp_path / 'elsewhere.db'}"
    place = new_place(folder, url)
    record_place(folder, place)
    Driver(make_config(), place).run("a", lambda _: 0.5, tmp_path)
    again = existing_place(folder)
    assert again == place
    assert num_finished(load_study(again)) == 1
    assert not (folder / "study.db").exists()


def test_without_a_database_the_study_moves_with_its_experiment(tmp_path):
    folder = make_folder(tmp_path, "a")
    place = new_place(folder, None)
    record_place(folder, place)
    Driver(make_config(), place).run("a", lambda _: 0.5, tmp_path)
    moved = folder.rename(tmp_path / "b")
    assert num_finished(load_study(existing_place(moved))) == 1
    assert existing_place(moved).shown == str(moved / "study.db")


def test_the_environment_may_name_the_database(tmp_path, monkeypatch):
    folder = make_folder(tmp_path, "a")
    own = new_place(folder, None)
    monkeypatch.setenv(STORAGE_VARIABLE, SECRET)
    assert new_place(folder, None).url.password == "s3cr@t"
    assert new_place(folder, "postgresql://other/db").url.host == "other"
    record_place(folder, own)
    assert existing_place(folder).own_file  # it was begun in the file, and stays there


def test_a_password_is_not_written_and_taken_when_given_again(tmp_path, monkeypatch):
    folder = make_folder(tmp_path, "a")
    place = new_place(folder, f"{SECRET}?sslpassword=hidden&sslmode=require")
    record_place(folder, place)
    text = (folder / "study.json").read_text()
    assert "s3cr" not in text
    assert "hidden" not in text
    resumed = existing_place(folder)
    assert resumed.url == parse_url("postgresql://me@host:1/db?sslmode=require")
    assert resumed.study_name == place.study_name
    assert existing_place(folder, SECRET).url.password == "s3cr@t"
    monkeypatch.setenv(STORAGE_VARIABLE, SECRET)
    assert existing_place(folder).url.password == "s3cr@t"


def test_an_earlier_study_in_the_same_database_is_opened_with_its_password(tmp_path):
    folder = make_folder(tmp_path, "a")
    record_place(folder, new_place(folder, SECRET))
    assert earlier_place(folder, parse_url(SECRET)).url.password == "s3cr@t"
    other = parse_url("postgresql://me:pw@elsewhere/db")
    assert earlier_place(folder, other).url == without_secrets(parse_url(SECRET))


@pytest.mark.parametrize(
    "url", [SECRET, "mysql+pymysql://me:s3cr%40t@h/d?password=s3cr%40t", "oracle://u:s3cr%40t@h/d"]
)
def test_what_is_shown_hides_the_password(url, tmp_path):
    parsed = parse_url(url)
    place = new_place(tmp_path, url)
    for shown in (masked(parsed), place.shown, repr(place), str(place)):
        assert "s3cr" not in shown
    assert "***" in masked(parsed)


def test_ray_tunes_snapshots_hold_no_password(memory):
    place = StudyPlace(memory.url.set(query={"s3cr": "et"}), "study", own_file=False)
    driver = Driver(make_config(), memory)
    driver.searcher._place = place
    for one in (driver.searcher, StorageGuard(driver.searcher)):
        assert b"s3cr" not in pickle.dumps(one)
        assert b"sqlite" not in pickle.dumps(one)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "not a URL such as sqlite:"),
        ("postgresql://me:s3cret@host:port/db", r"//\*\*\*@host"),
        ("sqlite://", "would not outlive"),
        ("redis://me:s3cret@host/0", "knows no database 'redis'"),
        ("mysql://me:s3cret@host/db", "driver is not installed"),
        ("postgresql://me:s3cret@127.0.0.1:1/db", "can't be used: connection failed"),
        ("sqlite:////proc/absent/study.db", "unable to open database file"),
        ("sqlite:///{here}", "file is not a database"),
    ],
)
def test_a_storage_that_can_not_be_used_is_told_in_a_sentence(url, words, tmp_path):
    here = tmp_path / "text"
    here.write_text("no database, but long enough to be looked at" * 100)
    with pytest.raises((ValueError, StudyStorageError), match=words) as caught:
        open_storage(new_place(tmp_path, url.replace("{here}", str(here))))
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_read_only_database(tmp_path):
    file = tmp_path / "study.db"
    writable = StudyPlace(URL.create("sqlite", database=str(file)), "study", own_file=False)
    config = make_config()
    Driver(config, writable)
    url = parse_url(f"sqlite:///file:{file}?mode=ro&uri=true")
    with pytest.raises(StudyStorageError, match="attempt to write a readonly database"):
        open_study(StudyPlace(url, "another", own_file=False), config)
    assert load_study(StudyPlace(url, "study", own_file=False)).trials  # to read it is enough


def test_the_file_is_never_seen_without_its_tables(place):
    """Who opens it while the search is starting must not make the tables at the same time."""
    file = Path(place.url.database)
    tables_at_first_sight = []

    def look():
        while not file.exists():
            time.sleep(0.001)
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as database:
            tables_at_first_sight.extend(database.execute("SELECT name FROM sqlite_master"))

    watcher = threading.Thread(target=look)
    watcher.start()
    open_storage(place)
    watcher.join()
    assert ("alembic_version",) in tables_at_first_sight
    assert [path.name for path in file.parent.glob("*study.db*")] == ["study.db"]


def test_a_study_that_is_gone_is_told_and_not_begun_anew(place):
    with pytest.raises(FileNotFoundError, match="does not hold the study 'experiment-"):
        load_study(place)
    other = StudyPlace(place.url, "other", own_file=True)
    open_study(other, make_config())
    with pytest.raises(FileNotFoundError, match="does not hold the study 'experiment-"):
        load_study(place)


def test_a_full_disk_stops_the_search_and_loses_nothing(place, tmp_path):
    """SQLite is given no page more: it says what it says on a full disk."""
    driver = Driver(make_config(), place)
    driver.run("a", lambda _: 0.5, tmp_path)
    driver.start("b")
    driver.epoch("b", 1, 0.7, tmp_path / "b")

    def full(connection, record):
        connection.execute("PRAGMA max_page_count = 1")

    event.listen(Engine, "connect", full)
    driver.study._storage._backend.engine.dispose()
    try:
        driver.searcher._attributes = {"filler": "x" * 1_000_000}
        assert driver.searcher.suggest("c") == "FINISHED"
        assert "database or disk is full" in driver.searcher.failure
        assert driver.searcher.report("b", {"epoch": 2, "map_11pt": 0.1})  # stop
        assert StorageGuard(driver.searcher).stop_all()
        driver.searcher.on_trial_complete("b", None, error=True)
    finally:
        event.remove(Engine, "connect", full)

    again = Driver(driver.config, place)
    states = [trial.state.name for trial in again.study.trials]
    assert states == ["COMPLETE", "RUNNING", "RUNNING"]
    assert again.start("d")["resume"] == str(tmp_path / "b")
    assert again.start("e") == {
        "number": 2,
        "parameters": again.study.trials[2].params,
        "resume": None,
    }


def test_a_full_disk_under_a_trial_does_not_fail_the_trial(driver, place, tmp_path):
    driver.start("a")
    driver.epoch("a", 1, 0.5, tmp_path / "a")
    driver.searcher.fail("a", "Traceback …\nOSError: [Errno 28] No space left on device: 'x'\n…")
    driver.searcher.on_trial_complete("a", None, error=True)
    assert driver.searcher.failure == (
        "the experiment's storage can't be written: OSError: [Errno 28] No space left on device: "
        "'x'"
    )
    assert Driver(driver.config, place).start("b")["resume"] == str(tmp_path / "a")
    assert disk_failure("ValueError: a mistake in the data") is None


def test_a_database_that_is_away_for_a_moment_is_waited_for(tmp_path, memory, monkeypatch):
    """As a server that restarts; in the middle of the making of a trial."""
    monkeypatch.setattr(searcher_module, "PAUSES_S", (0.0, 0.0))
    driver = Driver(make_config(), memory)
    driver.searcher._place = StudyPlace(parse_url(SECRET), "study", own_file=False)
    failures = iter([True, True, False])

    def set_attribute(*arguments):
        if next(failures, False):
            raise sqlite3.OperationalError("server closed the connection")
        return original(*arguments)

    original = driver.study._storage.set_trial_user_attr
    monkeypatch.setattr(driver.study._storage, "set_trial_user_attr", set_attribute)
    assert driver.start("a")["number"] == 0
    assert [t.state.name for t in driver.study.trials] == ["RUNNING"]
    failures = iter([True] * 3)
    assert driver.searcher.suggest("b") == "FINISHED"
    assert driver.searcher.failure == (
        "the study in postgresql://me:***@host:1/db can't be used: server closed the connection"
    )


def test_a_commit_while_the_folder_is_away_holds(tmp_path):
    folder = make_folder(tmp_path, "a")
    place = new_place(folder, None)
    engine = open_storage(place).engine
    assert [file.name for file in folder.glob(".*")] == []
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE epochs (number INTEGER)")
        connection.exec_driver_sql("INSERT INTO epochs VALUES (3)")
        away = folder.rename(tmp_path / "away")
        connection.commit()
        away.rename(folder)
        read = sqlite3.connect(folder / "study.db").execute("SELECT number FROM epochs")
        assert read.fetchall() == [(3,)]


@pytest.mark.parametrize(("chosen", "used"), [("wal", "wal"), ("delete", "truncate")])
def test_the_way_in_which_a_database_commits(chosen, used, tmp_path):
    """One that several write has been told to keep a log; that is its owner's choice."""
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as database:
        database.execute(f"PRAGMA journal_mode = {chosen}")
    place = new_place(make_folder(tmp_path, "a"), f"sqlite:///{tmp_path / 'study.db'}")
    with open_storage(place).engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == used


def test_other_drivers_of_sqlite_have_their_own_connections(tmp_path, monkeypatch):
    """SQLCipher's encrypts: with Python's own in its place the study would be plain text."""
    given = {}
    monkeypatch.setattr(
        study_storage_module, "RDBStorage", lambda url, engine_kwargs: given.update(engine_kwargs)
    )
    for driver, factories in (("", 1), ("+pysqlcipher", 0)):
        open_storage(new_place(tmp_path / "a", f"sqlite{driver}:///{tmp_path / 'study.db'}"))
        assert len(given["connect_args"].keys() & {"factory"}) == factories

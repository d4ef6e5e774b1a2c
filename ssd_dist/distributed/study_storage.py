"""Where a search's study lies: a file in the experiment's folder, or any database.

`study.json` in the experiment's folder says where, without the password: who goes on with the
search gives it again.
"""

from __future__ import annotations

import os
import re
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from ssd_dist.experiment import read_json, storage_folder, write_json

STORAGE_VARIABLE = "SSD_DIST_STUDY_STORAGE"
"""Environment variable that gives `--study-storage` where the flag does not."""
STUDY_FILE = "study.db"
_PLACE = "study.json"
_ARTIFACTS = "artifacts"
_HIDDEN = "***"
_SECRET = re.compile(r"password|passwd|pwd|secret|token", re.IGNORECASE)
_SQLITE_TIMEOUT_S = 60.0
_LOST = re.compile(r"the storage .* can't be used from .*")
"""Of a worker's patience with the storage."""
_DISK_SYMPTOMS = (
    "No space left on device",
    "Read-only file system",
    "Disk quota exceeded",
    # Of buckets, which are asked several times before:
    "AWS Error",
    "google::cloud::Status",
)


class _Connection(sqlite3.Connection):
    """One that loses nothing while its folder is away. SQLite commits by deleting its journal, by
    name. Where the folder is gone just then that fails: the values are read as stored, and undone
    once the folder is back, with the journal in it. Emptying the journal commits, too, and an open
    file can be emptied wherever it lies."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if self.execute("PRAGMA journal_mode").fetchone() == ("delete",):  # not what others chose
            self.execute("PRAGMA journal_mode = TRUNCATE")


class StudyStorageError(OSError):
    """The study's storage can't be read or written; the message says where and why."""


@dataclass(frozen=True, slots=True)
class StudyPlace:
    """Where a study lies. Its `repr` shows no password."""

    url: URL = field(repr=False)
    """With the password, where one was given."""
    study_name: str
    own_file: bool
    """Whether it is the file in the experiment's own folder."""
    warm_start: Path | None = None
    """Folder of the experiment from whose trials the study starts."""
    artifacts: Path | None = None
    """Folder of the trials' pictures, in the experiment's own wherever the study is; None: none."""

    @property
    def shown(self) -> str:
        """The place as people may read it: without its secrets."""
        return self.url.database or "" if self.own_file else masked(self.url)


def new_place(folder: Path, storage: str | None, warm_start: Path | None = None) -> StudyPlace:
    """The place of a new experiment's study, under a name that no other study has.

    Args:
        folder: the experiment's; not written to.
        storage: any SQLAlchemy URL; None: what SSD_DIST_STUDY_STORAGE says, or a file in `folder`.
        warm_start: folder of the experiment from whose trials the study starts.

    Raises ValueError, without showing the password, for what is no URL of a lasting storage.
    """
    given = storage or os.environ.get(STORAGE_VARIABLE)
    return StudyPlace(
        url=parse_url(given) if given else _own_file(folder),
        study_name=f"{folder.name}-{uuid.uuid4().hex[:8]}",
        own_file=not given,
        warm_start=warm_start,
        artifacts=folder / _ARTIFACTS,
    )


def has_place(folder: Path) -> bool:
    """Whether the experiment's study was begun."""
    return (folder / _PLACE).is_file()


def existing_place(folder: Path, storage: str | None = None) -> StudyPlace:
    """The place of the study that an experiment has.

    Args:
        folder: the experiment's.
        storage: a URL that holds where study.json's does not: with its password, or of the place to
            which the database was moved. None: what SSD_DIST_STUDY_STORAGE says, or study.json.

    Raises FileNotFoundError if the experiment has no study, ValueError for a URL that is none.
    """
    place = _recorded_place(folder)
    given = storage or (None if place.own_file else os.environ.get(STORAGE_VARIABLE))
    return replace(place, url=parse_url(given), own_file=False) if given else place


def repeats_place(place: StudyPlace) -> StudyPlace:
    """The place of the study of a search's repeats, beside the search's own."""
    return replace(place, study_name=f"{place.study_name}-repeats")


def earlier_place(folder: Path, known: URL) -> StudyPlace:
    """The place of another experiment's study, with the password of `known` if both lie in the same
    database. Raises FileNotFoundError if that experiment has no study."""
    place = _recorded_place(folder)
    return replace(place, url=known) if without_secrets(known) == place.url else place


def record_place(folder: Path, place: StudyPlace) -> None:
    """Writes study.json, without any secret."""
    content = {
        "storage": None if place.own_file else without_secrets(place.url).render_as_string(),
        "study_name": place.study_name,
        "warm_start": str(place.warm_start) if place.warm_start else None,
    }
    write_json(folder / _PLACE, content)


def _recorded_place(folder: Path) -> StudyPlace:
    if not folder.is_dir():
        raise FileNotFoundError(f"no experiment {folder}")
    if not has_place(folder):
        raise FileNotFoundError(f"experiment {folder} has no study: it is not a search")
    content = read_json(folder / _PLACE)
    return StudyPlace(
        url=parse_url(content["storage"]) if content["storage"] else _own_file(folder),
        study_name=content["study_name"],
        own_file=content["storage"] is None,
        warm_start=Path(content["warm_start"]) if content["warm_start"] else None,
        artifacts=folder / _ARTIFACTS,
    )


def open_storage(place: StudyPlace) -> RDBStorage:
    """Connects, and makes the tables if there are none.

    An experiment's own file appears with its tables in it: whoever opens it while the search is
    starting (a dashboard) would else make them at the same time, and end the search by that.

    Raises StudyStorageError or ValueError, in one sentence without secrets.
    """
    if place.own_file and not Path(str(place.url.database)).exists():
        file = Path(str(place.url.database))
        beside = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
        try:
            _connect(replace(place, url=place.url.set(database=str(beside)))).engine.dispose()
            beside.rename(file)
        finally:
            beside.unlink(missing_ok=True)
            beside.with_name(f"{beside.name}-journal").unlink(missing_ok=True)
    return _connect(place)


def _connect(place: StudyPlace) -> RDBStorage:
    # Optuna fills in {SCHEMA_VERSION}; braces of a user's are to stay.
    url = place.url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    backend = place.url.get_backend_name()
    # Hours may lie between two writes, and servers close connections that rest.
    arguments: dict[str, Any] = {"pool_pre_ping": True}
    if backend == "sqlite":  # a dashboard may be reading
        arguments = {"connect_args": {"timeout": _SQLITE_TIMEOUT_S}}
    try:
        if place.url.get_dialect().driver == "pysqlite":  # others have connections of their own
            arguments["connect_args"]["factory"] = _Connection
        with storage_errors(place):
            return RDBStorage(url, engine_kwargs=arguments)
    except NoSuchModuleError:
        raise ValueError(
            f"--study-storage {place.shown}: SQLAlchemy knows no database {backend!r}"
        ) from None
    except ImportError as error:
        hint = "; pip install 'ssd-dist[postgresql]' brings it" if backend == "postgresql" else ""
        raise ValueError(
            f"--study-storage {place.shown}: its driver is not installed "
            f"({error.__cause__ or error}){hint}"
        ) from None
    except RuntimeError as error:  # tables of another version of Optuna
        raise StudyStorageError(f"the study in {place.shown} can't be used: {error}") from None


@contextmanager
def storage_errors(place: StudyPlace) -> Iterator[None]:
    """Turns what a storage can raise into a StudyStorageError: one sentence, without secrets."""
    try:
        yield
    except NoSuchModuleError:
        raise
    except (SQLAlchemyError, StorageInternalError, sqlite3.Error) as error:
        reason = _reason(error, place)
        hint = (
            f"; no password is kept: give it by --study-storage, {STORAGE_VARIABLE} or PGPASSWORD"
            if "password" in reason
            else ""
        )
        raise StudyStorageError(
            f"the study in {place.shown} can't be used: {reason}{hint}"
        ) from None


def disk_failure(text: str) -> str | None:
    """One sentence if an error's text speaks of a storage that is gone, or a disk that is full or
    read-only; else None."""
    if (lost := _LOST.search(text)) is not None:
        return lost[0]
    for symptom in _DISK_SYMPTOMS:
        if symptom in text:
            line = next(line for line in text.splitlines() if symptom in line)
            return f"the experiment's storage can't be written: {line.strip()}"
    return None


def parse_url(text: str) -> URL:
    """A URL that outlives the job; a sqlite file is taken from the folder that `--storage` is taken
    from. Raises ValueError, without the password."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        shown = re.sub(r"//.*@", f"//{_HIDDEN}@", text)
        raise ValueError(
            f"--study-storage {shown}: not a URL such as sqlite:////folder/study.db or "
            "postgresql://user@host/database"
        ) from None
    if url.get_backend_name() != "sqlite":
        return url
    if url.database in (None, "", ":memory:"):
        raise ValueError(f"--study-storage {text}: a study in memory would not outlive the job")
    if url.query:  # SQLite's own URIs (file:…?mode=ro) are taken as they are
        return url
    return url.set(database=str(storage_folder(str(url.database))))


def masked(url: URL) -> str:
    """The URL with `***` in the place of its secrets."""
    query = {key: _HIDDEN if _SECRET.search(key) else value for key, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True).replace("%2A%2A%2A", _HIDDEN)


def without_secrets(url: URL) -> URL:
    """The URL as it may be written down."""
    public = {key: value for key, value in url.query.items() if not _SECRET.search(key)}
    return url.set(query=public)._replace(password=None)  # `set` takes None for "as it is"


def _own_file(folder: Path) -> URL:
    return URL.create("sqlite", database=str(folder / STUDY_FILE))


def _reason(error: BaseException, place: StudyPlace) -> str:
    """The innermost cause in one line, without secrets."""
    while (inner := getattr(error, "orig", None) or error.__cause__) is not None:
        error = inner
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = "; ".join(lines) or type(error).__name__
    secrets = [place.url.password, *(v for k, v in place.url.query.items() if _SECRET.search(k))]
    for secret in secrets:
        if secret:
            text = text.replace(str(secret), _HIDDEN)
    return text

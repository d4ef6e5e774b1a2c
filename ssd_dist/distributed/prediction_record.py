"""What a prediction has to do and has done: one SQLite file, whole at any moment.

The pictures are listed into it once, which fixes the order and the place of each; what is found
goes in as it comes back. So a prediction that was killed goes on where it was, and neither the
listing nor what was found is ever held in memory.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssd_dist.distributed.prediction_listing import MISNAMED, PICTURE, Source
from ssd_dist.structures import Detections

_TABLES = """
CREATE TABLE IF NOT EXISTS request (content TEXT);
CREATE TABLE IF NOT EXISTS pictures (
  position INTEGER PRIMARY KEY, image_id TEXT, path TEXT, time INTEGER
);
CREATE TABLE IF NOT EXISTS todo (position INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS found (
  position INTEGER PRIMARY KEY, width INTEGER, height INTEGER, boxes BLOB, problem TEXT
);
"""
# A picture that two arguments mean is one picture, with the place and name that the first gives it.
# A frame's number follows its video's name. Where two pictures would have the same name, each has
# its path.
_ARRANGE = f"""
INSERT INTO pictures
SELECT row_number() OVER (ORDER BY argument, path, time) - 1,
  CASE WHEN name IN (
    SELECT name FROM listed GROUP BY name HAVING min(path) < max(path)
  ) THEN path ELSE name END
  || CASE WHEN time IN ({PICTURE}, {MISNAMED}) THEN ''
     ELSE printf('/%06d', row_number() OVER (PARTITION BY path ORDER BY time) - 1) END,
  path, time
FROM listed;
"""
_ROW = np.dtype([("box_xyxy", "<f4", 4), ("label", "<i4"), ("score", "<f4")])
"""A detection in `boxes`: pixels, 1…C, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that is done."""

    position: int
    """Among all that were listed."""
    image_id: str
    path: str
    width: int
    height: int
    """Upright, in pixels; 0 for one that can't be read."""
    detections: Detections
    problem: str | None
    """Why it can't be read."""


class Record:
    """The file, open for the job that writes it."""

    def __init__(self, path: Path) -> None:
        """Opens it, or makes it. Raises OSError where that is not possible."""
        self.path = path
        try:
            self._database = sqlite3.connect(path, isolation_level=None)
            # Readers go on while it is written; what was committed outlives the process.
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.executescript(_TABLES)
        except sqlite3.Error as error:
            raise OSError(f"{path}: can't be written or is no record: {error}") from None

    def request(self) -> dict[str, Any] | None:
        """What was asked for, once the listing is complete; else None."""
        row = self._database.execute("SELECT content FROM request").fetchone()
        return None if row is None else json.loads(row[0])

    def take_up(self, sources: Iterable[tuple[int, Source]], request: Mapping[str, Any]) -> int:
        """Takes up all pictures, in one transaction, as (number of the argument, picture), and what
        was asked for; returns how many pictures there are."""
        with self._transaction() as database:
            database.execute("DELETE FROM pictures")
            database.execute(
                "CREATE TEMP TABLE listed (argument, name, path, time, PRIMARY KEY (path, time)) "
                "WITHOUT ROWID"
            )
            database.executemany(
                "INSERT OR IGNORE INTO listed VALUES (?, ?, ?, ?)",
                ((number, one.name, one.path, one.time) for number, one in sources),
            )
            database.execute(_ARRANGE)
            database.execute("DROP TABLE listed")
            database.execute("INSERT INTO request VALUES (?)", (json.dumps(request),))
        return self.num_pictures()

    def plan(self) -> int:
        """Settles what is left to do, for `planned`; returns how many pictures that are. Those that
        could not be read are tried again."""
        with self._transaction() as database:
            database.execute("DELETE FROM found WHERE problem IS NOT NULL")
            database.execute("DELETE FROM todo")
            database.execute(
                "INSERT INTO todo SELECT position FROM pictures "
                "WHERE position NOT IN (SELECT position FROM found)"
            )
        (count,) = self._database.execute("SELECT count(*) FROM todo").fetchone()
        return int(count)

    def add(
        self, rows: Iterable[tuple[int, int, int, np.ndarray, np.ndarray, np.ndarray, str | None]]
    ) -> None:
        """Takes up, all at once, pictures that are done: position, width, height, boxes_xyxy (N, 4)
        in pixels, labels (N,), scores (N,), and why the picture can't be read.

        Raises RuntimeError, naming the picture's position, if one is there already.
        """
        with self._transaction() as database:
            for position, width, height, boxes_xyxy, labels, scores, problem in rows:
                detections = np.empty(len(scores), _ROW)
                detections["box_xyxy"], detections["label"] = boxes_xyxy, labels
                detections["score"] = scores
                try:
                    database.execute(
                        "INSERT INTO found VALUES (?, ?, ?, ?, ?)",
                        (position, width, height, detections.tobytes(), problem),
                    )
                except sqlite3.IntegrityError:
                    raise RuntimeError(f"picture {position} came back twice") from None

    def num_pictures(self) -> int:
        """All that were listed."""
        (count,) = self._database.execute("SELECT count(*) FROM pictures").fetchone()
        return int(count)

    def num_done(self) -> int:
        """Those that are done, readable or not."""
        (count,) = self._database.execute("SELECT count(*) FROM found").fetchone()
        return int(count)

    def done(self) -> Iterator[Picture]:
        """The pictures that are done, one after the other, in their order."""
        rows = self._database.execute(
            "SELECT position, image_id, path, width, height, boxes, problem "
            "FROM found JOIN pictures USING (position) ORDER BY position"
        )
        for position, image_id, path, width, height, boxes, problem in rows:
            detections = np.frombuffer(boxes, _ROW)
            yield Picture(
                position,
                image_id,
                path,
                width,
                height,
                Detections(
                    image_id,
                    detections["box_xyxy"],
                    detections["label"].astype(np.int64),
                    detections["score"],
                ),
                problem,
            )

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    def delete(self) -> None:
        """Closes the file and takes it away."""
        self.close()
        for path in (self.path, *self.path.parent.glob(f"{self.path.name}-*")):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:  # such as a full disk
            raise OSError(f"{self.path}: can't be written: {error}") from None


def planned(path: Path, batch_size: int) -> Iterator[Sequence[tuple[int, str, str, int]]]:
    """(position, image_id, path, time) of what `Record.plan` settled, in batches, in order; the
    same ones whatever is added to the record meanwhile. For another process than the record's."""
    query = (
        "SELECT position, image_id, path, time FROM todo JOIN pictures USING (position) "
        "WHERE position > ? ORDER BY position LIMIT ?"
    )
    last = -1
    # A URI, as only one can say `mode=ro`: a folder's name may have #, ? or % in it.
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
        # A query of its own for each: a long one would keep the log of changes from being cleared.
        while rows := database.execute(query, (last, batch_size)).fetchall():
            yield rows
            last = rows[-1][0]

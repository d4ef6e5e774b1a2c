"""A prediction from its arguments to its files: listed, predicted, written; begun or taken up."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssd_dist.checkpoint import Checkpoint, load_checkpoint
from ssd_dist.data.problems import printable
from ssd_dist.distributed.cluster import connect, fitting_workers, silence
from ssd_dist.distributed.mirror import pull
from ssd_dist.distributed.prediction_listing import Source, list_sources
from ssd_dist.distributed.prediction_pictures import Drawing, predict_pictures
from ssd_dist.distributed.prediction_record import Record
from ssd_dist.distributed.prediction_results import RESULTS, UNREADABLE, write_results
from ssd_dist.distributed.prediction_stream import told_failures
from ssd_dist.experiment import best_checkpoint, latest_experiment, storage_folder
from ssd_dist.model.restored import restored
from ssd_dist.terminal import MOST_PROBLEMS, Terminal, shown

RECORD = "record.sqlite"
"""Its name while a prediction is under way."""
PICTURES = "pictures"
"""Folder of annotated pictures."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """How a prediction ended."""

    num_pictures: int
    num_unreadable: int


def chosen_checkpoint(experiment: str | None, checkpoint: str | None) -> Path:
    """The folder of the checkpoint that is meant: that one, or an experiment's best; with neither,
    of the experiment in `runs` that finished last.

    Raises ValueError if both are given or the checkpoint is in a bucket, FileNotFoundError if there
    is none, and BucketError (an OSError) for a bucket that can't be read.
    """
    if experiment is not None and checkpoint is not None:
        raise ValueError("give --experiment or --checkpoint, not both")
    if checkpoint is not None:
        return storage_folder(checkpoint)
    if experiment is not None:
        return best_checkpoint(pull(experiment))
    return best_checkpoint(latest_experiment(storage_folder("runs")))


def run_prediction(
    checkpoint_folder: Path,
    paths: Sequence[str],
    out: Path,
    terminal: Terminal,
    *,
    score_threshold: float,
    num_workers: int | None = None,
    batch_size: int = 16,
    pictures: bool = False,
    strict: bool = False,
    resume: bool = False,
) -> Predicted:
    """Predicts pictures and writes what prediction_results.py describes into `out`.

    Args:
        checkpoint_folder: see checkpoint.py; this process alone reads it.
        paths: files, folders and patterns; every node must see them.
        out: a folder; the record of a prediction under way lies in it as well.
        terminal: where progress is shown.
        score_threshold: detections below it are left out.
        num_workers: None: one a GPU, or one a CPU core where there is no GPU.
        batch_size: pictures that a worker takes at a time. Neither number changes the result.
        pictures: writes annotated pictures, too, into `out`/pictures, which every node must see.
        strict: a picture that can't be read ends the prediction.
        resume: goes on with the prediction in `out`.

    Raises:
        ValueError, OSError: what was asked for can't be; with `strict`, naming a picture that
            can't be read.
        JobFailedError: the prediction failed.
    """
    if batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, not {batch_size}")
    if num_workers is not None and num_workers < 1:
        raise ValueError(f"--workers must be at least 1, not {num_workers}")
    if not 0 <= score_threshold <= 1:
        raise ValueError(f"--score-threshold must be from 0 to 1, not {score_threshold:g}")
    if not paths:
        raise ValueError("no picture: name files, folders or patterns such as 'photos/**/*.jpg'")
    checkpoint = load_checkpoint(checkpoint_folder)
    restored(checkpoint)
    request = {
        "paths": [str(Path(path).expanduser().absolute()) for path in paths],
        "score_threshold": score_threshold,
        "pictures": pictures,
        "weights": _fingerprint(checkpoint),
    }
    with _opened(out, request, terminal, resume=resume) as record:
        left, count = record.plan(), record.num_pictures()
        if left:
            cluster = connect(terminal)
            num_workers = fitting_workers(num_workers, cluster, -(-left // batch_size))
            terminal.line(
                f"predicting {left} of {count} pictures on {num_workers} {cluster.device} worker(s)"
            )
            started, done, problems = time.perf_counter(), count - left, 0
            drawing = Drawing(
                folder=out / PICTURES,
                class_names=checkpoint.class_names,
                score_threshold=score_threshold,
            )
            with terminal.bar("prediction"), silence(), told_failures():
                for told in predict_pictures(
                    record,
                    checkpoint,
                    cluster,
                    num_workers=num_workers,
                    batch_size=batch_size,
                    score_threshold=score_threshold,
                    drawing=drawing if pictures else None,
                ):
                    if told and strict:
                        raise ValueError(printable(told[0]))
                    for problem in told[: max(0, MOST_PROBLEMS - problems)]:
                        terminal.line(f"skipped: {printable(problem)}")
                    problems += len(told)
                    done = record.num_done()
                    terminal.advance(done, count)
            seconds = time.perf_counter() - started
            terminal.line(f"predicted in {seconds:.1f} s, {left / seconds:.1f} pictures a second")
        if record.num_done() != count:
            raise RuntimeError(f"{count - record.num_done()} pictures did not come back")
        num_unreadable = write_results(record, out, checkpoint.class_names)
        record.delete()
    if num_unreadable:
        terminal.line(
            f"{num_unreadable} of {count} pictures can't be read: {shown(out / UNREADABLE)}"
        )
    return Predicted(count, num_unreadable)


@contextlib.contextmanager
def _opened(
    out: Path, request: dict[str, Any], terminal: Terminal, *, resume: bool
) -> Iterator[Record]:
    """The record of a prediction that begins, or of the one that it goes on with."""
    path = out / RECORD
    if (out / RESULTS).exists() and not path.exists():
        raise FileExistsError(f"{out} holds the results of a prediction: choose another --out")
    if resume and not path.exists():
        raise FileNotFoundError(f"nothing to resume: {out} holds no prediction under way")
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    record = Record(path)
    with contextlib.closing(record):
        before = record.request()
        if before is not None and not resume:
            raise FileExistsError(
                f"{out} holds a prediction under way: go on with it by --resume, or choose another "
                "--out"
            )
        if before is None:
            terminal.line("listing the pictures")
            try:
                _list_into(record, request, out)
            except (ValueError, OSError):
                record.delete()
                if is_new:
                    with contextlib.suppress(OSError):
                        out.rmdir()
                raise
        elif changed := [name for name, value in request.items() if before.get(name) != value]:
            raise ValueError(
                f"the prediction in {out} was begun otherwise ({', '.join(changed)}): resume it "
                "with what it was begun with, or choose another --out"
            )
        yield record


def _list_into(record: Record, request: dict[str, Any], out: Path) -> None:
    def sources() -> Iterator[tuple[int, Source]]:
        for number, path in enumerate(request["paths"]):
            for source in list_sources(path, leave_out=out):
                yield number, source

    if record.take_up(sources(), request) == 0:
        raise ValueError(f"no pictures in {', '.join(request['paths'])}")


def _fingerprint(checkpoint: Checkpoint) -> str:
    """Changes with any weight of the network: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, weight in sorted(checkpoint.weights.items()):
        digest.update(name.encode())
        digest.update(weight.cpu().contiguous().flatten().view(-1).numpy().tobytes())
    return digest.hexdigest()[:16]

"""The folder of an experiment: what a training or a search leaves for people and later jobs.

experiment.json     the request: kind, configuration, data
best.json           the best configuration, its validation mAP, its checkpoint
best_checkpoint/    that checkpoint (see checkpoint.py)
trials.json         the search's trials, best first (searches only)
repeats.json        configurations trained again with several seeds, best mean first (searches only)
study.db            Optuna's studies (searches only, unless they lie in a database)
study.json          where the study lies, and its name (searches only)
tensorboard/        event files, a run for each training
artifacts/          pictures of validation detections, one a trial (searches only)
ray/                Ray's own files, every kept checkpoint among them
report/             what jobs/evaluate.py writes by default
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ssd_dist.config import Config, from_mapping, replace_at, to_mapping
from ssd_dist.data.signed_urls import publishable
from ssd_dist.data.sources import is_remote
from ssd_dist.durable import new_folder, rename, rename_to_new, sync

_REQUEST, BEST, _TRIALS = "experiment.json", "best.json", "trials.json"
BEST_CHECKPOINT = "best_checkpoint"
EVENT_FILES = "tensorboard"
"""Folder of TensorBoard's event files."""

TrialState = Literal["complete", "pruned", "diverged", "failed", "running"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One trial of a search, as the leaderboard and the report show it."""

    number: int
    state: TrialState
    parameters: Mapping[str, Any]
    """Dotted path in the configuration → value."""
    map_11pt: float | None
    """Best validation mAP of its epochs; None if it finished none."""
    epochs: int
    """Epochs finished."""
    seconds: float
    curve: tuple[float, ...]
    """Validation mAP of each epoch, also of a trial that diverged later."""
    checkpoint: str | None
    """Of the best epoch."""
    error: str | None = None
    ms_per_image: float | None = None
    """Time of a picture, where that is an objective of the search."""
    pareto: bool = False
    """Whether no other trial is better in one objective and as good in the others; always False
    where there is one objective."""


def storage_folder(storage: str) -> Path:
    """`--storage` as an absolute folder.

    A submitted Ray job runs in a temporary copy of the working directory, where nothing would
    outlive it: there a relative folder is taken from the home folder. Raises ValueError for a URI.
    """
    if "://" in storage:
        raise ValueError(
            f"{storage}: a folder is needed here; buckets are for --storage and --experiment"
        )
    submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    base = Path.home() if submitted else Path.cwd()
    return (base / Path(storage).expanduser()).resolve()


def anchored(config: Config, data: str) -> tuple[Config, str]:
    """The same request with absolute paths: Ray's workers run in folders of their own."""
    if data != "synthetic" and not is_remote(data):
        data = str(Path(data).expanduser().resolve())
    if config.model.weights not in ("none", "imagenet", "coco"):
        weights = str(Path(config.model.weights).expanduser().resolve())
        config = replace_at(config, {"model.weights": weights})
    return config, data


def check_start(
    folder: Path, kind: Literal["train", "tune"], config: Config, data: str, *, resume: bool
) -> None:
    """Says whether an experiment can start, or go on, in `folder`; writes nothing.

    Raises FileExistsError if it exists and `resume` is False, FileNotFoundError if `resume` is True
    and it does not, ValueError if it was started as another kind of experiment, on other data, or
    with another configuration.
    """
    exists = (folder / _REQUEST).exists()
    if not resume:
        if exists:
            raise _exists_already(folder)
        return
    if not exists:
        raise FileNotFoundError(f"nothing to resume: {folder} holds no experiment")
    changed = _differences(read_json(folder / _REQUEST), _request(kind, config, data))
    if changed:
        raise ValueError(
            f"experiment {folder} was started otherwise ({', '.join(changed)}): resume it with "
            "what it was started with, or choose another --name"
        )


def start_experiment(
    folder: Path, kind: Literal["train", "tune"], config: Config, data: str
) -> None:
    """Makes the experiment's folder. Raises FileExistsError if it holds an experiment: another job
    may have begun it since :func:`check_start`."""
    try:
        with _written_beside(folder / _REQUEST, _request(kind, config, data)) as scratch:
            rename_to_new(scratch, folder / _REQUEST)
    except FileExistsError:
        raise _exists_already(folder) from None


def _exists_already(folder: Path) -> FileExistsError:
    return FileExistsError(
        f"experiment {folder} exists already: go on with it by --resume, or choose another --name"
    )


def _request(kind: str, config: Config, data: str) -> dict[str, Any]:
    return {"kind": kind, "data": publishable(data), "config": to_mapping(config)}


def read_config(folder: Path) -> Config:
    """The configuration that an experiment was started with, its search space included; a trial's
    checkpoint has its own, without. Raises FileNotFoundError or ValueError, naming the file."""
    return from_mapping(read_json(folder / _REQUEST)["config"], source=str(folder / _REQUEST))


def finish_experiment(
    folder: Path, config: Config, map_11pt: float, checkpoint: Path, **more: Any
) -> Path:
    """Keeps a copy of the best checkpoint and writes best.json; returns the latter's path.

    Args:
        folder: the experiment's.
        config: the best configuration.
        map_11pt: validation mAP of `checkpoint`.
        checkpoint: its folder.
        more: further keys of best.json.

    Raises FileNotFoundError if the checkpoint is gone.
    """
    if not checkpoint.is_dir():
        raise FileNotFoundError(f"the best checkpoint, {checkpoint}, is gone")
    kept = folder / BEST_CHECKPOINT
    with new_folder(kept) as scratch:
        shutil.copytree(checkpoint, scratch, dirs_exist_ok=True)
    best = {"config": to_mapping(config), "map_11pt": map_11pt, "checkpoint": str(kept)}
    write_json(folder / BEST, {**best, **more})
    return folder / BEST


def best_checkpoint(folder: Path) -> Path:
    """The best checkpoint of a finished experiment, also after its folder was moved.

    Raises FileNotFoundError saying what is missing.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no experiment {folder}")
    if not (folder / BEST).is_file():
        raise FileNotFoundError(f"{folder} has no {BEST}: its training or search did not finish")
    named = Path(read_json(folder / BEST)["checkpoint"])
    return folder / BEST_CHECKPOINT if (folder / BEST_CHECKPOINT).is_dir() else named


def latest_experiment(storage: Path) -> Path:
    """The experiment that finished last. Raises FileNotFoundError if there is none."""
    finished = sorted(storage.glob(f"*/{BEST}"), key=lambda path: path.stat().st_mtime)
    if not finished:
        raise FileNotFoundError(
            f"no finished experiment in {storage}: run jobs/train.py or jobs/tune.py first, or "
            "name one with --experiment"
        )
    return finished[-1].parent


def write_trials(folder: Path, trials: Sequence[TrialRecord]) -> None:
    """Writes trials.json, best first."""
    write_json(folder / _TRIALS, [asdict(trial) for trial in ranked(trials)])


def read_trials(folder: Path) -> list[TrialRecord] | None:
    """The search's trials, best first; None where there was no search."""
    if not (folder / _TRIALS).is_file():
        return None
    return [trial_from_json(trial) for trial in read_json(folder / _TRIALS)]


def trial_from_json(stored: Mapping[str, Any]) -> TrialRecord:
    """A trial as trials.json has it."""
    return TrialRecord(**{**stored, "curve": tuple(stored["curve"])})


def ranked(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Best first, of equals the earlier one; trials without a value last."""
    return sorted(trials, key=lambda t: (t.map_11pt is None, -(t.map_11pt or 0.0), t.number))


def reasons(trials: Sequence[TrialRecord]) -> str:
    """`: ` and why trials went wrong, each reason once; nothing where none is known."""
    known = sorted({trial.error for trial in trials if trial.error})
    return f": {'; '.join(known)}" if known else ""


def write_json(path: Path, content: Any) -> None:
    """Writes beside and renames, so that a reader never sees half a file."""
    with _written_beside(path, content) as scratch:
        rename(scratch, path)


@contextmanager
def _written_beside(path: Path, content: Any) -> Iterator[Path]:
    """A synced file for `path`, gone afterwards if it was not renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of several machines may have the same number.
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with scratch.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=2, allow_nan=False)
        sync(scratch)
        yield scratch
    finally:
        scratch.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Raises ValueError, naming the file, if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not readable as JSON: {error}") from None


def _differences(first: Any, second: Any, prefix: str = "") -> list[str]:
    """Dotted paths at which two mappings differ, with both values."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        names = [*first, *(name for name in second if name not in first)]
        return [
            difference
            for name in names
            for difference in _differences(first.get(name), second.get(name), f"{prefix}.{name}")
        ]
    return [] if first == second else [f"{prefix[1:]} was {first!r}, now {second!r}"]

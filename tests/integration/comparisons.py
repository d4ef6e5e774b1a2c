"""Whether what a fault was done to ended as it would have ended without: for tests and chaos."""

import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import torch

from ssd_dist.checkpoint import load_checkpoint
from ssd_dist.distributed.study import curve, load_study, own_trials
from ssd_dist.distributed.study_storage import existing_place
from ssd_dist.engine import Worker
from ssd_dist.experiment import read_json
from ssd_dist.training import EpochReport, train

CLOCK = ("seconds", "images_per_second")


def without_clock(history) -> list[dict[str, float]]:
    """The epochs' metrics but for those that tell the time."""
    return [{k: v for k, v in epoch.items() if k not in CLOCK} for epoch in history]


def differences(found: Path, expected: Path) -> list[str]:
    """In what two checkpoints differ that are to be the same, bit for bit."""
    one, other = load_checkpoint(found), load_checkpoint(expected)
    different = [
        name
        for name, weight in other.weights.items()
        if name not in one.weights or not torch.equal(one.weights[name], weight)
    ]
    told = [f"{found}: {len(different)} tensors are others"] if different else []
    if without_clock(one.history) != without_clock(other.history):
        told.append(f"{found}: other metrics")
    return told


def undisturbed(checkpoint: Path, data: str, folder: Path) -> Path:
    """Trains anew what `checkpoint` was trained as, in this process and without a pause; the folder
    of the last epoch's checkpoint."""
    config = load_checkpoint(checkpoint).config
    last = folder / f"undisturbed_{uuid.uuid4().hex}"

    def keep(report: EpochReport) -> None:
        if report.metrics["epoch"] == config.epochs:
            report.save(last)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(config, data, Worker(torch.device("cpu")), keep)
    finally:
        torch.set_num_threads(threads)
    return last


def latest(checkpoints: list[Path]) -> Path:
    """Of several checkpoints of a training that of the latest epoch; all of them are whole."""
    return max(checkpoints, key=lambda folder: load_checkpoint(folder).epoch)


def differences_to_undisturbed(checkpoints: list[Path], data: str, folder: Path) -> list[str]:
    """In what the last of a training's checkpoints differs from what it would have been without a
    fault; for a training of one worker on a CPU."""
    last = latest(checkpoints)
    return differences(last, undisturbed(last, data, folder))


def wrong_in_search(
    folder: Path, finished_before: Mapping[int, tuple[object, ...]], num_trials: int
) -> list[str]:
    """What is wrong with a search that has ended."""
    found = finished_trials(folder)
    told = read_json(folder / "trials.json")
    wrong = []
    if sorted(found) != list(range(num_trials)):
        wrong.append(f"the study's finished trials are {sorted(found)}")
    if sorted(trial["number"] for trial in told) != sorted(found):
        wrong.append(f"trials.json has {sorted(trial['number'] for trial in told)}")
    if len({parameters for parameters, *_ in found.values()}) != len(found):
        wrong.append("two trials have the same parameters")
    wrong += [f"trial {n} has changed" for n, was in finished_before.items() if found[n] != was]
    for trial in told:
        values = dict(found[trial["number"]][1])
        if list(values) != list(range(1, len(values) + 1)):
            wrong.append(f"trial {trial['number']} has the epochs {list(values)}")
        if trial["map_11pt"] != max(values.values(), default=None):
            wrong.append(f"trials.json and the study differ about trial {trial['number']}")
    return wrong


def finished_trials(folder: Path) -> dict[int, tuple[object, ...]]:
    """Of each finished trial of the study: its parameters, its mAP by epoch, and when it ended."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            (Path(scratch) / "study.json").write_bytes((folder / "study.json").read_bytes())
            (Path(scratch) / "study.db").write_bytes(_at_rest(folder / "study.db"))
        except FileNotFoundError:  # killed before it was begun
            return {}
        return {
            t.number: (tuple(t.params.items()), tuple(curve(t).items()), t.datetime_complete)
            for t in own_trials(load_study(existing_place(Path(scratch))))
            if t.state.is_finished()
        }


def _at_rest(database: Path) -> bytes:
    """An SQLite file between two writes. Read so, as SQLite would not open what lies on a disk that
    only others see: it follows /proc/<pid>/root to where that does not lead."""
    while True:
        before = database.read_bytes()
        time.sleep(0.05)
        journal = database.with_name(f"{database.name}-journal")
        at_work = journal.exists() and journal.stat().st_size > 0
        if not at_work and database.read_bytes() == before:
            return before

"""What a search costs beyond its trainings: trials that do nothing, by the real search.

python benchmarks/search_overhead.py [--trials 1000]

Everything is as in `jobs/tune.py` (Ray Tune, the study in sqlite, TPE, a checkpoint stored each
epoch) but for the training, which reports a made-up mAP at once. The figures to be met: at most one
second a trial, two at a time; the last hundred trials in at most 1.5 times the time of the first
hundred; a driver of less than 1.5 GiB.
"""

from __future__ import annotations

import math
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from ssd_dist.config import Config, ModelConfig, SearchConfig
from ssd_dist.distributed import tuner
from ssd_dist.distributed.search import run_search
from ssd_dist.distributed.study import load_study
from ssd_dist.distributed.study_storage import existing_place
from ssd_dist.search_config import RepeatsConfig
from ssd_dist.terminal import Terminal, run_job

_PART = 100


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Run a search of trials that do nothing, and tell what each costs."""

    trials: int = 1000
    """Trials in all; rates of fewer than 200 can't be compared."""
    concurrent: int = 2
    """Trials at once."""


def do_nothing(suggestion: Mapping[str, Any], request: Any) -> None:
    """In the place of a trial's training: one epoch, a made-up mAP, a checkpoint of one file."""
    from ray import tune  # `ssd_dist.distributed` says how before Ray is first imported

    parameters = suggestion["parameters"]
    map_11pt = math.exp(-abs(math.log(parameters["lr"] / 1e-2)) - 0.1 * parameters["alpha"])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "weights").write_bytes(b"none")
        tune.report({"epoch": 1, "map_11pt": map_11pt}, checkpoint=tune.Checkpoint(folder))


def main(arguments: Arguments, terminal: Terminal) -> None:
    """Runs the search, and prints its figures."""
    tuner.run_trial = do_nothing
    config = Config(
        epochs=1,
        global_batch_size=2,
        model=ModelConfig(backbone="test_resnet.r160_in1k", image_size=64),
        search=SearchConfig(trials=arguments.trials, repeats=RepeatsConfig(top_k=0)),
    )
    with tempfile.TemporaryDirectory() as storage:
        folder = Path(storage) / "overhead"
        began = time.perf_counter()
        run_search(config, "synthetic", folder, terminal, concurrent=arguments.concurrent)
        seconds = time.perf_counter() - began
        trials = load_study(existing_place(folder)).trials
    ends = sorted(t.datetime_complete.timestamp() for t in trials if t.datetime_complete)
    begin = min(t.datetime_start.timestamp() for t in trials if t.datetime_start)
    unit = 2**30 if sys.platform == "darwin" else 2**20
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    terminal.line(
        f"{len(ends)} trials, {arguments.concurrent} at once: {ends[-1] - begin:.1f} s from the "
        f"first start to the last end, {(ends[-1] - begin) / len(ends):.3f} s a trial; the whole "
        f"job {seconds:.1f} s; the driver takes {peak_gib:.2f} GiB at its peak"
    )
    if len(ends) >= 2 * _PART:
        first, last = ends[_PART - 1] - begin, ends[-1] - ends[-_PART - 1]
        terminal.line(
            f"the first {_PART} trials took {first:.1f} s, the last {_PART} {last:.1f} s: "
            f"{last / first:.2f} times as long"
        )


if __name__ == "__main__":
    parsed = tyro.cli(Arguments)
    run_job(lambda terminal: main(parsed, terminal))

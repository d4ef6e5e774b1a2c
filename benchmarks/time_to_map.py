"""Time to a validation mAP, beside torchvision's SSDLite from the same ImageNet weights.

python benchmarks/time_to_map.py --data VOC

Ours: `jobs/train.py` with configs/bccd.yaml and a short schedule, one worker a core, from the
command typed until the line that tells the mAP: the start of Ray, reading and decoding the data,
every validation and checkpoint are in it. Theirs (torchvision_transfer.py): torchvision's detector
on the same backbone with the same weights, its reference recipe at three learning rates around the
recipe's own (0.15 for 192 pictures, so 0.00625 for 8); their validation is not in it. The best of
theirs counts, and each is given up at `--patience` times the longest of ours. Ends with status 1 if
the best takes less than 3 times as long as the median of ours.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
import yaml
from job_runs import ROOT
from rich.console import Console
from rich.table import Table

NEEDED = 3.0
RATES = (0.002, 0.00625, 0.02)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compare the time to a validation mAP with torchvision's."""

    data: Path
    """VOC folder with splits `train` and `val`."""
    until: float = 0.8
    """Validation mAP, 11 points."""
    epochs: int = 6
    """Of our schedule; it is all run, and the first epoch that reaches the mAP is told."""
    turns: int = 3
    """Trainings of ours, each with a seed of its own."""
    patience: float = 4.0


def ours(arguments: Arguments, storage: Path, seed: int) -> list[tuple[float, float]]:
    """Seconds since the command was typed and mAP, of every epoch."""
    config = yaml.safe_load((ROOT / "configs" / "bccd.yaml").read_text(encoding="utf-8"))
    config |= {"epochs": arguments.epochs, "seed": seed}
    file = storage / f"ours-{seed}.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [sys.executable, str(ROOT / "jobs" / "train.py"), "--config", str(file), "--data"]
    command += [str(arguments.data), "--storage", str(storage), "--name", f"ours-{seed}"]
    command += ["--workers", str(len(os.sched_getaffinity(0)))]
    started = time.perf_counter()
    seen: list[tuple[float, float]] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"^\s*epoch.*\bmAP (0\.\d+|1\.0+)", line):
                seen.append((time.perf_counter() - started, float(found[1])))
    if process.returncode or not seen:
        sys.exit(f"jobs/train.py failed: {''.join(said)[-2000:]}")
    return seen


def theirs(arguments: Arguments, lr: float, limit_s: float) -> list[tuple[float, float]]:
    """The same of torchvision's, without its validation."""
    command = [sys.executable, str(ROOT / "benchmarks" / "torchvision_transfer.py")]
    command += ["--data", str(arguments.data), "--lr", str(lr), "--until", str(arguments.until)]
    command += ["--limit-s", str(limit_s), "--threads", str(len(os.sched_getaffinity(0)))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "not finite" not in done.stderr:
        sys.exit(f"torchvision's training failed: {done.stderr[-2000:]}")
    lines = map(json.loads, done.stdout.splitlines())
    return [(line["seconds"], line["map"]) for line in lines]


def time_to(reached: list[tuple[float, float]], wanted: float) -> float | None:
    """Seconds at the first epoch that reaches an mAP."""
    return next((seconds for seconds, value in reached if value >= wanted), None)


def main(arguments: Arguments) -> None:
    """Runs both, and prints the table."""
    table = Table(title=f"until a validation mAP of {arguments.until}")
    for column in ("", "seconds", "epochs", "best mAP", "mAP by epoch"):
        table.add_column(column, justify="left" if column in ("", "mAP by epoch") else "right")

    def row(name: str, seen: list[tuple[float, float]]) -> float | None:
        taken = time_to(seen, arguments.until)
        epochs = sum(taken is None or seconds <= taken for seconds, _ in seen)
        best = max((value for _, value in seen), default=0.0)
        told = f"{taken:.0f}" if taken else f"over {seen[-1][0]:.0f}" if seen else "diverged"
        values = " ".join(f"{value:.2f}" for _, value in seen)
        table.add_row(name, told, str(epochs), f"{best:.3f}", values)
        return taken

    with tempfile.TemporaryDirectory() as storage:
        own = [
            row(f"ssd_dist, seed {seed}", ours(arguments, Path(storage), seed))
            for seed in range(arguments.turns)
        ]
    console = Console(width=110)
    if any(taken is None for taken in own):
        console.print(table)
        sys.exit(f"not every training of ours reached {arguments.until}")
    times = [taken for taken in own if taken is not None]
    limit = arguments.patience * max(times)
    peers = [row(f"torchvision, lr {lr:g}", theirs(arguments, lr, limit)) for lr in RATES]
    console.print(table)
    reached = [taken for taken in peers if taken is not None]
    ratio = min(reached, default=limit) / statistics.median(times)
    console.print(
        f"torchvision's best takes {'' if reached else 'over '}{ratio:.1f} times as long, "
        f"{NEEDED:g} needed"
    )
    sys.exit(ratio < NEEDED)


if __name__ == "__main__":
    main(tyro.cli(Arguments))

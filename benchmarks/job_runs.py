"""Real runs of jobs/train.py, for the benchmarks beside this file, and the data that they share."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]


def copy_part(data: Path, folder: Path, num_train: int, num_val: int = 1) -> Path:
    """The first pictures of the splits `train` and `val` of a VOC folder as one of their own, so
    that an epoch has as many as a benchmark needs. Raises SystemExit if there are not enough."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for split, count in (("train", num_train), ("val", num_val)):
        lines = (data / "ImageSets" / "Main" / f"{split}.txt").read_text("utf-8").split("\n")
        ids = list(itertools.islice((line.split()[0] for line in lines if line.strip()), count))
        if len(ids) < count:
            sys.exit(
                f"{data}: split {split} has {len(ids)} pictures, fewer than the {count} needed"
            )
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(ids), "utf-8")
        for image_id in ids:
            shutil.copy(data / "Annotations" / f"{image_id}.xml", folder / "Annotations")
            (picture,) = (data / "JPEGImages").glob(f"{image_id}.*")
            shutil.copy(picture, folder / "JPEGImages")
    return folder


def train_command(
    config: Mapping[str, Any], data: Path, storage: Path, name: str, *, workers: int
) -> list[str]:
    """What runs jobs/train.py, one thread a worker; its configuration is written to `storage`."""
    file = storage / f"{name}.yaml"
    file.write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
    command = [sys.executable, ROOT / "jobs" / "train.py", "--config", file, "--data", data]
    command += ["--storage", storage, "--name", name, "--workers", workers]
    return list(map(str, command))


def history(experiment: Path) -> list[dict[str, float]]:
    """Every epoch's metrics of a training that has ended."""
    # Two checkpoints are kept, the last one among them: it holds the whole history.
    metas = experiment.rglob("checkpoint_*/checkpoint.json")
    histories = [json.loads(meta.read_text(encoding="utf-8"))["history"] for meta in metas]
    return max(histories, key=len)


def train_job(
    config: Mapping[str, Any], data: Path, storage: Path, name: str, *, workers: int
) -> list[dict[str, float]]:
    """Runs jobs/train.py to its end; every epoch's metrics.

    Raises SystemExit with the job's own words if it fails.
    """
    done = subprocess.run(
        train_command(config, data, storage, name, workers=workers),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    if done.returncode:
        sys.exit(f"jobs/train.py failed: {done.stderr[-2000:]}")
    return history(storage / name)

"""Checkpoints: a folder of safetensors and JSON, no pickle, never half-written.

checkpoint.json     configuration, classes, epoch, metrics, history, each file's checksum
model.safetensors   the weights that validation saw (their moving average, where there is one)
training.pt         optimizer state and, beside an average, the weights that train; tensors and
                    plain containers only, loaded with `weights_only=True`
validation.jpg      a few validation pictures with their detections, where the epoch was the best so
                    far; for people
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ssd_dist.config import Config, from_mapping, to_mapping

FORMAT_VERSION = 1
_META, _MODEL, _TRAINING = "checkpoint.json", "model.safetensors", "training.pt"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """What a finished epoch leaves behind."""

    config: Config
    class_names: tuple[str, ...]
    data: str
    """What the training was given as `--data`."""
    data_fingerprint: str
    """Of the training split."""
    epoch: int
    """Epochs finished."""
    metrics: Mapping[str, float]
    """Of this epoch: `map_11pt`, `loss`, …"""
    history: tuple[Mapping[str, float], ...]
    """The metrics of every epoch so far, this one last."""
    weights: Mapping[str, Tensor]
    """State dict of the network that validation saw."""


def save_checkpoint(
    folder: Path, checkpoint: Checkpoint, training_state: Mapping[str, Any] | None = None
) -> None:
    """Writes `checkpoint` beside `folder` and renames it; an existing `folder` is replaced.

    `training_state` is what a resumed training needs: tensors and numbers in plain containers.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        weights = {name: t.detach().cpu().contiguous() for name, t in checkpoint.weights.items()}
        save_file(weights, scratch / _MODEL)
        if training_state is not None:
            torch.save(dict(training_state), scratch / _TRAINING)
        meta = {
            "version": FORMAT_VERSION,
            "config": to_mapping(checkpoint.config),
            "class_names": list(checkpoint.class_names),
            "data": checkpoint.data,
            "data_fingerprint": checkpoint.data_fingerprint,
            "epoch": checkpoint.epoch,
            "metrics": dict(checkpoint.metrics),
            "history": [dict(epoch) for epoch in checkpoint.history],
            "sha256": {file.name: _sha256(file) for file in sorted(scratch.iterdir())},
        }
        (scratch / _META).write_text(json.dumps(meta, indent=2), encoding="utf-8")
        for file in scratch.iterdir():
            _sync(file)
        scratch.chmod(0o755)  # mkdtemp makes it private
        if folder.exists():
            shutil.rmtree(folder)
        scratch.rename(folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def load_checkpoint(folder: Path) -> Checkpoint:
    """Reads and verifies a checkpoint.

    Raises FileNotFoundError where there is none, ValueError (naming the file) for one that is
    damaged or of a newer version.
    """
    meta = _read_meta(folder)
    _verify(folder, _MODEL, meta)
    try:
        weights = load_file(folder / _MODEL)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{folder / _MODEL}: not a readable safetensors file: {error}") from None
    try:
        return Checkpoint(
            config=from_mapping(meta["config"], source=str(folder / _META)),
            class_names=tuple(meta["class_names"]),
            data=str(meta["data"]),
            data_fingerprint=str(meta["data_fingerprint"]),
            epoch=int(meta["epoch"]),
            metrics=meta["metrics"],
            history=tuple(meta["history"]),
            weights=weights,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / _META}: not a checkpoint's description ({error!r})") from None


def load_training_state(folder: Path) -> dict[str, Any]:
    """The `training_state` given to :func:`save_checkpoint`; same errors as load_checkpoint."""
    _verify(folder, _TRAINING, _read_meta(folder))
    try:
        state: dict[str, Any] = torch.load(
            folder / _TRAINING, map_location="cpu", weights_only=True
        )
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{folder / _TRAINING}: refused: {error}") from None
    return state


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / _META
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint in {folder}: it has no {_META}")
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        version = meta["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a checkpoint's description ({error!r})") from None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format version {version!r}; this release reads version {FORMAT_VERSION}"
        )
    return dict(meta)


def _verify(folder: Path, name: str, meta: Mapping[str, Any]) -> None:
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {folder} is incomplete: {name} is missing")
    if _sha256(path) != meta.get("sha256", {}).get(name):
        raise ValueError(f"{path}: damaged: its checksum is not the one in {_META}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())

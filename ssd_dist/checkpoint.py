"""Checkpoints: a folder of safetensors and JSON, no pickle, never half-written.

checkpoint.json        configuration, classes, epoch, metrics, history, each file's checksum
model.safetensors      the weights that validation saw (their moving average, where there is one)
training.json          what a resumed training needs: the optimizer's state and, beside an average,
training.safetensors   the weights that train; numbers and text here, tensors there
validation.jpg         a few validation pictures with their detections, where the epoch was the best
                       so far; for people
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ssd_dist.config import Config, from_mapping, to_mapping
from ssd_dist.data.typed_json import read_json
from ssd_dist.durable import new_folder
from ssd_dist.nested_state import flatten, unflatten

FORMAT_VERSION = 2
_META, _MODEL = "checkpoint.json", "model.safetensors"
_TRAINING, _TRAINING_TENSORS = "training.json", "training.safetensors"
_EXPECTED = "what a training wrote"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """What a finished epoch leaves behind."""

    config: Config
    class_names: tuple[str, ...]
    data: str
    """What the training was given as `--data`, without secrets of a URL."""
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

    def data_for(self, data: str | None, data_format: str | None) -> tuple[str, str]:
        """A data set for a job on this detector, and its format: `data`, whose format is told by
        looking at it, or without it what the training used; of `data_format`, where that is given.
        """
        if not data:
            return self.data, data_format or self.config.data.format
        return data, data_format or "auto"


class _Meta(msgspec.Struct, kw_only=True):
    """checkpoint.json, but for its version."""

    config: dict[str, Any]
    class_names: tuple[str, ...]
    data: str
    data_fingerprint: str
    epoch: int
    metrics: dict[str, int | float]
    history: tuple[dict[str, int | float], ...]
    sha256: dict[str, str]
    """By the files' names; that of checkpoint.json is of its content without its own checksum."""


def save_checkpoint(
    folder: Path, checkpoint: Checkpoint, training_state: Mapping[str, Any] | None = None
) -> None:
    """Writes `checkpoint` beside `folder`, syncs it and renames it; an existing `folder` is
    replaced.

    Args:
        folder: the checkpoint's.
        checkpoint: what the epoch left.
        training_state: what a resumed training needs: tensors, numbers, text, booleans and None in
            dictionaries, lists and tuples, however nested.

    Raises TypeError, naming the place, for anything else in `training_state`, and OSError if the
    disk does not take it; `folder` is then as it was.
    """
    with new_folder(folder) as scratch:
        weights = {name: t.detach().cpu().contiguous() for name, t in checkpoint.weights.items()}
        safetensors.torch.save_file(weights, scratch / _MODEL)
        if training_state is not None:
            plain, tensors = flatten(training_state)
            safetensors.torch.save_file(tensors, scratch / _TRAINING_TENSORS)
            (scratch / _TRAINING).write_text(json.dumps(plain, allow_nan=False), encoding="utf-8")
        checksums = {file.name: _sha256(file.read_bytes()) for file in sorted(scratch.iterdir())}
        meta = {
            "version": FORMAT_VERSION,
            "config": to_mapping(checkpoint.config),
            "class_names": list(checkpoint.class_names),
            "data": checkpoint.data,
            "data_fingerprint": checkpoint.data_fingerprint,
            "epoch": checkpoint.epoch,
            "metrics": dict(checkpoint.metrics),
            "history": [dict(epoch) for epoch in checkpoint.history],
            "sha256": checksums,
        }
        checksums[_META] = _own_checksum(meta)
        (scratch / _META).write_text(json.dumps(meta, indent=2), encoding="utf-8")


def load_checkpoint(folder: Path) -> Checkpoint:
    """Reads and verifies a checkpoint.

    Raises FileNotFoundError where there is none, ValueError, naming the file in one sentence, for
    one that is damaged or of another version.
    """
    meta = _read_meta(folder)
    return Checkpoint(
        config=from_mapping(meta.config, source=str(folder / _META)),
        class_names=meta.class_names,
        data=meta.data,
        data_fingerprint=meta.data_fingerprint,
        epoch=meta.epoch,
        metrics=meta.metrics,
        history=meta.history,
        weights=_read_tensors(folder, _MODEL, meta),
    )


def load_training_state(folder: Path) -> dict[str, Any]:
    """The `training_state` given to :func:`save_checkpoint`.

    Raises FileNotFoundError if there was none; else the same as load_checkpoint.
    """
    meta = _read_meta(folder)
    if _TRAINING not in meta.sha256:
        raise FileNotFoundError(f"checkpoint {folder} was saved without a training to resume")
    content = _read_verified(folder, _TRAINING, meta)
    tensors = _read_tensors(folder, _TRAINING_TENSORS, meta)
    try:
        state = unflatten(json.loads(content), tensors)
        if not isinstance(state, dict):
            raise ValueError("it is no dictionary")
    except (ValueError, RecursionError) as error:
        reason = f"not the state of a training: {error}"
        raise ValueError(f"{folder / _TRAINING}: {reason}") from None
    return state


def load_into(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Loads all of a model's weights. Raises ValueError, in one sentence that begins with `source`,
    if they are another model's; the model's own may then be partly overwritten."""
    own = model.state_dict()
    names = sorted(own.keys() ^ weights.keys())
    names += [n for n in own if n in weights and own[n].shape != weights[n].shape]
    if names:
        raise ValueError(
            f"{source}: the weights of another model: of {len(own)} tensors {len(names)} are "
            f"missing, too many or of another shape, such as {names[0]}"
        )
    model.load_state_dict(dict(weights))


def _read_meta(folder: Path) -> _Meta:
    path = folder / _META
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint in {folder}: it has no {_META}")
    content = read_json(path, dict[str, Any], _EXPECTED)
    version = content.get("version")
    if version != FORMAT_VERSION:
        if isinstance(version, int) and version > FORMAT_VERSION:
            reason = f"this release reads up to {FORMAT_VERSION}: use the release that wrote it"
        else:
            reason = f"this release reads {FORMAT_VERSION} only: train again"
        raise ValueError(f"{path}: format version {version!r}, and {reason}")
    meta = read_json(path, _Meta, _EXPECTED)
    if meta.sha256.get(_META) != _own_checksum(content):
        raise _damaged(path)
    return meta


def _read_verified(folder: Path, name: str, meta: _Meta) -> bytes:
    """A file's content, which is what was written."""
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {folder} is incomplete: {name} is missing")
    content = path.read_bytes()
    if _sha256(content) != meta.sha256.get(name):
        raise _damaged(path)
    return content


def _read_tensors(folder: Path, name: str, meta: _Meta) -> dict[str, Tensor]:
    content = _read_verified(folder, name, meta)
    try:
        return safetensors.torch.load(content)
    except SafetensorError as error:
        raise ValueError(f"{folder / name}: not a safetensors file: {error}") from None


def _damaged(path: Path) -> ValueError:
    return ValueError(f"{path}: damaged: its checksum is not the one in {_META}")


def _own_checksum(meta: Mapping[str, Any]) -> str:
    """Of checkpoint.json's content, however it is laid out as text, but for this checksum."""
    others = {name: value for name, value in meta["sha256"].items() if name != _META}
    return _sha256(json.dumps({**meta, "sha256": others}, sort_keys=True).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

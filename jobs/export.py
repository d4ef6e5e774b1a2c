"""Exports a detector to ONNX, TorchScript or torch.export: one file, pictures in, detections out.

python jobs/export.py --experiment runs/search --to onnx
"""

from __future__ import annotations

import contextlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from ssd_dist.distributed.mirror import mirrored, place_at
from ssd_dist.experiment import best_checkpoint, latest_experiment, storage_folder
from ssd_dist.importing import importing
from ssd_dist.terminal import Terminal, run_job, shown


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write a detector as one file that resizes, detects and suppresses, checked against PyTorch on
    real pictures, with a model card and the labels beside it."""

    to: Literal["onnx", "torchscript", "torch-export"] = "onnx"
    """Format of the file; `onnx` needs the extra `export`."""
    experiment: str | None = None
    """Folder (or s3://…, gs://…) of a training or a search: its best checkpoint is exported.
    Without it and --checkpoint: the experiment in `runs` that finished last."""
    checkpoint: str | None = None
    """Folder of one checkpoint, instead of an experiment."""
    data: str | None = None
    """Folder, URL or name of the data set to check with; without it, what the checkpoint was
    trained on."""
    format: str | None = None
    """Of `data`: `voc`, `coco` or `yolo`; without it, told by looking at the folder."""
    split: str | None = None
    """Split to check with; without it, the one the training validated on."""
    out: str | None = None
    """Folder to write; without it, `export/<format>` in the experiment's (or checkpoint's)."""
    size: str | None = None
    """Width and height of the pictures that the file takes, such as 640x480; without it, those of
    most pictures of the split."""
    dynamic_size: bool = False
    """The file takes pictures of any size; resizing then takes longer."""
    check_pictures: int = 16
    """Pictures to compare with PyTorch on."""
    int8: bool = False
    """Also write an int8 file (onnx), and evaluate it beside the other on the split."""
    calibration_pictures: int = 64
    """Training pictures that give int8 its scales."""
    report: Path | None = None
    """report.json for the model card; without it, that of the experiment's `report` folder."""
    weights_licence: str | None = None
    """For the model card, where you know more than it does."""
    data_licence: str | None = None
    """Likewise."""


def main(arguments: Arguments, terminal: Terminal) -> None:
    """Arguments → checkpoint → one export."""
    if arguments.experiment is not None and arguments.checkpoint is not None:
        raise ValueError("give --experiment or --checkpoint, not both")
    size = _width_and_height(arguments.size)
    out = storage_folder(arguments.out) if arguments.out is not None else None
    with importing():
        from ssd_dist.checkpoint import load_checkpoint
        from ssd_dist.export.card import check_report
        from ssd_dist.export.export import INT8, ExportOptions, run_export

    place = place_at(arguments.experiment) if arguments.experiment else None
    with mirrored(place, writes=False) if place else contextlib.nullcontext():
        if arguments.checkpoint is not None:
            folder = checkpoint = storage_folder(arguments.checkpoint)
        else:
            folder = place.folder if place else latest_experiment(storage_folder("runs"))
            checkpoint = best_checkpoint(folder)
        options = ExportOptions(
            format=arguments.to,
            size=size,
            dynamic_size=arguments.dynamic_size,
            num_check_pictures=arguments.check_pictures,
            int8=arguments.int8,
            num_calibration_pictures=arguments.calibration_pictures,
            weights_licence=arguments.weights_licence,
            data_licence=arguments.data_licence,
        )
        loaded = load_checkpoint(checkpoint)
        data, data_format = loaded.data_for(arguments.data, arguments.format)
        if arguments.report is not None:
            check_report(arguments.report, loaded)
        file = run_export(
            checkpoint,
            data,
            arguments.split or loaded.config.data.val_split,
            out or folder / "export" / arguments.to,
            options,
            terminal,
            report=arguments.report or folder / "report" / "report.json",
            data_format=data_format,
        )
    beside = f"{INT8}, its model card" if arguments.int8 else "its model card"
    terminal.heading(f"Detector: {shown(file)}, with {beside} and labels beside it")


def _width_and_height(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if found is None:
        raise ValueError(f"--size is width x height, such as 640x480, not {text!r}")
    return int(found[1]), int(found[2])


if __name__ == "__main__":
    parsed = tyro.cli(Arguments, config=(tyro.conf.FlagCreatePairsOff,))
    sys.exit(run_job(lambda terminal: main(parsed, terminal)))

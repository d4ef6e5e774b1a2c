"""A detector as an ONNX file beside PyTorch: mAP on the test split, and time a picture on a thread.

python benchmarks/export.py --experiment runs/search --data path/to/VOC

Exits with 1 if their mAP differs by more than 0.0001.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from ssd_dist.checkpoint import load_checkpoint
from ssd_dist.data import open_split
from ssd_dist.experiment import best_checkpoint, storage_folder
from ssd_dist.export.check import file_detector, pytorch_detector
from ssd_dist.export.export import FILES, commonest_size, load, write
from ssd_dist.export.graph import ExportedDetector
from ssd_dist.export.measure import measure, variant_table
from ssd_dist.model.restored import restored
from ssd_dist.terminal import JobFailedError, Terminal, run_job

TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compare a detector's ONNX file with PyTorch."""

    experiment: str
    """Folder of a finished training or search."""
    data: str | None = None
    """Data set; without it, what the checkpoint was trained on."""
    split: str = "test"


def main(arguments: Arguments, terminal: Terminal) -> None:
    checkpoint = load_checkpoint(best_checkpoint(storage_folder(arguments.experiment)))
    config = checkpoint.config
    data, data_format = checkpoint.data_for(arguments.data, None)
    split = open_split(
        data,
        arguments.split,
        checkpoint.class_names,
        data_format=data_format,
    )
    size = commonest_size(split)
    positions = [i for i, one in enumerate(split.annotations) if (one.width, one.height) == size]
    model = restored(checkpoint)
    find = pytorch_detector(model, config)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / FILES["onnx"]
        write(ExportedDetector(model, config.postprocess, size), file, "onnx", checkpoint)
        ways = {
            "PyTorch": lambda name, picture: find(name, picture).detections,
            "onnxruntime": file_detector(load(file, "onnx", num_threads=1)),
        }
        num_bytes = {"onnxruntime": file.stat().st_size}
        variants = measure(ways, num_bytes, split, positions, with_map=True)
    terminal.line(f"{len(positions)} pictures of {size[0]}x{size[1]} pixels, split {split.name}")
    terminal.console.print(variant_table(variants))
    values = [one.map_11pt or 0.0 for one in variants]
    terminal.line(f"difference of mAP: {abs(values[0] - values[1]):.1e}")
    if abs(values[0] - values[1]) > TOLERANCE:
        raise JobFailedError(f"mAP differs by more than {TOLERANCE:g}")


if __name__ == "__main__":
    parsed = tyro.cli(Arguments)
    sys.exit(run_job(lambda terminal: main(parsed, terminal)))

"""An export from top to bottom: the file written, checked, perhaps quantised, and described."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ssd_dist.checkpoint import Checkpoint, load_checkpoint
from ssd_dist.config import to_mapping
from ssd_dist.data import open_split
from ssd_dist.data.signed_urls import publishable
from ssd_dist.durable import new_folder
from ssd_dist.experiment import anchored
from ssd_dist.export.card import CardContent, matching_report, model_card
from ssd_dist.export.check import agreement, file_detector, pytorch_detector
from ssd_dist.export.graph import ExportedDetector
from ssd_dist.export.licences import licence_of_data, licence_of_weights
from ssd_dist.export.measure import Detect, measure, variant_table
from ssd_dist.export.onnx_file import Run, check_onnx_installed, load_onnx, write_onnx
from ssd_dist.export.quantise import quantise
from ssd_dist.export.torch_files import (
    load_torch_export,
    load_torchscript,
    write_torch_export,
    write_torchscript,
)
from ssd_dist.model.restored import restored
from ssd_dist.structures import Split
from ssd_dist.terminal import Terminal

Format = Literal["onnx", "torchscript", "torch-export"]

FILES: dict[Format, str] = {
    "onnx": "model.onnx",
    "torchscript": "model.torchscript.pt",
    "torch-export": "model.pt2",
}
INT8, CARD, LABELS = "model.int8.onnx", "MODEL_CARD.md", "labels.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What is exported, and how it is checked."""

    format: Format
    size: tuple[int, int] | None = None
    """Width and height of the pictures; None: the commonest of the split."""
    dynamic_size: bool = False
    """Pictures of any size."""
    num_check_pictures: int = 16
    int8: bool = False
    """Also an int8 file; both files and PyTorch are then evaluated on the whole split."""
    num_calibration_pictures: int = 64
    weights_licence: str | None = None
    data_licence: str | None = None

    def __post_init__(self) -> None:
        if self.dynamic_size and self.size is not None:
            raise ValueError("give --size or --dynamic-size, not both")
        if self.int8 and self.format != "onnx":
            raise ValueError("--int8 quantises ONNX: it goes with --to onnx")
        if min(self.num_check_pictures, self.num_calibration_pictures) < 1:
            raise ValueError("at least one picture is needed to check with, and to calibrate with")
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"--size must be at least 1x1 pixels, not {self.size}")


def run_export(
    checkpoint_folder: Path,
    data: str,
    split_name: str,
    out: Path,
    options: ExportOptions,
    terminal: Terminal,
    *,
    report: Path,
    data_format: str = "auto",
) -> Path:
    """Exports a checkpoint into the folder `out`, which appears when all is well.

    Args:
        checkpoint_folder: see checkpoint.py.
        data: of the pictures to check with; its classes must be the checkpoint's.
        split_name: of the pictures to check with.
        out: the folder; an earlier export in it is replaced.
        options: what to write.
        terminal: where progress is shown.
        report: report.json of an evaluation, for the card, where there is one.
        data_format: of `data`, as `data.format` in a configuration.

    Returns the file.

    Raises:
        ValueError, FileNotFoundError: what was asked for can't be; in one sentence.
        JobFailedError: the file does not find what PyTorch finds. Nothing is then written.
    """
    if options.format == "onnx":
        check_onnx_installed()
    _check_replaceable(out)
    checkpoint = load_checkpoint(checkpoint_folder)
    _, data = anchored(checkpoint.config, data)
    split = open_split(data, split_name, checkpoint.class_names, data_format=data_format)
    size = None if options.dynamic_size else options.size or commonest_size(split)
    usable = _usable(split, size)
    model = restored(checkpoint)
    find = pytorch_detector(model, checkpoint.config)
    shown_size = "any size" if size is None else f"{size[0]}x{size[1]} pixels"
    terminal.line(f"exporting to {options.format}: pictures of {shown_size}, batches of any size")
    detector = ExportedDetector(model, checkpoint.config.postprocess, size)
    with new_folder(out) as scratch:
        file = scratch / FILES[options.format]
        write(detector, file, options.format, checkpoint)
        checked = _spread(usable, options.num_check_pictures)
        terminal.line(f"checking against PyTorch on {len(checked)} pictures of {split_name}")
        found = agreement(load(file, options.format), find, split, checked)
        terminal.line(
            f"the same {found.num_detections} detections: scores differ by "
            f"{found.score_difference:.1e} at most, coordinates by {found.box_difference:.1e} px"
        )
        files: dict[str, Path] = {options.format: file}
        if options.int8:
            files["onnx, int8"] = scratch / INT8
            names = checkpoint.class_names
            training_split = checkpoint.config.data.train_split
            training = open_split(data, training_split, names, data_format=data_format)
            calibration = _spread(_usable(training, size), options.num_calibration_pictures)
            terminal.line(f"int8: calibrating on {len(calibration)} training pictures")
            quantise(file, scratch / INT8, training, calibration)
        ways: dict[str, Detect] = {"PyTorch": lambda name, p: find(name, p).detections}
        for name, path in files.items():
            ways[name] = file_detector(load(path, options.format, num_threads=1))
        num_bytes = {name: path.stat().st_size for name, path in files.items()}
        if options.int8:
            terminal.line(
                f"evaluating on {len(usable)} of the {len(split.annotations)} pictures of "
                f"{split_name}: those that the file takes"
            )
        variants = measure(ways, num_bytes, split, usable, with_map=options.int8)
        content = CardContent(
            checkpoint=checkpoint,
            file=file.name,
            format=options.format,
            size=size,
            num_outputs=detector.num_detections,
            least_prior=float(model.priors_cxcywh[:, 2:].min()),
            checked_on=f"split `{split_name}` of `{Path(publishable(data)).name}`",
            agreement=found,
            variants=variants,
            num_map_pictures=len(usable) if options.int8 else None,
            report=matching_report(report, checkpoint),
            weights_licence=options.weights_licence or licence_of_weights(checkpoint.config.model),
            data_licence=options.data_licence or licence_of_data(checkpoint.data),
        )
        (scratch / CARD).write_text(model_card(content), encoding="utf-8")
        labels = "".join(f"{name}\n" for name in checkpoint.class_names)
        (scratch / LABELS).write_text(labels, encoding="utf-8")
    terminal.console.print(variant_table(variants))
    return out / FILES[options.format]


def write(detector: ExportedDetector, file: Path, kind: Format, checkpoint: Checkpoint) -> None:
    """Writes one file. Raises ValueError, in one sentence, if the network can't be exported."""
    example = _example(detector)
    if kind == "onnx":
        metadata = {
            "class_names": list(checkpoint.class_names),
            "config": to_mapping(checkpoint.config),
            "data_fingerprint": checkpoint.data_fingerprint,
        }
        write_onnx(detector, example, file, metadata)
    elif kind == "torchscript":
        write_torchscript(detector, example, file)
    else:
        write_torch_export(detector, example, file)


def commonest_size(split: Split) -> tuple[int, int]:
    """Width and height that most of the split's pictures have, of equals the first's."""
    sizes = Counter((one.width, one.height) for one in split.annotations)
    return sizes.most_common(1)[0][0]


def load(file: Path, kind: Format, num_threads: int | None = None) -> Run:
    """An exported file, run on the CPU. `num_threads` is onnxruntime's; torch has one number for
    all that it does."""
    if kind == "onnx":
        return load_onnx(file, num_threads)
    return load_torchscript(file) if kind == "torchscript" else load_torch_export(file)


def _example(detector: ExportedDetector) -> Tensor:
    """Pictures to trace with: two, and of sides that are unlike each other and the network's, so
    that no exporter takes one number for another."""
    side = detector.model.image_size
    width, height = detector.size or (2 * side + 3, side + 7)
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)


def _usable(split: Split, size: tuple[int, int] | None) -> list[int]:
    """Positions of the pictures that the file takes. Those more than twice as high as wide are not
    among them where the size is dynamic: there a grey level may differ (see resize.py)."""
    positions = [
        position
        for position, one in enumerate(split.annotations)
        if (one.height <= 2 * one.width if size is None else (one.width, one.height) == size)
    ]
    if not positions:
        wanted = (
            "at most twice as high as wide" if size is None else f"of {size[0]}x{size[1]} pixels"
        )
        raise ValueError(f"the split {split.name!r} has no picture {wanted} to check with")
    return positions


def _spread(positions: Sequence[int], count: int) -> list[int]:
    """At most `count` of them, evenly spread."""
    step = max(1.0, len(positions) / count)
    return [positions[int(i * step)] for i in range(min(count, len(positions)))]


def _check_replaceable(out: Path) -> None:
    """Raises ValueError if `out` holds anything that no export wrote: it would be lost."""
    if out.is_dir():
        own = {*FILES.values(), INT8, CARD, LABELS}
        others = sorted(path.name for path in out.iterdir() if path.name not in own)
        if others:
            raise ValueError(
                f"{out} holds other files than an export's ({others[0]}): choose another --out"
            )
    elif out.exists():
        raise ValueError(f"{out} is a file: choose another --out")

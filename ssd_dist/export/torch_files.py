"""The detector as a TorchScript file or a program of torch.export, and these files run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torchvision  # noqa: F401 - registers the suppression that both kinds of file call
from torch import Tensor

from ssd_dist.export.graph import ExportedDetector
from ssd_dist.export.onnx_file import Run, dynamic_sizes, first_line, quiet


def write_torchscript(detector: ExportedDetector, example: Tensor, path: Path) -> None:
    """Traces the detector on `example`, (B, 3, H, W) uint8. Raises ValueError, in one sentence, if
    it can't be traced."""
    try:
        with quiet():
            torch.jit.save(torch.jit.trace(detector, (example,), check_trace=False), path)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"the network can't be traced as TorchScript ({first_line(error)}): export it with "
            "--to torch-export, or train it with another backbone"
        ) from error


def write_torch_export(detector: ExportedDetector, example: Tensor, path: Path) -> None:
    """Exports the detector with `torch.export`; `example`: (B, 3, H, W) uint8 with B > 1. Raises
    ValueError, in one sentence, if it can't be followed."""
    try:
        with quiet():
            shapes = {"pictures": dynamic_sizes(detector)}
            program = torch.export.export(detector, (example,), dynamic_shapes=shapes)
            torch.export.save(program, path)
    # What torch.export and its serialiser raise has no common class but this.
    except Exception as error:
        raise ValueError(
            f"torch.export can't follow the network ({first_line(error)}): export it with "
            "--to torchscript, or train it with another backbone"
        ) from error


def load_torchscript(path: Path) -> Run:
    """The file, run on the CPU."""
    with quiet():
        module = torch.jit.load(path, map_location="cpu")
    return _run(module)


def load_torch_export(path: Path) -> Run:
    """The file, run on the CPU."""
    with quiet():
        module = torch.export.load(path).module()
    return _run(module)


def _run(module: torch.nn.Module) -> Run:
    @torch.inference_mode()
    def run(pictures: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(output.numpy() for output in module(torch.from_numpy(pictures)))

    return run

"""The table of RESULTS.md on a machine with a GPU: each benchmark that can run on one, on it.

python benchmarks/gpu.py --data VOC

Training throughput of SSDLite320 and SSD300-VGG16 with data and augmentation, against torchvision's
loop; our step against the bare network; matching, loss and backward, and post-processing, against
torchvision's. fp32 and bf16. What each measures stands in the file it comes from, whose own words
are printed; a last table says which of their figures, which are those of the CPU, were met.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from job_runs import ROOT
from rich.console import Console
from rich.table import Table

MODELS = ("ssdlite320_mobilenet_v3_large", "ssd300_vgg16")
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Run the benchmarks on a GPU."""

    data: Path
    """VOC folder with splits `train` and `val`."""
    batch: int = 32
    """Pictures a training step."""
    pictures: int = 160
    """Of an epoch in the training throughput."""


def commands(arguments: Arguments) -> dict[str, list[str]]:
    """What is run: a benchmark's name in words → its command line."""
    batch = ["--batch", str(arguments.batch)]
    runs = {
        "matching, loss, backward": ["objective.py"],
        "post-processing": ["postprocessing.py"],
    }
    for model in MODELS:
        for precision in PRECISIONS:
            of_model = ["--model", model, "--precision", precision, *batch]
            data = ["--data", str(arguments.data), "--pictures", str(arguments.pictures)]
            runs[f"step against the bare network, {model}, {precision}"] = ["step.py", *of_model]
            runs[f"training throughput, {model}, {precision}"] = ["training.py", *of_model, *data]
    return {name: [*command, "--device", "cuda"] for name, command in runs.items()}


def main(arguments: Arguments) -> int:
    """Runs them one after the other; the number of figures that were missed."""
    if not torch.cuda.is_available():
        sys.exit("no GPU here: torch.cuda.is_available() is false; nothing was measured")
    console = Console(width=110)
    console.print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    )
    table = Table(title="on the GPU")
    table.add_column("benchmark")
    table.add_column("figure of the CPU")
    missed = 0
    for name, (file, *options) in commands(arguments).items():
        console.rule(name)
        done = subprocess.run([sys.executable, str(ROOT / "benchmarks" / file), *options])
        missed += done.returncode != 0
        table.add_row(name, "met" if done.returncode == 0 else "missed, or it failed: see above")
    console.print(table)
    return missed


if __name__ == "__main__":
    sys.exit(bool(main(tyro.cli(Arguments))))

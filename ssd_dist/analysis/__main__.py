"""What a model costs by count and by the clock, and whether the first explains the second.

python -m ssd_dist.analysis complexity --model ssd300_vgg16 --size 300
python -m ssd_dist.analysis timing --model tf_efficientnet_lite0 --size 224
python -m ssd_dist.analysis law
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

# What computes is imported where it is needed: a question for help, or a flag that does not exist,
# is answered without loading torch; and a count without what only a timing needs.

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from ssd_dist.analysis.models import ChosenModel
    from ssd_dist.terminal import Terminal

_PROGRAM = "python -m ssd_dist.analysis"
_WHAT = "What a model costs by count and by the clock, and whether the first explains the second."


@dataclass(frozen=True, kw_only=True)
class ModelArguments:
    """Which model, and how it is trained."""

    model: str
    """`ssd300_vgg16`, `ssdlite320_mobilenet_v3_large`, a timm backbone, or a configuration file
    (.yaml)."""
    size: int | None = None
    """Side of the input in pixels; without it, the configuration's, or what the detector was made
    for, or 300."""
    num_classes: int | None = None
    """Classes with the background among them, as torchvision counts; without it, those that the
    configuration names, or COCO's 91."""
    head: Literal["ssd", "ssdlite"] | None = None
    """Heads on a timm backbone, plain (the default) or depthwise separable."""
    batch_size: int | None = None
    """Pictures of a training step; without it, the configuration's, or 8."""
    optimizer: Literal["sgd", "adamw"] | None = None
    """Without it, the configuration's."""
    json: Path | None = None
    """File for all numbers, by the keys of report.json."""

    def choose(self) -> ChosenModel:
        """The model. Raises ValueError or FileNotFoundError for one that does not exist."""
        from ssd_dist.analysis.models import choose_model

        return choose_model(
            self.model,
            image_size=self.size,
            num_classes=self.num_classes,
            head=self.head,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
        )


@dataclass(frozen=True, kw_only=True)
class ComplexityArguments(ModelArguments):
    """Count what a model costs: multiply-accumulates, parameters, bytes and memory, layer by layer,
    for a picture and for a training step. Nothing is computed: it takes seconds."""


@dataclass(frozen=True, kw_only=True)
class TimingArguments(ModelArguments):
    """Time a model's training step and inference on drawn pictures: by segment, by kind of
    operation, and on every device there is."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: the GPU, if there is one."""
    trace: Path | None = None
    """File for a Chrome trace of a few training steps."""
    devices: bool = True
    """Time the step on every other device, too."""


@dataclass(frozen=True, kw_only=True)
class LawArguments:
    """Time a sweep of detectors, and tell whether time follows weights, operations or bytes."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: the GPU, if there is one."""
    seconds: float = 90
    """Time for all of it, more or less."""
    json: Path | None = None
    """File for all numbers, by the keys of report.json."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a command shows, and what it writes."""

    tables: Sequence[Table]
    lines: Sequence[str]
    content: dict[str, Any]


def complexity(arguments: ComplexityArguments) -> Findings:
    """Counts; see :func:`ssd_dist.analysis.complexity.count_complexity`."""
    from ssd_dist.analysis.complexity import count_complexity
    from ssd_dist.analysis.complexity_tables import summary, tables

    chosen = arguments.choose()
    model = chosen.build_without_memory()
    counted = count_complexity(model, model.image_size, chosen.config)
    return Findings(tables(counted), summary(counted), counted.to_json())


def timing(arguments: TimingArguments, terminal: Terminal) -> Findings:
    """Times; see :func:`ssd_dist.analysis.timing_report.measure_timing`."""
    from ssd_dist.analysis.complexity import count_complexity
    from ssd_dist.analysis.timing_report import measure_timing
    from ssd_dist.analysis.timing_tables import tables
    from ssd_dist.engine import place

    chosen, device = arguments.choose(), _device(arguments.device)
    config = chosen.config
    model = place(chosen.build(), config, device)
    counted = count_complexity(model, model.image_size, config)
    report = measure_timing(
        model,
        config,
        device,
        batch_size=config.global_batch_size,
        trace=arguments.trace,
        predicted_bytes=counted.training.memory.peak,
        with_devices=arguments.devices,
        on_progress=terminal.line,
    )
    return Findings(tables(report), [], report.to_json())


def law(arguments: LawArguments, terminal: Terminal) -> Findings:
    """Times the sweep; see :func:`ssd_dist.analysis.law.measure_law`."""
    from ssd_dist.analysis.law import measure_law, table

    if arguments.seconds <= 0:
        raise ValueError(f"--seconds must be above 0, not {arguments.seconds:g}")
    found = measure_law(
        device=_device(arguments.device),
        time_budget_s=arguments.seconds,
        on_progress=terminal.line,
    )
    keys = found.to_json()
    return Findings(table(found), [], {**keys.pop("law"), **keys})


def _device(name: str) -> torch.device:
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: there is no GPU here that torch can use; choose cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


Arguments = (
    Annotated[ComplexityArguments, tyro.conf.subcommand("complexity")]
    | Annotated[TimingArguments, tyro.conf.subcommand("timing")]
    | Annotated[LawArguments, tyro.conf.subcommand("law")]
)


def main(arguments: Arguments, terminal: Terminal) -> None:
    """One command: tables on the terminal, numbers in the file.

    Raises ValueError or OSError, in one sentence, for what the user can put right.
    """
    from ssd_dist.experiment import write_json

    if arguments.json is not None and arguments.json.is_dir():
        raise ValueError(f"--json {arguments.json} is a folder; give a file")
    match arguments:
        case ComplexityArguments():
            findings = complexity(arguments)
        case TimingArguments():
            findings = timing(arguments, terminal)
        case LawArguments():
            findings = law(arguments, terminal)
    for table in findings.tables:
        terminal.console.print(table)
        terminal.line("")
    for line in findings.lines:
        terminal.heading(line)
    if arguments.json is not None:
        write_json(arguments.json, findings.content)


def run(argv: Sequence[str] | None = None) -> int:
    """The exit status; `argv` is `sys.argv` if None."""
    arguments = tyro.cli(Arguments, args=argv, prog=_PROGRAM, description=_WHAT)
    if isinstance(arguments, ComplexityArguments):
        # It is soon over, and to look for garbage among all that torch loads takes a third of it.
        gc.disable()
    try:
        from ssd_dist.terminal import run_job

        return run_job(lambda terminal: main(arguments, terminal))
    finally:
        gc.enable()


if __name__ == "__main__":
    status = run()
    gc.freeze()  # nor is there any need to look through it at the end
    sys.exit(status)

"""What a search trained again: its best configurations and the SSD paper's, several seeds each.

It stands in the experiment's repeats.json, best mean first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ssd_dist.experiment import BEST, TrialRecord, ranked, read_json, trial_from_json, write_json

_REPEATS = "repeats.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """A configuration that was trained again, in full, with several seeds."""

    parameters: Mapping[str, Any]
    """Dotted path in the configuration → value, without the seed."""
    trial: int | None
    """The search's trial that it was; None: the search did not try it."""
    is_paper: bool
    """Whether it is the SSD paper's defaults."""
    runs: tuple[TrialRecord, ...]
    """One a seed, which is `parameters["seed"]`; their numbers are those of the repeats' study."""
    split_values: tuple[float, ...] | None = None
    """mAP of each of `measured` on the split of a report; None: not evaluated."""

    @property
    def name(self) -> str:
        """What people call it."""
        if not self.is_paper:
            return f"trial {self.trial}"
        return "the paper's defaults" + ("" if self.trial is None else f" (trial {self.trial})")

    @property
    def measured(self) -> tuple[TrialRecord, ...]:
        """The runs that say something of the configuration: not those that failed by accident."""
        return tuple(run for run in self.runs if run.state in ("complete", "diverged"))

    @property
    def values(self) -> tuple[float, ...]:
        """Validation mAP of each of `measured`; 0 for one that diverged."""
        return tuple(run.map_11pt or 0.0 for run in self.measured)

    @property
    def mean(self) -> float | None:
        """Of `values`; None if there are none."""
        return fmean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation of `values`; None if they are fewer than two."""
        return stdev(self.values) if len(self.values) > 1 else None

    def summary(self) -> dict[str, Any]:
        """The figures for best.json: `values` in the order of `seeds`."""
        return {
            "trial": self.trial,
            "is_paper": self.is_paper,
            "seeds": [run.parameters["seed"] for run in self.measured],
            "values": list(self.values),
            "mean": self.mean,
            "std": self.std,
        }

    @property
    def best_run(self) -> TrialRecord | None:
        """The run of the highest validation mAP that has a checkpoint."""
        kept = [run for run in self.measured if run.map_11pt is not None and run.checkpoint]
        return ranked(kept)[0] if kept else None


def spread(values: Sequence[float], digits: int = 3) -> str:
    """`0.912 ± 0.004`: mean and sample standard deviation; a single value as it is."""
    if not values:
        return "–"
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{deviation}"


def write_repeats(folder: Path, repeats: Sequence[Repeated]) -> None:
    """Writes repeats.json, with each configuration's values, mean and deviation."""
    write_json(folder / _REPEATS, [repeated_json(one) for one in repeats])


def read_repeats(folder: Path) -> list[Repeated] | None:
    """What was trained again, best mean first; None where nothing was. The checkpoints are found
    also after the experiment's folder was moved."""
    if not (folder / _REPEATS).is_file():
        return None
    before = Path(read_json(folder / BEST)["checkpoint"]).parent
    return [
        Repeated(
            parameters=one["parameters"],
            trial=one["trial"],
            is_paper=one["is_paper"],
            runs=tuple(_moved(trial_from_json(run), before, folder) for run in one["runs"]),
        )
        for one in read_json(folder / _REPEATS)
    ]


def repeated_json(repeated: Repeated) -> dict[str, Any]:
    """A configuration's repeats for JSON: its fields, and those of its summary."""
    return {**asdict(repeated), **repeated.summary()}


def _moved(trial: TrialRecord, before: Path, folder: Path) -> TrialRecord:
    """The trial with its checkpoint where it lies now."""
    if trial.checkpoint is None or not Path(trial.checkpoint).is_relative_to(before):
        return trial
    return replace(trial, checkpoint=str(folder / Path(trial.checkpoint).relative_to(before)))

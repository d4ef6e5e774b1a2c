"""The law: does running time follow the number of weights, of operations, or of bytes?

"Running time scales linearly with the number of weights" is a claim that is often made and seldom
measured. Here many detectors are timed and the time of a picture is regressed on each of the three,
as a line (is it linear?) and as a power law (with which exponent?).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from rich.table import Table

from ssd_dist.allocator import keep_freed_memory
from ssd_dist.analysis import scaling as scaling_
from ssd_dist.analysis.devices import num_processors
from ssd_dist.analysis.regression import LinearFit, Regression, fit_linear, regress
from ssd_dist.analysis.scaling import Scaling, measure_scaling, workers_to_measure
from ssd_dist.analysis.sweep import MeasuredPoint, Point, measure_sweep, sweep_for

PREDICTORS = {"weights": "weights", "macs": "multiply-accumulates", "bytes": "bytes moved"}
"""Key → name."""
PREDICTS = 0.9
"""From this R² on a predictor predicts; below half of it, it says next to nothing."""

Phase = Literal["training", "inference"]

NOISY = 0.25
"""From this spread on the machine was noisy."""
_SWEEP_SHARE = 0.8
_UNITS = {"weights": (1e6, "million"), "macs": (1e9, "billion"), "bytes": (1e6, "MB")}


@dataclass(frozen=True, slots=True)
class Law:
    """What was measured on a machine, and what it says. Times are milliseconds a picture."""

    points: tuple[MeasuredPoint, ...]
    """At least four."""
    device: str
    num_threads: int
    scaling: Scaling

    def times(self, phase: Phase) -> list[float]:
        """Median time of each point's training step or inference."""
        return [getattr(point, phase).ms.median for point in self.points]

    def values(self, phase: Phase, predictor: str) -> list[float]:
        """What the predictor is at each point. The weights are the same in both phases."""
        if predictor == "weights":
            return [float(point.weights) for point in self.points]
        return [getattr(getattr(point, phase), predictor) for point in self.points]

    def fits(self, phase: Phase) -> dict[str, Regression]:
        """Time on each of `PREDICTORS`."""
        times = self.times(phase)
        return {key: regress(self.values(phase, key), times) for key in PREDICTORS}

    def ratios(self, phase: Phase) -> dict[str, list[float]]:
        """For each of `PREDICTORS`, point by point: the measured time by that of its power law."""
        return {
            key: [
                time / fit.by_power_law(x)
                for x, time in zip(self.values(phase, key), self.times(phase), strict=True)
            ]
            for key, fit in self.fits(phase).items()
        }

    def fit_on_both(self, phase: Phase) -> LinearFit:
        """Time on multiply-accumulates and bytes together, slopes in this order: computing and
        moving each take their time, as in a roofline whose two roofs add up."""
        predictors = [self.values(phase, "macs"), self.values(phase, "bytes")]
        return fit_linear(predictors, self.times(phase))

    @property
    def correlation(self) -> dict[str, float]:
        """Pearson's correlation of each two predictors of training over the points, `weights_macs`
        and so on: where it is near 1 the sweep can't tell the two apart."""
        return {
            f"{first}_{second}": float(
                np.corrcoef(self.values("training", first), self.values("training", second))[0, 1]
            )
            for first, second in itertools.combinations(PREDICTORS, 2)
        }

    @property
    def spread(self) -> float:
        """How unquiet the machine was: the median over the points of the range from the 10th to the
        90th percentile of a point's steps, relative to their median."""
        times = [point.training.ms for point in self.points]
        return float(np.median([(time.p90 - time.p10) / time.median for time in times]))

    @property
    def noisy(self) -> bool:
        """Whether the times may differ noticeably in another run."""
        return self.spread > NOISY

    @property
    def sentence(self) -> str:
        """The law in one sentence: the predictor of training time with the highest R², the others'
        R², what becomes of the claim about weights, and the point that the best one's power law
        misses by the largest factor."""
        fits, ratios = self.fits("training"), self.ratios("training")
        best, *others = sorted(fits, key=lambda key: -fits[key].line.r2)
        r2, exponent, of_weights = fits[best].line.r2, fits[best].exponent, fits["weights"]
        strength = "come nearest to predicting"
        if r2 >= PREDICTS:
            strength = "predict"
        elif r2 < PREDICTS / 2:
            strength = "say most, which is little, about"
        others_r2 = ", ".join(f"{PREDICTORS[key]} {fits[key].line.r2:.2f}" for key in others)
        is_linear = of_weights.line.r2 >= PREDICTS and 1.0 in of_weights.exponent
        worst = max(range(len(self.points)), key=lambda i: abs(math.log(ratios[best][i])))
        return (
            f"On this machine ({self.machine}) {PREDICTORS[best]} {strength} the time of a "
            f"training step: R² is {r2:.2f} ({others_r2}, operations and bytes together "
            f"{self.fit_on_both('training').r2:.2f}), and time grows with their power "
            f"{exponent.value:.2f} (95 % interval {exponent.low:.2f} to {exponent.high:.2f}); it "
            f"{'scales' if is_linear else 'does not scale'} linearly with the number of weights, "
            f"and the law breaks most at {self.points[worst].point.name}, with "
            f"{ratios[best][worst]:.2f} times the time foretold."
        )

    @property
    def machine(self) -> str:
        """`cpu, 2 threads`, or the GPU's name."""
        if self.device != "cpu":
            return self.device
        return f"cpu, {self.num_threads} thread{'' if self.num_threads == 1 else 's'}"

    def to_json(self) -> dict[str, Any]:
        """Two keys of report.json.

        `law`: each of `PREDICTORS` → the regression of training time on it
        (:meth:`Regression.to_json`), and nothing else. `law_details`: `sentence`; `device`,
        `num_threads`, `spread`, `noisy`; `points`; `correlation`; `macs_and_bytes`, the regression
        on both; `inference`, like `law`; `scaling` (:meth:`Scaling.to_json`). Slopes are
        milliseconds a picture for one weight, multiply-accumulate or byte.
        """
        both = self.fit_on_both("training")
        return {
            "law": {key: fit.to_json() for key, fit in self.fits("training").items()},
            "law_details": {
                "sentence": self.sentence,
                "device": self.device,
                "num_threads": self.num_threads,
                "spread": self.spread,
                "noisy": self.noisy,
                "points": self._points_json(),
                "correlation": self.correlation,
                "macs_and_bytes": {
                    "r2": both.r2,
                    "slopes": [slope.value for slope in both.slopes],
                    "slope_intervals": [[slope.low, slope.high] for slope in both.slopes],
                    "intercept": both.intercept.value,
                },
                "inference": {key: fit.to_json() for key, fit in self.fits("inference").items()},
                "scaling": self.scaling.to_json(),
            },
        }

    def _points_json(self) -> list[dict[str, Any]]:
        ratios = self.ratios("training")
        return [
            {
                "name": measured.point.name,
                "varied": measured.point.varied,
                "batch_size": measured.point.batch_size,
                "image_size": measured.point.model.image_size,
                "num_timed": measured.num_timed,
                "weights": measured.weights,
                "training": asdict(measured.training),
                "inference": asdict(measured.inference),
                "measured_by_predicted": {key: ratios[key][i] for key in PREDICTORS},
            }
            for i, measured in enumerate(self.points)
        ]


def measure_law(
    *,
    device: torch.device,
    time_budget_s: float = 90,
    on_progress: Callable[[str], None] | None = None,
    points: Sequence[Point] | None = None,
    num_workers: Sequence[int] | None = None,
) -> Law:
    """Times the sweep in this process, with the threads that torch has, and the data-parallel
    scaling of its first point in processes of its own.

    Args:
        device: where to run.
        time_budget_s: seconds for all, but for the start of the processes. A few rounds are run
            whatever it says.
        on_progress: takes a line now and then.
        points: at least four detectors, no two of a name; None: :func:`sweep_for` the device.
        num_workers: increasing, from 1 on; None: as many as there are cores or GPUs.

    The processes import the main module anew: a script that calls this needs the usual
    `if __name__ == "__main__"`.
    """
    keep_freed_memory()
    say = on_progress or (lambda _: None)
    points = sweep_for(device) if points is None else points
    if num_workers is None:
        num_workers = workers_to_measure(device, num_processors())
    measured = measure_sweep(
        points, device, time_budget_s=_SWEEP_SHARE * time_budget_s, on_progress=say
    )
    scaling = measure_scaling(
        points[0],
        device,
        num_workers=num_workers,
        time_budget_s=(1 - _SWEEP_SHARE) * time_budget_s,
        on_progress=say,
    )
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Law(measured, name, torch.get_num_threads(), scaling)


def table(law: Law) -> list[Table]:
    """The regressions, the points they rest on, and the data-parallel scaling, for a terminal."""
    return [_fits_table(law), _points_table(law), scaling_.table(law.scaling)]


def _fits_table(law: Law) -> Table:
    grid = Table(
        title="The law: milliseconds a picture, as a line and as a power law",
        title_justify="left",
        caption=f"{law.sentence}\nCorrelation of the predictors: "
        + ", ".join(f"{k.replace('_', '–')} {r:.2f}" for k, r in law.correlation.items())
        + f". A point's steps varied by {100 * law.spread:.0f} % (10th to 90th percentile)"
        + (": the machine was noisy." if law.noisy else "."),
        caption_justify="left",
    )
    grid.add_column("predictor")
    for column in ("R²", "slope", "intercept", "exponent (95 %)", "R² of logs"):
        grid.add_column(column, justify="right")
    for phase in get_args(Phase):
        for key, fit in law.fits(phase).items():
            scale, unit = _UNITS[key]
            exponent = fit.exponent
            grid.add_row(
                f"{phase}: {PREDICTORS[key]}",
                f"{fit.line.r2:.3f}",
                f"{fit.line.slopes[0].value * scale:.3g} / {unit}",
                f"{fit.line.intercept.value:.3g}",
                f"{exponent.value:.2f} ({exponent.low:.2f} … {exponent.high:.2f})",
                f"{fit.power.r2:.3f}",
            )
        both = law.fit_on_both(phase)
        per_mac, per_byte = (slope.value for slope in both.slopes)
        grid.add_row(
            f"{phase}: the last two",
            f"{both.r2:.3f}",
            f"{per_mac * 1e9:.3g} / billion + {per_byte * 1e6:.3g} / MB",
            f"{both.intercept.value:.3g}",
            end_section=True,
        )
    return grid


def _points_table(law: Law) -> Table:
    grid = Table(title="The sweep: a training step, for one picture", title_justify="left")
    for column in ("detector", "varied"):
        grid.add_column(column)
    for column in ("weights (M)", "MACs (M)", "MB moved", "ms", "10 … 90 %", "inference (ms)"):
        grid.add_column(column, justify="right")
    for measured in law.points:
        step = measured.training
        grid.add_row(
            measured.point.name,
            measured.point.varied,
            f"{measured.weights / 1e6:.2f}",
            f"{step.macs / 1e6:.0f}",
            f"{step.bytes / 1e6:.1f}",
            f"{step.ms.median:.1f}",
            f"{step.ms.p10:.1f} … {step.ms.p90:.1f}",
            f"{measured.inference.ms.median:.1f}",
        )
    return grid

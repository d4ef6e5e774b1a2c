"""How many epochs TPE and ASHA save over random search, on a function whose best is known.

python benchmarks/search_quality.py [--seeds 20]
python benchmarks/search_quality.py --keep runs/surrogate    # new trials for surrogate.json

The function gives validation mAP after each epoch for any alpha, lambda and learning rate: Gaussian
processes fitted to real trainings (surrogate.yaml says which; surrogate.json holds them). Both
searches are led by the project's own study, sampler and pruner, one trial at a time, from the same
first points. Random search runs all its trials to their end. Counted is after how many of its
epochs the other one has found a trial that ends as well or better; ends with status 1 if that is
more than half of them, in the median over the seeds.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from ssd_dist.config import Config, load_config
from ssd_dist.distributed.first_points import plan_search
from ssd_dist.distributed.searcher import StudySearcher
from ssd_dist.distributed.study import enqueue, open_study
from ssd_dist.distributed.study_storage import new_place
from ssd_dist.experiment import read_json, read_trials, write_json

HERE = Path(__file__).parent
TRIALS = HERE / "surrogate.json"
FIELDS = ("alpha", "l2_lambda", "lr")
_NUM_GRID = 41
_MOST = 0.5
"""Share of random search's epochs after which its last value is to be met, in the median."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compare TPE with ASHA to random search."""

    seeds: int = 20
    """Searches of each kind."""
    trials: int = 40
    """Trials of a random search."""
    keep: Path | None = None
    """Folder of a finished search by surrogate.yaml: its trials replace surrogate.json."""


class Surrogate:
    """Validation mAP after each epoch, for any point of the space."""

    def __init__(self, trials: list[dict[str, Any]]) -> None:
        """`trials`: of each the fields and `curve`, its validation mAP by epoch."""
        points = np.array([[np.log10(trial[field]) for field in FIELDS] for trial in trials])
        curves = np.array([trial["curve"] for trial in trials])  # trials × epochs
        self.num_epochs = curves.shape[1]
        self._centre, self._scale = points.mean(0), points.std(0)
        kernel = ConstantKernel() * Matern(np.ones(len(FIELDS)), (0.1, 100), nu=2.5) + WhiteKernel(
            1e-3, (1e-5, 1e-1)
        )
        inputs = (points - self._centre) / self._scale
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._processes = [
                GaussianProcessRegressor(
                    kernel, normalize_y=True, n_restarts_optimizer=2, random_state=0
                ).fit(inputs, curve)
                for curve in curves.T
            ]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """N × 3 log10 of the fields → N × epochs."""
        inputs = (points - self._centre) / self._scale
        values = np.stack([process.predict(inputs) for process in self._processes], 1)
        return values.clip(0.0, 1.0)


def known_best(surrogate: Surrogate, config: Config) -> tuple[float, dict[str, float]]:
    """The best last epoch on a fine grid of the space, and where it lies."""
    bounds = [np.log10(config.search.space[field].bounds) for field in FIELDS]
    axes = [np.linspace(low, high, _NUM_GRID) for low, high in bounds]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(FIELDS))
    values = surrogate(points)[:, -1]
    best = int(values.argmax())
    return float(values[best]), dict(zip(FIELDS, 10 ** points[best], strict=True))


def search(surrogate: Surrogate, config: Config, most_epochs: int) -> list[tuple[int, float]]:
    """A search of at most so many epochs: after each trial that ran to its end, the epochs spent so
    far and the best last epoch yet."""
    spent, best, progress = 0, 0.0, []
    with tempfile.TemporaryDirectory() as folder:
        place = new_place(Path(folder), None)
        study = open_study(place, config)
        enqueue(study, plan_search(config))
        searcher = StudySearcher(study, config, place, {})
        for number in range(config.search.trials):
            ray_id = str(number)
            suggested = searcher.suggest(ray_id)
            assert not isinstance(suggested, str), suggested
            parameters = suggested["parameters"]
            values = surrogate(np.log10([[parameters[field] for field in FIELDS]]))[0]
            for epoch, value in enumerate(values, start=1):
                spent += 1
                if searcher.report(ray_id, {"epoch": epoch, "map_11pt": float(value)}):
                    break
            else:
                best = max(best, float(values[-1]))
                progress.append((spent, best))
            searcher.on_trial_complete(ray_id)
            assert searcher.failure is None, searcher.failure
            if spent >= most_epochs:
                break
    return progress


def main(arguments: Arguments) -> None:
    """Runs all searches, and prints the table."""
    if arguments.keep is not None:
        keep(arguments.keep)
    config = load_config(HERE / "surrogate.yaml")
    surrogate = Surrogate(read_json(TRIALS))
    best, where = known_best(surrogate, config)
    named = ", ".join(f"{field} {value:.3g}" for field, value in where.items())
    all_epochs = arguments.trials * surrogate.num_epochs
    rows = []
    for seed in range(arguments.seeds):

        def variant(
            sampler: Literal["tpe", "random"],
            pruner: Literal["asha", "none"],
            trials: int,
            seed: int = seed,
        ) -> Config:
            return dataclasses.replace(
                config,
                seed=seed,
                search=dataclasses.replace(
                    config.search, sampler=sampler, pruner=pruner, trials=trials, grace_epochs=1
                ),
            )

        by_chance = search(surrogate, variant("random", "none", arguments.trials), all_epochs)
        # Trials that are stopped early leave epochs for more of them.
        led = search(surrogate, variant("tpe", "asha", all_epochs), all_epochs)
        reached = next((spent for spent, value in led if value >= by_chance[-1][1]), None)
        rows.append((by_chance[-1][1], led[-1][1], reached))
    table = Table(title=f"{all_epochs} epochs a search; the best there is: {best:.4f} at {named}")
    for column in ("seed", "random search ends at", "TPE + ASHA ends at", "and equals it after"):
        table.add_column(column, justify="right")
    for seed, (chance, tpe, reached) in enumerate(rows):
        share = "never" if reached is None else f"{100 * reached / all_epochs:.0f} % of its epochs"
        table.add_row(str(seed), f"{chance:.4f}", f"{tpe:.4f}", share)
    chances, tpes, reached_after = zip(*rows, strict=True)
    shares = [np.inf if r is None else r / all_epochs for r in reached_after]
    table.add_section()
    table.add_row(
        "median",
        f"{np.median(chances):.4f}",
        f"{np.median(tpes):.4f}",
        f"{100 * np.median(shares):.0f} % of its epochs",
    )
    Console(width=110).print(table)
    sys.exit(bool(np.median(shares) > _MOST))


def keep(experiment: Path) -> None:
    """Writes surrogate.json from the complete trials of a search."""
    trials = [trial for trial in read_trials(experiment) or [] if trial.state == "complete"]
    write_json(
        TRIALS,
        [
            {**{field: trial.parameters[field] for field in FIELDS}, "curve": trial.curve}
            for trial in sorted(trials, key=lambda trial: trial.number)
        ],
    )


if __name__ == "__main__":
    main(tyro.cli(Arguments))

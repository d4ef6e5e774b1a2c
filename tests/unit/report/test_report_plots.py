"""What the plots show of curves and trials; their colours are tested with the page."""

import numpy as np
import pytest

from ssd_dist.evaluation.voc_ap import Curve
from ssd_dist.report.accuracy_plots import thinned
from ssd_dist.report.search_plots import history, map_against, pareto_front, trial_curves
from ssd_dist.report.space_plots import SHADE_OPACITY, contour, parallel_coordinates, shades


def test_a_long_curve_is_thinned_to_its_outline():
    rng = np.random.default_rng(0)
    recall = np.sort(rng.random(50_000))
    precision = rng.random(50_000)
    precision[[123, 40_000]] = 2.0, -1.0  # the highest and the lowest must survive
    kept_recall, kept_precision = thinned(Curve(recall, precision, recall[::-1]))
    assert len(kept_recall) <= 802
    assert (np.diff(kept_recall) >= 0).all()
    assert (kept_recall[0], kept_recall[-1]) == (recall[0], recall[-1])
    assert (kept_precision.max(), kept_precision.min()) == (2.0, -1.0)


@pytest.mark.parametrize(
    "values",
    [[0.01, 0.02, 0.04], [1e-6, 1e-3, 1e-2], [0.0, 1.0, 2.0], [5.0], ["sgd", "$x$", True], []],
)
def test_any_searched_values_are_drawn(trial, values):
    trials = [trial(i, 0.5, parameters={"x": value}) for i, value in enumerate(values)]
    svg = map_against("x", trials)
    assert svg.startswith('<svg class="plot"')
    assert "validation mAP" in svg
    if "$x$" in values:
        assert ">$x$<" in svg


@pytest.mark.parametrize("num_trials", [0, 1, 2, 3])
def test_few_trials_are_drawn(trial, num_trials):
    trials = [trial(i, 0.5 + 0.1 * i) for i in range(num_trials)]
    assert history(trials).startswith("<svg")
    assert contour("alpha", "lr", ("α", "rate"), trials).startswith("<svg")
    drawn = parallel_coordinates(["alpha", "lr"], ["α", "rate"], trials)
    assert (drawn is None) == (num_trials < 2)
    assert (trial_curves(trials) is None) == (num_trials == 0)
    assert pareto_front(trials) is None


def num_shades(svg):
    return svg.count(f"fill-opacity: {SHADE_OPACITY}")


def test_contours_need_an_area(trial):
    def with_rates(rates):
        values = [{"alpha": 1.0 + i % 2, "lr": rate} for i, rate in enumerate(rates)]
        return [trial(i, 0.1 * i, parameters=value) for i, value in enumerate(values)]

    names = ("α", "rate")
    assert num_shades(contour("alpha", "lr", names, with_rates([0.1, 0.2, 0.3, 0.4]))) > 0
    on_a_line = [trial(i, 0.1 * i, parameters={"alpha": 1.0 + i, "lr": 1.0 + i}) for i in range(5)]
    assert num_shades(contour("alpha", "lr", names, on_a_line)) == 0
    in_one_place = [trial(i, 0.1 * i, parameters={"alpha": 1.0, "lr": 1.0}) for i in range(5)]
    assert num_shades(contour("alpha", "lr", names, in_one_place)) == 0


def test_each_shade_holds_as_many_trials(trial):
    values = [0.0, 0.1, 0.5, 0.51, 0.52, 0.8, 0.81, 0.82, 0.83, 0.84, 0.85, 0.86]
    levels = shades([trial(i, value) for i, value in enumerate(values)])
    counts, _ = np.histogram(values, [*levels, 1.0])
    assert counts.tolist() == [2] * 6
    assert shades([]) == []
    assert shades([trial(0, 0.5), trial(1, 0.5)]) == [0.5]


def test_a_trial_far_below_is_a_triangle_at_the_edge(trial):
    near, far = trial(1, 0.7), trial(1, 0.1)
    assert history([trial(0, 0.8), near]) != history([trial(0, 0.8), far])
    # The axis is that of the best alone: 0.1 does not stretch it.
    assert ">0.2<" not in history([trial(0, 0.8), far])

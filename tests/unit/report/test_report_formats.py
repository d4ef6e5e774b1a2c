import math

import numpy as np
import pytest

from ssd_dist.evaluation.voc_ap import Curve
from ssd_dist.report import formats, plots


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1.5, "1.5"),
        (0.0123, "0.0123"),
        (0.001, "0.001"),
        (2.5e-4, "2.5&thinsp;×&thinsp;10<sup>−4</sup>"),
        (1e-6, "1&thinsp;×&thinsp;10<sup>−6</sup>"),
        (1234, "1234"),
        (5e4, "5&thinsp;×&thinsp;10<sup>4</sup>"),
        (True, "True"),
        ("<sgd>", "&lt;sgd&gt;"),
        (None, "–"),
    ],
)
def test_hyperparameters(value, text):
    assert str(formats.hyperparameter(value)) == text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3_440_060, ("3.44", "M")),
        (34_858_000_000, ("34.9", "G")),
        (583_000_000, ("583", "M")),
        (999_960, ("1.00", "M")),
        (4_000, ("4.00", "k")),
        (12, ("12.0", "")),
        (0, ("0", "")),
        (None, ("–", "")),
    ],
)
def test_magnitudes(value, expected):
    assert formats.magnitude(value) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5832, "0.583"), (38.42, "38.4"), (418.2, "418"), (4180.4, "4180"), (math.nan, "–")],
)
def test_three_digits(value, text):
    assert formats.three_digits(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(48, "48 s"), (99.6, "2 min"), (720, "12 min"), (3900, "65 min"), (7500, "2 h 05 min")],
)
def test_durations(seconds, text):
    assert formats.duration(seconds) == text


def test_counts_measures_and_shares():
    assert formats.count(4952) == "4\u202f952"
    assert formats.measure(None) == formats.measure(math.nan) == "–"
    assert formats.measure(2 / 3) == "0.667"
    assert formats.percent(1, 3) == "33\u202f%"
    assert formats.percent(1, 30) == "3.3\u202f%"
    assert formats.percent(0, 3) == "0\u202f%"
    assert formats.percent(1, 0) == "–"


def test_a_long_curve_is_thinned_to_its_outline():
    rng = np.random.default_rng(0)
    recall = np.sort(rng.random(50_000))
    precision = rng.random(50_000)
    precision[[123, 40_000]] = 2.0, -1.0  # the highest and the lowest must survive
    kept_recall, kept_precision = plots._thin(Curve(recall, precision, recall[::-1]))
    assert len(kept_recall) <= 802
    assert (np.diff(kept_recall) >= 0).all()
    assert (kept_recall[0], kept_recall[-1]) == (recall[0], recall[-1])
    assert (kept_precision.max(), kept_precision.min()) == (2.0, -1.0)


@pytest.mark.parametrize(
    ("ticks", "labels"),
    [
        ([0.1, 1, 10], ["0.1", "1", "10"]),
        ([1e-4, 1e-3, 1e-2], ["10⁻⁴", "10⁻³", "10⁻²"]),
        ([2e-5, 5e-5], ["2·10⁻⁵", "5·10⁻⁵"]),
    ],
)
def test_tick_labels(ticks, labels):
    assert plots._decade_labels(ticks) == labels


@pytest.mark.parametrize(
    "values",
    [[0.01, 0.02, 0.04], [1e-6, 1e-3, 1e-2], [0.0, 1.0, 2.0], [5.0], ["sgd", "$x$", True], []],
)
def test_any_searched_values_are_drawn(trial, values):
    trials = [trial(i, 0.5, parameters={"x": value}) for i, value in enumerate(values)]
    svg = plots.map_against("x", trials)
    assert svg.startswith('<svg class="plot"')
    assert "validation mAP" in svg
    if "$x$" in values:
        assert ">$x$<" in svg

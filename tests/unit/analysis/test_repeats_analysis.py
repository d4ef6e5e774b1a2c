"""Whether one configuration beats another: Welch's interval, and what is said of it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from ssd_dist.analysis.repeats import compare, judge
from ssd_dist.experiment import TrialRecord
from ssd_dist.repeated import Repeated, spread


def repeated(values, *, is_paper=False, split_values=None, states=None):
    runs = tuple(
        TrialRecord(
            number=i,
            state=(states or ["complete"] * len(values))[i],
            parameters={"seed": i},
            map_11pt=value,
            epochs=1,
            seconds=1.0,
            curve=(),
            checkpoint="x",
        )
        for i, value in enumerate(values)
    )
    trial = None if is_paper else 4
    return Repeated(
        parameters={}, trial=trial, is_paper=is_paper, runs=runs, split_values=split_values
    )


def test_welchs_interval_by_hand():
    """Means 0.8 and 0.6; variances 0.01 and 0.04 of three: s.e. √(0.05/3), 2.94 degrees."""
    found = compare([0.7, 0.8, 0.9], [0.4, 0.6, 0.8])
    assert found.difference == pytest.approx(0.2)
    assert found.standard_error == pytest.approx((0.05 / 3) ** 0.5)
    # t(0.975, 2.941) = 3.2191
    assert found.high - found.difference == pytest.approx(0.12910 * 3.2191, rel=1e-3)


values = st.lists(st.floats(0, 1), min_size=2, max_size=6).filter(lambda v: max(v) - min(v) > 1e-3)


@given(values, values)
def test_scipys_interval_is_the_same(first, second):
    found = compare(first, second)
    interval = ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
    assert compare(second, first).low == pytest.approx(-found.high)


def test_too_little_to_compare():
    assert compare([0.5], [0.4, 0.5]) is None
    assert compare([], []) is None
    same = compare([0.5, 0.5], [0.4, 0.4])
    assert (same.low, same.high) == pytest.approx((0.1, 0.1))


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ((0.90, 0.91, 0.92), (0.70, 0.71, 0.72), "best beats the SSD paper's defaults: validation"),
        ((0.90, 0.91, 0.92), (0.89, 0.90, 0.92), "ahead .* do not prove it on validation"),
        ((0.80, 0.91, 0.92), (0.89, 0.90, 0.92), "best does not beat the SSD paper's defaults"),
        ((0.10, 0.11, 0.12), (0.70, 0.71, 0.72), "best falls behind the SSD paper's defaults"),
        ((0.9,), (0.1, 0.2, 0.3), "Too few trainings ended"),
    ],
)
def test_what_is_said(ours, theirs, words):
    pair = [repeated(ours), repeated(theirs, is_paper=True)]
    pair.sort(key=lambda one: -one.mean)
    judgement = judge(pair)
    assert re.search(words, judgement.sentence)
    assert judgement.on_split is None


def test_the_split_that_chose_nothing_has_the_last_word():
    ours = repeated((0.90, 0.91, 0.92), split_values=(0.78, 0.68, 0.88))
    theirs = repeated((0.70, 0.71, 0.72), is_paper=True, split_values=(0.75, 0.85, 0.80))
    judgement = judge([ours, theirs], "test")
    assert judgement.validation.low > 0
    assert judgement.on_split.difference == pytest.approx(-0.02)
    assert judgement.sentence == (
        "The search's best does not beat the SSD paper's defaults: validation mAP 0.910 ± 0.010 "
        "against 0.710 ± 0.010 (difference +0.200, 95 % interval +0.177 to +0.223); test mAP "
        "0.780 ± 0.100 against 0.800 ± 0.050 (difference −0.020, 95 % interval −0.228 to +0.188)."
    )


def test_a_search_that_found_nothing_else_says_so():
    judgement = judge([repeated((0.5, 0.6, 0.7), is_paper=True)])
    assert "found nothing but the SSD paper's defaults" in judgement.sentence
    assert judgement.validation is None


def test_what_diverged_counts_and_what_failed_does_not():
    states = ["complete", "diverged", "failed"]
    one = repeated((0.6, None, 0.9), states=states)
    assert one.values == (0.6, 0.0)
    assert spread(one.values) == "0.300 ± 0.424"
    assert spread((0.5,), 4) == "0.5000"
    assert spread(()) == "–"
    assert one.best_run.number == 0

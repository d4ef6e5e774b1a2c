"""What counts as finding the same."""

import numpy as np
import pytest

from ssd_dist.export.check import Expected, differences
from ssd_dist.structures import Detections
from ssd_dist.terminal import JobFailedError


def found(*rows):
    """Detections of rows (x1, label, score), each box 10 pixels wide."""
    return Detections(
        "one",
        np.array([[x, 0, x + 10, 10] for x, _, _ in rows], dtype=np.float32).reshape(-1, 4),
        np.array([label for _, label, _ in rows], dtype=np.int64),
        np.array([score for _, _, score in rows], dtype=np.float32),
    )


TWO = ((0, 1, 0.9), (50, 2, 0.5))


def compare(expected, given, cut_off=0.01):
    return differences(Expected(found(*expected), cut_off), found(*given), 100)


def test_the_largest_differences_are_told():
    score, box = compare(TWO, ((0.005, 1, 0.9), (50, 2, 0.50005)))
    assert score == pytest.approx(5e-5, rel=0.01)
    assert box == pytest.approx(0.005, rel=0.01)


def test_places_may_change():
    assert compare(TWO, TWO[::-1]) == (0, 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (TWO[:1], "lacks label 2 at 50.0, 0.0, 60.0, 10.0 with score 0.5000"),
        ((*TWO, (80, 1, 0.3)), "adds label 1 at 80.0"),
        ((TWO[0], (50, 1, 0.5)), "lacks label 2"),
        ((TWO[0], (50, 2, 0.5002)), "lacks label 2"),
        ((TWO[0], (50.02, 2, 0.5)), "lacks label 2"),
        ((), "lacks label 1"),
        ((*TWO, TWO[1]), "adds label 2"),
    ],
)
def test_what_differs_is_refused(given, message):
    with pytest.raises(JobFailedError, match="in picture 'one' it " + message):
        compare(TWO, given)


def test_at_the_cut_off_either_may_have_more():
    assert compare(TWO, TWO[:1], cut_off=0.4999) == (0, 0)
    assert compare(TWO[:1], TWO, cut_off=0.4999) == (0, 0)

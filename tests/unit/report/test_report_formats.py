import math

import pytest

from ssd_dist.report import formats


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


def test_bytes_and_prefixes():
    assert formats.num_bytes(13_434_000) == "13.4 MB"
    assert formats.num_bytes(999_900) == "1.00 MB"
    assert formats.num_bytes(12) == "12.0 B"
    assert formats.num_bytes(None) == "–"
    assert formats.with_prefix(3_358_400) == "3.36 M"
    assert formats.with_prefix(0) == "0"

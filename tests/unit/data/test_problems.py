"""The table of problems, and what a list does with one: raise or gather."""

from __future__ import annotations

import pickle

import pytest

from ssd_dist.data.problems import (
    KINDS,
    TREATMENTS,
    DataError,
    Problem,
    ProblemList,
    error_of,
    printable,
    quoted,
)


def test_every_kind_has_a_treatment():
    assert {treatment for treatment, _ in KINDS.values()} == set(TREATMENTS)


def test_strict_list_raises_what_is_refused_and_gathers_the_rest():
    problems = ProblemList(strict=True)
    problems.add("box_clipped", "a.xml", "a box clipped", line=3)
    with pytest.raises(ValueError, match=r"^line 7 of b\.xml: unknown class 'x'$"):
        problems.add("unknown_class", "b.xml", "unknown class 'x'", line=7)
    with pytest.raises(FileNotFoundError, match=r"^c\.xml: not there$") as caught:
        problems.add("missing_file", "c.xml", "not there")
    assert isinstance(caught.value, DataError)
    assert [problem.file for problem in problems] == ["a.xml"]


def test_list_tells_the_gravest_first_and_equal_ones_as_found():
    problems = ProblemList(strict=False)
    for kind in ("cmyk", "box_clipped", "repeated_id", "no_class", "box_outside", "shared_id"):
        problems.add(kind, kind, "…")
    assert [problem.kind for problem in problems] == [
        "no_class",
        "shared_id",
        "repeated_id",
        "box_outside",
        "box_clipped",
        "cmyk",
    ]
    assert len(problems) == 6


@pytest.mark.parametrize("kind", ["missing_file", "bad_coordinate"])
def test_errors_go_to_other_processes(kind):
    error = error_of(Problem(kind, "a.xml", "wrong", line=2))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error) == "line 2 of a.xml: wrong"
    assert copy.problem == error.problem


def test_sentences_stay_on_their_line_whatever_the_file_is_called():
    sentence = str(Problem("cmyk", "a\x1b[2J\n\u202eb\x9b.jpg", "told"))
    assert sentence == r"a\x1b[2J\n\u202eb\x9b.jpg: told"
    assert printable("Käfer 甲虫 [b] \\ 👩‍🚀") == "Käfer 甲虫 [b] \\ 👩‍🚀"
    assert printable("\udc80") == r"\udc80"


def test_quotes_are_short():
    assert quoted("a\nb") == r"'a\nb'"
    assert quoted(None) == "missing"
    assert quoted("x" * 60) == repr("x" * 60)
    assert quoted("x" * 10**6) == repr("x" * 59 + "…")

"""Pictures made before they are asked for are those that would have been made."""

from hypothesis import given
from hypothesis import strategies as st

from ssd_dist.data.ahead import BatchesAhead

KEYS = [[3, 1, 4], [1, 5, 9], [2, 6]]


def of(made, keys=KEYS, most=4):
    def make(key):
        made.append(key)
        return 10 * key

    return BatchesAhead(make, tuple, keys, most=most)


@given(
    st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=4), max_size=6),
    st.integers(0, 5),
    st.lists(st.integers(0, 7), min_size=7, max_size=7),
)
def test_each_batch_is_the_same_however_many_are_made_ahead(keys, most, ahead):
    made = []
    batches = of(made, keys, most)
    assert len(batches) == len(keys)
    found = []
    for _ in range(ahead[0]):
        batches.make_one()
    for batch, number in zip(batches, ahead[1:], strict=False):
        found.append(batch)
        for _ in range(number):
            batches.make_one()
        assert len(made) <= sum(map(len, found)) + most
    assert found == [tuple(10 * key for key in batch) for batch in keys]
    assert made == [key for batch in keys for key in batch]


def test_no_more_are_made_ahead_than_allowed():
    made = []
    batches = of(made)
    assert [batches.make_one() for _ in range(6)] == [True] * 4 + [False] * 2
    assert made == [3, 1, 4, 1]
    assert next(iter(batches)) == (30, 10, 40)
    assert batches.make_one()
    assert made == [3, 1, 4, 1, 5]


def test_at_the_end_there_is_nothing_to_make():
    batches = of([])
    assert list(batches) == [(30, 10, 40), (10, 50, 90), (20, 60)]
    assert not batches.make_one()

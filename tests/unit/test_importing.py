import gc

import pytest

from ssd_dist.importing import importing


@pytest.fixture(autouse=True)
def thawed():
    yield
    gc.unfreeze()
    gc.enable()


def test_garbage_is_looked_for_again_but_not_among_what_was_imported():
    before = gc.get_freeze_count()
    with importing():
        assert not gc.isenabled()
        kept = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(kept)


def test_who_had_turned_it_off_finds_it_off():
    gc.disable()
    with pytest.raises(ImportError), importing():
        raise ImportError
    assert not gc.isenabled()

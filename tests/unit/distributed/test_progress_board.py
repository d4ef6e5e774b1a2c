"""The board between a training's first worker and its driver, on a store in this process."""

from types import SimpleNamespace

import pytest
from ray.exceptions import RpcError

from ssd_dist.distributed import head_store, progress_board
from ssd_dist.distributed.progress_board import clear_boards, new_board


class Store(dict):
    """Ray's key-value store as head_store.py calls it; every key is in the project's namespace."""

    def _internal_kv_put(self, key, value, *, namespace):
        assert namespace == "ssd_dist"
        self[key.encode()] = value.encode()

    def _internal_kv_get(self, key, *, namespace):
        return self.get(key.encode())

    def _internal_kv_exists(self, key, *, namespace):
        return key.encode() in self

    def _internal_kv_list(self, prefix, *, namespace):
        return [key for key in self if key.startswith(prefix.encode())]

    def _internal_kv_del(self, key, *, namespace, del_by_prefix=False):
        taken = (
            self._internal_kv_list(key, namespace=namespace) if del_by_prefix else [key.encode()]
        )
        for one in taken:
            self.pop(one, None)


NAMES = [name for name in vars(Store) if name.startswith("_internal_kv")]


@pytest.fixture(autouse=True)
def job(monkeypatch):
    """The job that this process is of."""
    job = SimpleNamespace(id="01000000")
    context = SimpleNamespace(get_job_id=lambda: job.id)
    monkeypatch.setattr(progress_board.ray, "get_runtime_context", lambda: context)
    return job


@pytest.fixture
def store(monkeypatch):
    store = Store()
    for name in NAMES:
        monkeypatch.setattr(head_store, name, getattr(store, name))
    return store


@pytest.fixture
def no_answer(monkeypatch):
    """Ray's head does not answer."""

    def fail(*_, **__):
        raise RpcError("no answer")

    for name in NAMES:
        monkeypatch.setattr(head_store, name, fail)


def test_an_empty_board(store):
    progress = new_board().fetch()
    assert (progress.step, progress.num_steps) == (0, 1)
    assert progress.epochs == progress.notes == ()
    assert new_board().divergence() is None


def test_epochs_come_once_and_in_order_and_the_step_is_the_latest(store):
    board = new_board()
    board.push_step(1, 12)
    board.push_epoch({"epoch": 1, "loss": 0.1})
    board.push_step(7, 12)
    board.push_epoch({"epoch": 2, "loss": float("inf")})
    first = board.fetch()
    board.push_epoch({"epoch": 3, "loss": 0.3})
    second = board.fetch()
    assert (first.step, first.num_steps) == (second.step, second.num_steps) == (7, 12)
    assert first.epochs == ({"epoch": 1, "loss": 0.1}, {"epoch": 2, "loss": float("inf")})
    assert second.epochs == ({"epoch": 3, "loss": 0.3},)
    assert board.fetch().epochs == ()


def test_a_start_is_told_only_if_it_is_not_the_first(store):
    board = new_board()
    board.push_start(2, resumed=False)
    assert board.fetch().notes == ()
    board.push_start(1, resumed=False)
    board.push_start(2, resumed=True)
    assert board.fetch().notes == (
        "beginning again with 1 worker(s)",
        "going on from the last checkpoint with 2 worker(s)",
    )


def test_a_divergence_is_told_to_whoever_asks(store):
    board = new_board()
    board.push_divergence("the loss is nan")
    assert board.divergence() == board.divergence() == "the loss is nan"


def test_trainings_beside_each_other_have_boards_of_their_own(store):
    one, other = new_board(), new_board()
    for board, epoch in ((one, 1), (other, 2)):
        board.push_start(1, resumed=False)
        board.push_epoch({"epoch": epoch})
        board.push_divergence(f"in epoch {epoch}")
    one.clear()
    assert one.divergence() is None
    assert one.fetch().epochs == ()
    assert other.divergence() == "in epoch 2"
    assert other.fetch().epochs == ({"epoch": 2},)


def test_nothing_is_left_of_a_board_that_is_taken_down(store):
    board = new_board()
    board.push_start(1, resumed=False)
    board.push_step(1, 2)
    board.push_epoch({"epoch": 1})
    board.push_divergence("so")
    board.clear()
    assert store == {}


def test_what_a_killed_job_left_is_taken_down_for_it(store, job):
    left = new_board()
    left.push_epoch({"epoch": 1})
    job.id = "02000000"
    other = new_board()
    other.push_epoch({"epoch": 2})
    clear_boards("01000000")
    assert left.fetch().epochs == ()
    assert other.fetch().epochs == ({"epoch": 2},)


def test_a_training_goes_on_where_its_board_can_t_be_reached(no_answer):
    board = new_board()
    board.push_start(1, resumed=True)
    board.push_step(1, 2)
    board.push_epoch({"epoch": 1})
    board.clear()
    with pytest.raises(RpcError):
        board.fetch()


def test_a_divergence_that_can_t_be_told_is_an_error(no_answer):
    with pytest.raises(RpcError):
        new_board().push_divergence("the loss is nan")

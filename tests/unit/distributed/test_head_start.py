"""Workers that are started before there is a training."""

import pytest

from ssd_dist.config import Config
from ssd_dist.distributed import head_start, lone_controller
from ssd_dist.distributed.head_start import HeadStart, start_ahead
from ssd_dist.distributed.lone_controller import LoneController, LoneWorkerGroup
from ssd_dist.distributed.machines import Machine
from ssd_dist.distributed.process_group import import_training

CPU = {"CPU": 1}


class Actor:
    """A handle: remembers what its worker was asked to do."""

    def __init__(self, bundle):
        self.bundle, self.asked = bundle, []

    def __getattr__(self, method):
        def remote(*arguments, **named):
            self.asked.append((method, arguments, named))
            return method, self.bundle

        return type("Method", (), {"remote": staticmethod(remote)})


@pytest.fixture
def ray(monkeypatch):
    """A Ray of two cores that starts nothing; groups that were made and removed."""

    class Ray:
        def __init__(self):
            self.made, self.removed, self.options = [], [], []

        def remote(self, **options):
            self.options.append(options)

            def wrap(_):
                def with_options(scheduling_strategy):
                    bundle = scheduling_strategy.placement_group_bundle_index
                    assert scheduling_strategy.placement_group in self.made
                    return type("Class", (), {"remote": staticmethod(lambda: Actor(bundle))})

                return type("Class", (), {"options": staticmethod(with_options)})

            return wrap

        def placement_group(self, bundles, strategy):
            assert strategy == "PACK"
            self.made.append(bundles)
            return bundles

    ray = Ray()
    monkeypatch.setattr(head_start, "ray", ray)
    monkeypatch.setattr(head_start, "placement_group", ray.placement_group)
    monkeypatch.setattr(head_start, "remove_placement_group", ray.removed.append)
    monkeypatch.setattr(head_start, "machines_at_most", lambda: (Machine(num_cpus=2, num_gpus=0),))
    return ray


def test_workers_start_in_their_bundles_and_import(ray):
    ahead = HeadStart(2, CPU).take(2, CPU)
    assert ray.made == [[CPU, CPU]]
    assert ray.options == [{"num_cpus": 1, "num_gpus": 0, "memory": 0}]
    assert [actor.bundle for actor in ahead.actors] == [0, 1]
    for actor in ahead.actors:
        assert actor.asked == [("execute", (import_training,), {})]
    assert ray.removed == []


def test_they_are_taken_once(ray):
    start = HeadStart(1, CPU)
    assert start.take(1, CPU) is not None
    assert start.take(1, CPU) is None
    assert ray.removed == []


@pytest.mark.parametrize("wanted", [(1, CPU), (2, {"CPU": 1, "GPU": 1.0})])
def test_who_wants_others_ends_them(ray, wanted):
    start = HeadStart(2, CPU)
    assert start.take(*wanted) is None
    assert ray.removed == ray.made
    assert start.take(2, CPU) is None


@pytest.mark.parametrize(
    ("asked", "batch", "expected"),
    [
        (None, 8, 2),
        (None, 1, 1),
        (1, 8, 1),
        ((1, 2), 8, None),  # as many as there is room for
        (3, 8, None),  # more than there is room for
        (0, 8, None),
    ],
)
def test_as_many_as_the_training_will_ask_for(ray, asked, batch, expected):
    start = start_ahead(asked, Config(lr=1e-3, global_batch_size=batch))
    assert (start is None) is (expected is None)
    assert [len(bundles) for bundles in ray.made] == [expected] * (expected is not None)


@pytest.fixture
def group():
    """A worker group of two that is not started."""
    group = LoneWorkerGroup.__new__(LoneWorkerGroup)
    group._worker_group_context = type(
        "Context", (), {"num_workers": 2, "resources_per_worker": CPU}
    )
    return group


@pytest.fixture
def base(monkeypatch):
    """What Ray Train's own group would do."""
    parent = LoneWorkerGroup.__mro__[1]
    monkeypatch.setattr(parent, "_create_placement_group", lambda *_: "its own group")
    monkeypatch.setattr(parent, "_create_workers", lambda *_, **__: "its own workers")


def test_a_group_takes_the_workers_that_are_there(ray, group, base, monkeypatch):
    group.head_start = HeadStart(2, CPU)
    handle = group._create_placement_group(None, group._worker_group_context)
    assert handle.placement_group == [CPU, CPU]
    monkeypatch.setattr(lone_controller.ray, "get", lambda told: told)
    monkeypatch.setattr(LoneWorkerGroup, "_assign_worker_ranks", staticmethod(list))
    workers = group._create_workers(2, handle.placement_group, CPU, replica_group_size=None)
    assert [worker.metadata for worker in workers] == [("get_metadata", 0), ("get_metadata", 1)]
    assert [worker.actor.bundle for worker in workers] == [0, 1]
    assert [worker.placement_group_bundle_index for worker in workers] == [0, 1]


@pytest.mark.parametrize("num_ahead", [None, 1])
def test_a_group_makes_its_own_where_none_fit(ray, group, base, num_ahead):
    if num_ahead is not None:
        group.head_start = HeadStart(num_ahead, CPU)
    assert group._create_placement_group(None, group._worker_group_context) == "its own group"
    assert group._create_workers(2, None, CPU) == "its own workers"


def test_a_worker_that_ended_meanwhile_is_told_as_ray_train_tells_it(ray, group, base, monkeypatch):
    def get(_):
        raise lone_controller.RayActorError

    group.head_start = HeadStart(2, CPU)
    group._create_placement_group(None, group._worker_group_context)
    monkeypatch.setattr(lone_controller.ray, "get", get)
    with pytest.raises(lone_controller.WorkerGroupStartupFailedError, match="as it started"):
        group._create_workers(2, None, CPU)


def test_each_controller_has_workers_of_its_own(monkeypatch):
    monkeypatch.setattr(LoneController.__mro__[1], "__init__", lambda self, **_: None)
    one, other = LoneController(head_start="workers"), LoneController()
    assert one.worker_group_cls.head_start == "workers"
    assert other.worker_group_cls.head_start is None
    assert LoneWorkerGroup.head_start is None

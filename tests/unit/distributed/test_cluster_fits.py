"""What a cluster holds, and what is refused because it never could."""

import dataclasses
import json

import pytest

from ssd_dist.config import Config, ModelConfig, Range
from ssd_dist.distributed import machines
from ssd_dist.distributed.cluster import Cluster, check_fits, check_gpu_share, worker_resources
from ssd_dist.distributed.elastic import parse_workers, shown_workers, training_workers
from ssd_dist.distributed.machines import Machine

CONFIG = Config(global_batch_size=8, model=ModelConfig(norm="frozen"))
CPUS = Cluster((Machine(4, 0), Machine(2, 0)))
GPUS = Cluster((Machine(0, 0), Machine(8, 2), Machine(2, 1)))


@pytest.mark.parametrize(
    ("machine", "share", "num_slots"),
    [
        (Machine(8, 2), 1.0, 2),
        (Machine(8, 2), 0.25, 8),
        (Machine(5, 2), 0.25, 5),  # a core for each
        (Machine(64, 2), 0.3, 6),  # three on each GPU: a share is of one GPU
        (Machine(64, 1), 0.1, 10),
        (Machine(64, 1), 0.7, 1),
        (Machine(0, 4), 1.0, 0),  # no core beside the GPU
        (Machine(4, 0), 0.25, 0),
        (Machine(4, 0), 0.0, 4),
    ],
)
def test_workers_that_fit_a_machine(machine, share, num_slots):
    assert machine.num_slots(share) == num_slots


def test_workers_that_fit_a_cluster():
    assert CPUS.num_slots() == CPUS.num_slots(0.5) == 6
    assert GPUS.num_slots() == 3
    assert GPUS.num_slots(0.25) == 10
    assert (CPUS.device, GPUS.device) == ("cpu", "cuda")
    assert worker_resources(CPUS, 0.25) == {"CPU": 1}
    assert worker_resources(GPUS, 0.25) == {"CPU": 1, "GPU": 0.25}
    # GPUs here and cores there make no worker.
    assert Cluster((Machine(0, 4), Machine(16, 0))).num_slots() == 0


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, 2.0, float("nan")])
def test_shares_that_no_gpu_has(share):
    with pytest.raises(ValueError, match="GPUs per trial: a trial takes a share"):
        check_gpu_share(share, 1)


def test_a_share_is_for_one_worker():
    check_gpu_share(None, 2)
    check_gpu_share(1.0, 1)
    with pytest.raises(ValueError, match="go with 1 worker a trial, not 2"):
        check_gpu_share(0.5, 2)


@pytest.mark.parametrize(
    ("cluster", "asked", "words"),
    [
        (CPUS, {"num_trials": 3, "workers_per_trial": 2}, None),
        (CPUS, {"num_trials": 4, "workers_per_trial": 2}, "need 8 CPU cores, and this Ray has 6"),
        (CPUS, {"num_trials": 1, "workers_per_trial": 7}, "^7 workers need 7 CPU cores"),
        (CPUS, {"num_trials": 0, "workers_per_trial": 1}, "ask for at least 1"),
        (CPUS, {"num_trials": 1, "workers_per_trial": 1, "gpus_per_trial": 0.5}, "has no GPU"),
        (GPUS, {"num_trials": 10, "workers_per_trial": 1, "gpus_per_trial": 0.25}, None),
        (
            GPUS,
            {"num_trials": 11, "workers_per_trial": 1, "gpus_per_trial": 0.25},
            r"need 11 times 0.25 of a GPU \(and a CPU core on the same machine for each\), and "
            "this Ray has 10",
        ),
        (GPUS, {"num_trials": 2, "workers_per_trial": 2}, "need 4 GPUs .* has 3"),
        (Cluster(()), {"num_trials": 1, "workers_per_trial": 1}, "has 0"),
        (
            Cluster((Machine(64, 0),)),
            {"num_trials": 1, "workers_per_trial": 9},
            "can't share a global batch of 8",
        ),
    ],
)
def test_what_never_fits_is_refused_in_a_sentence(cluster, asked, words):
    if words is None:
        check_fits(cluster, CONFIG, **asked)
        return
    with pytest.raises(ValueError, match=words) as caught:
        check_fits(cluster, CONFIG, **asked)
    assert "\n" not in str(caught.value)


def test_synchronised_normalisation_needs_gpus():
    config = Config(global_batch_size=8, model=ModelConfig(norm="sync"))
    check_fits(GPUS, config, num_trials=1, workers_per_trial=2)
    with pytest.raises(ValueError, match="sync needs GPUs"):
        check_fits(CPUS, config, num_trials=1, workers_per_trial=2)
    one = {"num_trials": 1, "workers_per_trial": 2}
    space = {"model.norm": Range(choices=("batch", "sync"))}
    check_fits(GPUS, CONFIG, **one, space=space)
    check_fits(CPUS, CONFIG, **one, space={"model.norm": Range(choices=("batch", "none"))})
    with pytest.raises(ValueError, match="sync needs GPUs"):
        check_fits(CPUS, CONFIG, **one, space=space)


def test_each_worker_has_a_picture_for_every_part():
    config = Config(global_batch_size=8, accumulation=4, model=ModelConfig(norm="frozen"))
    check_fits(CPUS, config, num_trials=1, workers_per_trial=2)
    with pytest.raises(ValueError, match="2 pictures can't be met in 4 parts: lower it"):
        check_fits(CPUS, config, num_trials=1, workers_per_trial=3)


def test_a_part_of_one_picture_has_no_statistics():
    lite = ModelConfig(architecture="ssdlite320_mobilenet_v3_large", image_size=320, weights="none")
    config = Config(global_batch_size=8, accumulation=8, model=lite)
    with pytest.raises(ValueError, match="can't normalise a single picture"):
        check_fits(CPUS, config, num_trials=1, workers_per_trial=1)


def test_numbers_of_workers_as_they_are_typed():
    assert parse_workers("4") == 4
    assert parse_workers("1..4") == (1, 4)
    assert parse_workers("2..2") == 2
    assert [shown_workers(n) for n in (4, (1, 4))] == ["4", "1..4"]
    for text in ("", "x", "1..", "1.5", "-1", "1-4", "1..4..5", " 2"):
        with pytest.raises(ValueError, match=r"give a number such as 4, or a range such as 1\.\.4"):
            parse_workers(text)
    with pytest.raises(ValueError, match="the larger one"):
        parse_workers("4..1")


def test_of_a_range_the_least_has_to_fit():
    assert training_workers(None, CPUS, CONFIG) == 6
    assert training_workers(None, CPUS, dataclasses.replace(CONFIG, global_batch_size=2)) == 2
    assert training_workers((1, 8), CPUS, CONFIG) == (1, 8)
    with pytest.raises(ValueError, match="7 workers need 7 CPU cores"):
        training_workers((7, 8), CPUS, CONFIG)
    with pytest.raises(ValueError, match="9 workers can't share"):
        training_workers((1, 9), CPUS, CONFIG)
    with pytest.raises(ValueError, match="at least 1"):
        training_workers((0, 2), CPUS, CONFIG)
    with pytest.raises(ValueError, match="this Ray has 0"):
        training_workers(None, Cluster((Machine(0, 2),)), CONFIG)


CLUSTER_YAML = {
    "max_workers": 5,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 0}},
        "cpu": {"resources": {"CPU": 16}, "max_workers": 9},
        "gpu": {"resources": {"CPU": 8, "GPU": 2}, "max_workers": 3},
    },
}


def test_what_an_autoscaler_may_add():
    added = machines._added_at_most(CLUSTER_YAML)
    assert added == (*[Machine(8, 2)] * 3, *[Machine(16, 0)] * 2)  # five in all
    without = {"max_workers": 2, "available_node_types": {"any": {"resources": {"CPU": 1}}}}
    assert machines._added_at_most(without) == (Machine(1, 0),) * 2
    assert machines._added_at_most({}) == ()


class Context:
    gcs_address = "10.0.0.1:6379"

    def get_node_id(self):
        return "a"


@pytest.fixture
def ray_with(monkeypatch):
    """A Ray of the nodes named, of which the first is the head."""

    def put(*nodes, commands=()):
        listed = [
            {"NodeID": node_id, "Alive": alive, "Resources": dict(resources)}
            for node_id, alive, resources in nodes
        ]
        listed[0]["Resources"]["node:__internal_head__"] = 1.0
        monkeypatch.setattr(machines.ray, "nodes", lambda: listed)
        monkeypatch.setattr(machines.ray, "get_runtime_context", Context)
        monkeypatch.setattr(machines, "_command_lines", lambda: commands)

    monkeypatch.delenv(machines.MAX_NODES_VARIABLE, raising=False)
    return put


def test_machines_that_are_there(ray_with):
    ray_with(("a", True, {"CPU": 4.0}), ("b", False, {"CPU": 8.0}), ("c", True, {"GPU": 1.0}))
    assert machines.machines_at_most() == (Machine(4, 0), Machine(0, 1))


def test_a_cluster_at_rest_is_as_large_as_it_can_grow(ray_with, tmp_path):
    config = tmp_path / "bootstrap.yaml"
    config.write_text(json.dumps(CLUSTER_YAML))
    other = ["python", "monitor.py", "--gcs-address=10.0.0.1:7777", "--autoscaling-config=/x"]
    mine = ["python", "monitor.py", "--gcs-address=10.0.0.1:6379", f"--autoscaling-config={config}"]
    ray_with(("a", True, {}), commands=[[], other, mine])
    assert Cluster(machines.machines_at_most()).num_slots() == 6
    # What has been started of it counts once.
    ray_with(("a", True, {}), ("b", True, {"CPU": 8, "GPU": 2}), commands=[mine])
    assert Cluster(machines.machines_at_most()).num_slots() == 6
    config.unlink()
    assert machines.machines_at_most() == (Machine(0, 0), Machine(8, 2))


def test_a_maximum_that_is_declared(ray_with, monkeypatch):
    ray_with(("a", True, {}))
    monkeypatch.setenv(machines.MAX_NODES_VARIABLE, '[{"CPU": 8, "GPU": 1, "count": 4}]')
    assert Cluster(machines.machines_at_most()).num_slots() == 4
    for wrong in ("", "{}x", "[1]", '[{"CPU": 8}]', '{"CPU": 8}'):
        monkeypatch.setenv(machines.MAX_NODES_VARIABLE, wrong)
        with pytest.raises(ValueError, match="must be JSON such as"):
            machines.machines_at_most()


SINGLE_CELL = ModelConfig(
    architecture="ssdlite",
    backbone="test_resnet.r160_in1k",
    image_size=64,
    feature_strides=(8, 16),
    neck_channels=16,
    num_extra_maps=2,  # 8, 4, 2, 1 cells
)


@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 1), (4, 4), (5, 3)])
def test_a_single_picture_that_batch_norm_can_t_take_is_refused(batch_size, num_workers):
    config = Config(global_batch_size=batch_size, model=SINGLE_CELL)
    with pytest.raises(ValueError, match=r"model\.norm: 'batch' can't normalise a single picture"):
        training_workers(num_workers, CPUS, config)
    with pytest.raises(ValueError, match="a single picture"):
        training_workers((1, 4), CPUS, Config(global_batch_size=4, model=SINGLE_CELL))
    for changes in {"norm": "none"}, {"norm": "frozen"}, {"num_extra_maps": 1}:
        model = dataclasses.replace(SINGLE_CELL, **changes)
        config = Config(global_batch_size=batch_size, model=model)
        assert training_workers(num_workers, CPUS, config) == num_workers
    assert training_workers(2, CPUS, Config(global_batch_size=4, model=SINGLE_CELL)) == 2

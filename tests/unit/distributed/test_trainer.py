"""What of Ray Train a training starts."""

import asyncio
import logging

import pytest
from ray._private.log import PlainRayHandler
from ray.train import ScalingConfig
from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy, FixedScalingPolicy

from ssd_dist.config import Config
from ssd_dist.distributed import trainer
from ssd_dist.distributed.cluster import Cluster, worker_resources
from ssd_dist.distributed.lone_controller import UnannouncedScalingPolicy
from ssd_dist.distributed.machines import Machine
from ssd_dist.distributed.safeguards import Safeguards
from ssd_dist.distributed.train import build_trainer


@pytest.fixture
def build(tmp_path):
    two_cores = Cluster((Machine(num_cpus=2, num_gpus=0),))

    def build(alone, head_start=None, cluster=two_cores):
        return build_trainer(
            Config(lr=1e-3),
            "synthetic",
            "ray/training",
            cluster,
            Safeguards(str(tmp_path), "training", None),
            num_workers=2,
            alone=alone,
            head_start=head_start,
        )

    return build


@pytest.mark.parametrize(
    ("alone", "there"),
    [(True, set()), (False, {"PlacementGroupCleanerCallback", "ControllerMetricsCallback"})],
)
def test_helpers_that_nobody_needs_are_left_out(build, alone, there):
    made = build(alone)
    names = {type(one).__name__ for one in made._create_default_callbacks()}
    optional = {
        "DatasetsCallback",
        "PlacementGroupCleanerCallback",
        "ControllerMetricsCallback",
    }
    assert names & optional == there
    assert "BackendSetupCallback" in names


class Controller:
    """Stands for Ray Train's."""

    def __init__(self, **arguments):
        self.arguments = arguments
        logger = logging.getLogger("ray.train")
        logger.addHandler(PlainRayHandler())
        logger.addHandler(logging.NullHandler())
        logger.warning("told as it is made")
        self.is_run = False

    async def run(self):
        await asyncio.sleep(0)
        logging.getLogger("ray.train").warning("told as it runs")
        self.is_run = True

    def get_result(self):
        assert self.is_run
        return self.arguments


@pytest.fixture
def logger():
    logger = logging.getLogger("ray.train")
    before, propagates = list(logger.handlers), logger.propagate
    logger.propagate = False  # as a controller sets it up
    yield logger
    logger.handlers, logger.propagate = before, propagates


@pytest.mark.parametrize(
    ("num_workers", "policy", "expected"),
    [
        (2, FixedScalingPolicy, UnannouncedScalingPolicy),
        ((1, 2), ElasticScalingPolicy, ElasticScalingPolicy),
    ],
)
def test_its_controller_runs_here_and_asks_no_autoscaler_for_a_fixed_number(
    build, monkeypatch, capfd, logger, num_workers, policy, expected
):
    monkeypatch.setattr(trainer, "LoneController", Controller)
    given = policy(ScalingConfig(num_workers=num_workers))
    lone = build(alone=True, head_start="workers")
    arguments = lone._initialize_and_run_controller(scaling_policy=given)
    assert arguments["head_start"] == "workers"
    assert type(arguments["scaling_policy"]) is expected
    assert arguments["scaling_policy"].scaling_config is given.scaling_config
    # What it tells goes to Ray's files, not to the terminal.
    assert capfd.readouterr() == ("", "")
    assert [one for one in logger.handlers if isinstance(one, logging.NullHandler)]


@pytest.mark.parametrize("num_gpus", [0, 2])
def test_workers_that_start_ahead_are_those_that_it_asks_for(build, num_gpus):
    cluster = Cluster((Machine(num_cpus=4, num_gpus=num_gpus),))
    asked = build(alone=True, cluster=cluster).scaling_config._resources_per_worker_not_none
    assert asked == worker_resources(cluster)


def test_such_a_policy_tells_nobody_and_decides_the_same():
    config = ScalingConfig(num_workers=2)
    policy = UnannouncedScalingPolicy(config)
    policy.after_controller_start(None)
    decided = policy.make_decision_for_non_running_worker_group()
    assert decided.num_workers == 2
    policy.make_decision_for_running_worker_group(None, None)
    policy.before_controller_abort()

"""What of Ray Train a training starts."""

import asyncio
import logging

import pytest
from ray._private.log import PlainRayHandler
from ray.train import ScalingConfig
from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy, FixedScalingPolicy

from ssd_dist.config import Config
from ssd_dist.distributed import trainer
from ssd_dist.distributed.cluster import Cluster
from ssd_dist.distributed.lone_controller import UnannouncedScalingPolicy
from ssd_dist.distributed.machines import Machine
from ssd_dist.distributed.safeguards import Safeguards
from ssd_dist.distributed.train import build_trainer


@pytest.fixture
def build(tmp_path):
    cluster = Cluster((Machine(num_cpus=2, num_gpus=0),))

    def build(alone, head_start=None):
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
        self.is_run = False

    async def run(self):
        await asyncio.sleep(0)
        self.is_run = True

    def get_result(self):
        assert self.is_run
        return self.arguments


@pytest.fixture
def logger():
    logger = logging.getLogger("ray.train")
    before = list(logger.handlers)
    yield logger
    logger.handlers = before


@pytest.mark.parametrize(
    ("num_workers", "policy", "expected"),
    [
        (2, FixedScalingPolicy, UnannouncedScalingPolicy),
        ((1, 2), ElasticScalingPolicy, ElasticScalingPolicy),
    ],
)
def test_its_controller_runs_here_and_asks_no_autoscaler_for_a_fixed_number(
    build, monkeypatch, logger, num_workers, policy, expected
):
    monkeypatch.setattr(trainer, "LoneController", Controller)
    given = policy(ScalingConfig(num_workers=num_workers))
    lone = build(alone=True, head_start="workers")
    arguments = lone._initialize_and_run_controller(scaling_policy=given)
    assert arguments["head_start"] == "workers"
    assert type(arguments["scaling_policy"]) is expected
    assert arguments["scaling_policy"].scaling_config is given.scaling_config
    # What it tells goes to Ray's files, not to the terminal.
    assert not [one for one in logger.handlers if isinstance(one, PlainRayHandler)]
    assert [one for one in logger.handlers if isinstance(one, logging.NullHandler)]


def test_such_a_policy_tells_nobody_and_decides_the_same():
    config = ScalingConfig(num_workers=2)
    policy = UnannouncedScalingPolicy(config)
    policy.after_controller_start(None)
    decided = policy.make_decision_for_non_running_worker_group()
    assert decided.num_workers == 2
    policy.make_decision_for_running_worker_group(None, None)
    policy.before_controller_abort()

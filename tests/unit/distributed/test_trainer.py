"""What of Ray Train a training starts."""

import pytest
from ray.train import ScalingConfig
from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy, FixedScalingPolicy

from ssd_dist.config import Config
from ssd_dist.distributed import trainer
from ssd_dist.distributed.cluster import Cluster
from ssd_dist.distributed.lone_controller import LoneController, UnannouncedScalingPolicy
from ssd_dist.distributed.machines import Machine
from ssd_dist.distributed.safeguards import Safeguards
from ssd_dist.distributed.train import build_trainer


@pytest.fixture
def build(tmp_path):
    cluster = Cluster((Machine(num_cpus=2, num_gpus=0),))

    def build(alone):
        return build_trainer(
            Config(lr=1e-3),
            "synthetic",
            "ray/training",
            cluster,
            Safeguards(str(tmp_path), "training", None),
            num_workers=2,
            alone=alone,
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


class Started:
    """Stands for a controller's handle."""

    def __init__(self, **arguments):
        self.arguments = arguments
        self.run = self.get_result = self

    def remote(self):
        return self.arguments


@pytest.mark.parametrize(
    ("num_workers", "policy", "expected"),
    [
        (2, FixedScalingPolicy, UnannouncedScalingPolicy),
        ((1, 2), ElasticScalingPolicy, ElasticScalingPolicy),
    ],
)
def test_no_autoscaler_is_asked_for_a_fixed_number_of_workers(
    build, monkeypatch, num_workers, policy, expected
):
    classes = []

    def remote(**options):
        assert options == {"num_cpus": 0}  # no runtime environment

        def wrap(controller):
            classes.append(controller)
            return type("Handle", (), {"remote": staticmethod(Started)})

        return wrap

    monkeypatch.setattr(trainer.ray, "remote", remote)
    monkeypatch.setattr(trainer.ray, "get", lambda one: one)
    monkeypatch.setattr(trainer.LoneTrainer, "_register_sigint_handler", lambda *_: None)
    given = policy(ScalingConfig(num_workers=num_workers))
    arguments = build(alone=True)._initialize_and_run_controller(scaling_policy=given)
    assert classes == [LoneController]
    assert type(arguments["scaling_policy"]) is expected
    assert arguments["scaling_policy"].scaling_config is given.scaling_config


def test_such_a_policy_tells_nobody_and_decides_the_same():
    config = ScalingConfig(num_workers=2)
    policy = UnannouncedScalingPolicy(config)
    policy.after_controller_start(None)
    decided = policy.make_decision_for_non_running_worker_group()
    assert decided.num_workers == 2
    policy.make_decision_for_running_worker_group(None, None)
    policy.before_controller_abort()

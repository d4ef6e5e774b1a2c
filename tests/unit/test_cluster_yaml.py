from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

PATH = Path(__file__).parents[2] / "cluster.yaml"


@pytest.fixture
def config():
    return yaml.safe_load(PATH.read_text(encoding="utf-8"))


def test_ray_accepts_it(config):
    validate_config(prepare_config(config))


def test_ray_refuses_what_it_does_not_know(config):
    config["max_wrokers"] = 3
    with pytest.raises(Exception, match="max_wrokers"):
        validate_config(prepare_config(config))


def test_every_ray_that_it_starts_asks_for_a_token(config):
    starts = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    assert all("RAY_AUTH_MODE=token" in line for line in starts if "ray start" in line)

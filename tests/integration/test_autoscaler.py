"""A cluster that is a head alone until a job asks for more, by Ray's own fake of a cloud."""

import pytest
import yaml
from clusters import start_ray
from outcomes import check_search
from running import run_job, start_job, wait_until

pytestmark = pytest.mark.cluster

MOST_WORKERS = 2


@pytest.fixture
def growing(environment, tmp_path):
    """A head without cores, and an autoscaler that may add two machines of one core each."""
    worker = {"CPU": 1, "object_store_memory": 100_000_000}
    config = {
        "cluster_name": "growing",
        "max_workers": MOST_WORKERS,
        "idle_timeout_minutes": 0.25,
        "upscaling_speed": 10.0,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": "GCS_ADDRESS",
            # All nodes have the same address, and nothing is to be installed on them.
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "auth": {},
        # `ray up` would fill these in.
        "file_mounts": {},
        "cluster_synced_files": [],
        "worker_setup_commands": [],
        "worker_start_ray_commands": [],
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": worker, "node_config": {}, "max_workers": MOST_WORKERS},
        },
    }
    path = tmp_path / "autoscaling.yaml"
    path.write_text(yaml.safe_dump(config))
    fake = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    with start_ray({**environment, **fake}, num_cpus=0, autoscaling=path) as server:
        yield server


@pytest.mark.parametrize("workers_per_trial", [1, 2])
def test_a_search_grows_the_cluster_and_lets_it_go(
    workers_per_trial, tiny_config, voc_root, tmp_path, growing
):
    flags = ["--config", tiny_config, "--data", voc_root, "--storage", tmp_path, "--name", "s"]
    most = MOST_WORKERS // workers_per_trial
    flags += ["--trials", most, "--epochs", 2, "--workers-per-trial", workers_per_trial]
    assert growing.num_nodes() == 1
    refused = run_job("tune.py", *flags, "--concurrent", most + 1, env=growing.environment)
    [line] = refused.stderr.strip().splitlines()
    assert f"CPU cores, and this Ray has {MOST_WORKERS}: ask for fewer" in line
    assert not (tmp_path / "s").exists()

    log = tmp_path / "driver.log"
    driver = start_job("tune.py", *flags, env=growing.environment, log=log)
    wait_until(lambda: growing.num_nodes() == 1 + MOST_WORKERS, 120, log.read_text)
    assert driver.wait(timeout=200) == 0, log.read_text()
    text = log.read_text()
    assert f"{most} trials, {most} at once with {workers_per_trial} cpu worker(s) each" in text
    check_search(tmp_path / "s", num_trials=most, num_epochs=2)
    wait_until(lambda: growing.num_nodes() == 1, 90, lambda: growing.listed("nodes"))

"""cluster.yaml and what lies in deploy/: checked by Ray, and against KubeRay's schema."""

import json
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from ssd_dist.distributed.machines import MAX_NODES_VARIABLE, Machine, _added_at_most
from ssd_dist.distributed.preemption import HEARD_WITHIN_S, SAVE_WITHIN_S

ROOT = Path(__file__).parents[2]
CLOUD = ["cluster.yaml", "deploy/gcp.yaml"]
LAUNCHED = [*CLOUD, "deploy/on_premise.yaml"]

# The part of the RayJob CRD that deploy/rayjob.yaml uses, after ray-project/kuberay v1.7.0,
# helm-chart/kuberay-operator/crds/ray.io_rayjobs.yaml, version v1; the same in v1.5.1. Pods' own
# fields are Kubernetes'.
_NUMBER_OF_PODS = {"type": "integer", "minimum": 0}
_OPTIONS = {"type": "object", "additionalProperties": {"type": "string"}}
_QUANTITIES = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        kind: {"type": "object", "additionalProperties": {"type": ["string", "integer"]}}
        for kind in ("requests", "limits")
    },
}


def _closed(required=(), **properties):
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": list(required),
    }


_POD = _closed(
    required=["spec"],
    spec=_closed(
        required=["containers"],
        serviceAccountName={"type": "string"},
        nodeSelector=_OPTIONS,
        volumes={"type": "array"},
        containers={
            "type": "array",
            "items": _closed(
                required=["name"],
                name={"type": "string"},
                image={"type": "string"},
                env={
                    "type": "array",
                    "items": _closed(
                        required=["name"], name={"type": "string"}, value={"type": "string"}
                    ),
                },
                ports={"type": "array"},
                resources=_QUANTITIES,
                volumeMounts={"type": "array"},
            ),
        },
    ),
)
RAY_JOB = _closed(
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=_closed(required=["name"], name={"type": "string"}),
    spec=_closed(
        entrypoint={"type": "string"},
        shutdownAfterJobFinishes={"type": "boolean"},
        ttlSecondsAfterFinished={"type": "integer"},
        rayClusterSpec=_closed(
            required=["headGroupSpec"],
            rayVersion={"type": "string"},
            authOptions=_closed(mode={"enum": ["disabled", "token"]}),
            enableInTreeAutoscaling={"type": "boolean"},
            autoscalerOptions=_closed(idleTimeoutSeconds={"type": "integer"}),
            headGroupSpec=_closed(required=["template"], rayStartParams=_OPTIONS, template=_POD),
            workerGroupSpecs={
                "type": "array",
                "items": _closed(
                    required=["groupName", "maxReplicas", "minReplicas", "template"],
                    groupName={"type": "string"},
                    replicas=_NUMBER_OF_PODS,
                    minReplicas=_NUMBER_OF_PODS,
                    maxReplicas=_NUMBER_OF_PODS,
                    rayStartParams=_OPTIONS,
                    template=_POD,
                ),
            },
        ),
    ),
)


def load(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


@pytest.fixture
def ray_job():
    return load("deploy/rayjob.yaml")


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_accepts_it(name):
    validate_config(prepare_config(load(name)))


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_refuses_what_it_does_not_know(name):
    with pytest.raises(jsonschema.ValidationError, match="max_wrokers"):
        validate_config(prepare_config({**load(name), "max_wrokers": 3}))


@pytest.mark.parametrize("name", LAUNCHED)
def test_every_node_has_the_token_and_asks_for_it(name):
    config = load(name)
    starts = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    assert sum("ray start" in line for line in starts) == 2
    assert all("RAY_AUTH_MODE=token ray start" in line for line in starts if "ray start" in line)
    home = "~" if config["provider"]["type"] == "local" else f"/home/{config['auth']['ssh_user']}"
    assert config["file_mounts"][f"{home}/.ray/auth_token"] == "~/.ray/auth_token"
    assert config["file_mounts"][f"{home}/ssd_dist"] == "."


def test_a_job_that_is_stopped_has_the_time_to_store_its_state(ray_job):
    """The supervisor of Ray's that stops it runs on the head, and kills after 3 seconds."""
    variable = "RAY_JOB_STOP_WAIT_TIME_S"
    supervisor = Path(ray.__file__).parent / "dashboard" / "modules" / "job" / "job_supervisor.py"
    assert f'"{variable}"' in supervisor.read_text(encoding="utf-8")
    [head] = ray_job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    found = [one["value"] for one in head["env"] if one["name"] == variable]
    for name in LAUNCHED:
        [start] = [line for line in load(name)["head_start_ray_commands"] if "--head" in line]
        found += re.findall(rf"{variable}=(\d+) .*ray start --head", start)
    for name in ("README.md", "docs/cluster.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        found += re.findall(rf"^export {variable}=(\d+) .*\n.*ray start --head", text, re.MULTILINE)
    assert len(found) == 6
    assert all(int(seconds) > SAVE_WITHIN_S + HEARD_WITHIN_S for seconds in found)


@pytest.mark.parametrize("name", LAUNCHED)
def test_the_shell_can_read_every_command(name):
    config = prepare_config(load(name))
    commands = [line for key in config if key.endswith("_commands") for line in config[key]]
    assert len(commands) >= 6
    for line in commands:
        subprocess.run(["bash", "-n", "-c", line], check=True)


@pytest.mark.parametrize("name", CLOUD)
def test_the_preflight_knows_what_can_be_added(name):
    """A cluster at rest is a head without a core; the search is to count on its GPU workers."""
    config = prepare_config(load(name))
    assert config["available_node_types"]["head"]["resources"] == {"CPU": 0}
    assert config["available_node_types"]["gpu_worker"]["min_workers"] == 0
    assert _added_at_most(config) == (Machine(num_cpus=8, num_gpus=1),) * 4


def test_own_machines_are_all_started():
    config = load("deploy/on_premise.yaml")
    assert len(config["provider"]["worker_ips"]) == config["min_workers"] == config["max_workers"]


@pytest.mark.parametrize("name", CLOUD)
def test_workers_may_use_the_bucket(name):
    """By default Ray gives its account to the head only."""
    worker = load(name)["available_node_types"]["gpu_worker"]["node_config"]
    assert "IamInstanceProfile" in worker or "cloud-platform" in str(worker["serviceAccounts"])


def test_kuberay_accepts_the_job(ray_job):
    jsonschema.validate(ray_job, RAY_JOB)
    spec = ray_job["spec"]["rayClusterSpec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}


def test_kuberay_refuses_what_it_does_not_know(ray_job):
    ray_job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplica"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        jsonschema.validate(ray_job, RAY_JOB)


def test_the_job_tells_the_preflight_what_its_workers_are(ray_job):
    spec = ray_job["spec"]["rayClusterSpec"]
    [head] = spec["headGroupSpec"]["template"]["spec"]["containers"]
    [declared] = [one["value"] for one in head["env"] if one["name"] == MAX_NODES_VARIABLE]
    [group] = spec["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert json.loads(declared) == [
        {
            "CPU": int(limits["cpu"]),
            "GPU": int(limits["nvidia.com/gpu"]),
            "count": group["maxReplicas"],
        }
    ]


def test_one_version_of_ray(ray_job):
    pinned = re.search(r'"ray\[.*\]==([\d.]+)"', (ROOT / "pyproject.toml").read_text())[1]
    assert ray_job["spec"]["rayClusterSpec"]["rayVersion"] == pinned
    assert f"rayproject/ray:{pinned}-" in (ROOT / "deploy" / "Dockerfile").read_text()


def test_the_commands_name_what_exists(ray_job):
    image = "/home/ray/ssd_dist/"
    paths = re.findall(rf"{image}(\S+)", ray_job["spec"]["entrypoint"])
    assert len(paths) == 2
    assert all((ROOT / path).is_file() for path in paths)

"""The machines that a Ray cluster has, or that its autoscaler may add."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml

HEAD = "node:__internal_head__"
"""The resource that the head alone has, for what is to run there."""
MAX_NODES_VARIABLE = "SSD_DIST_MAX_NODES"
"""Environment variable for an autoscaler that keeps its maximum to itself, such as KubeRay's: JSON,
as `[{"CPU": 8, "GPU": 1, "count": 4}]`."""
_EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class Machine:
    """What one machine offers to Ray."""

    num_cpus: int
    num_gpus: int

    def num_slots(self, gpus_per_worker: float) -> int:
        """Workers that fit here, each with a CPU core and, unless `gpus_per_worker` is 0, its share
        (up to 1) of one GPU."""
        if not gpus_per_worker:
            return self.num_cpus
        return min(self.num_cpus, self.num_gpus * int(1 / gpus_per_worker + _EPSILON))


def machines_at_most() -> tuple[Machine, ...]:
    """The machines of the Ray that this process has joined, and those that its autoscaler may still
    add; of several kinds those with the most GPUs first, up to its `max_workers`."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    alive = tuple(_machine(node["Resources"]) for node in nodes)
    head = next((node for node in nodes if HEAD in node["Resources"]), None)
    if (declared := os.environ.get(MAX_NODES_VARIABLE)) is not None:
        added = _declared(declared)
    else:
        added = _added_at_most(_autoscaling_config(head) or {})
    # Of the workers that are there now the autoscaler started some: they count once.
    heads = (_machine(head["Resources"]),) if head is not None else ()
    grown = (*heads, *added)
    return max(alive, grown, key=_resources)


def _resources(machines: tuple[Machine, ...]) -> tuple[int, int]:
    return sum(one.num_gpus for one in machines), sum(one.num_cpus for one in machines)


def _machine(resources: Mapping[str, float]) -> Machine:
    return Machine(int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))


def _declared(text: str) -> tuple[Machine, ...]:
    try:
        return tuple(
            machine for kind in json.loads(text) for machine in [_machine(kind)] * kind["count"]
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(
            f"{MAX_NODES_VARIABLE} must be JSON such as "
            f'[{{"CPU": 8, "GPU": 1, "count": 4}}], not {text}'
        ) from None


def _added_at_most(config: Mapping[str, Any]) -> tuple[Machine, ...]:
    """The workers that a configuration of Ray's autoscaler (a cluster.yaml) admits."""
    limit = int(config.get("max_workers", 0))
    kinds = [
        (_machine(kind.get("resources", {})), int(kind.get("max_workers", limit)))
        for name, kind in config.get("available_node_types", {}).items()
        if name != config.get("head_node_type")
    ]
    kinds.sort(key=lambda pair: (pair[0].num_gpus, pair[0].num_cpus), reverse=True)
    machines = [machine for machine, count in kinds for machine in [machine] * min(count, limit)]
    return tuple(machines[:limit])


def _autoscaling_config(head: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What `ray start --autoscaling-config` was given on the head; None if nothing."""
    if head is None:
        return None
    port = ray.get_runtime_context().gcs_address.rpartition(":")[2]
    if head["NodeID"] == ray.get_runtime_context().get_node_id():
        return _read_autoscaling_config(port)
    read = ray.remote(num_cpus=0, resources={HEAD: 0.001})(_read_autoscaling_config)
    return ray.get(read.remote(port))


def _read_autoscaling_config(port: str) -> dict[str, Any] | None:
    """On the head: the configuration of the autoscaler that serves the Ray at `port`.

    Ray itself tells nobody what its autoscaler may add; its monitor's command line names the file.
    """
    for command in _command_lines():
        flags = dict(argument.partition("=")[::2] for argument in command)
        if flags.get("--gcs-address", "").endswith(f":{port}") and "--autoscaling-config" in flags:
            path = Path(flags["--autoscaling-config"]).expanduser()
            try:
                config = yaml.safe_load(path.read_text(encoding="utf-8"))
            except (OSError, yaml.YAMLError):
                return None
            return config if isinstance(config, dict) else None
    return None


def _command_lines() -> Iterable[list[str]]:
    for process in psutil.process_iter():
        try:
            yield process.cmdline()
        except psutil.Error:
            continue

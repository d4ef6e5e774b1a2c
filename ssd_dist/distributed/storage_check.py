"""Before a job starts: can every node use its storage, and is it the same storage for all?

A folder that only the driver has is the mistake that costs most: the trials of the other nodes
train for hours and leave their checkpoints where nobody finds them.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from typing import Any

import ray
from pyarrow import fs
from ray.exceptions import RayError, TaskUnschedulableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ssd_dist.distributed.buckets import below, is_uri, open_location, reason, shown_location

TIMEOUT_S = 60.0
"""How long nodes are waited for; one that does not answer hangs on its storage or its network."""
_PROBE_BYTES = 1 << 20  # a disk that is almost full may still take a few bytes


class StorageError(OSError):
    """The storage can't be used, from the node that the message names."""


def check_storage(location: str) -> None:
    """Writes, reads and deletes a file in an experiment's storage, from the driver and, if there
    are more, from every node that is up; nothing is left. Nodes that an autoscaler adds later are
    not asked.

    Args:
        location: the experiment's folder, which need not exist, or its URI.

    Raises StorageError, in one sentence that names the node and the storage.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    with _probe_folder(location) as probe:
        if len(nodes) > 1:
            _ask_nodes(nodes, location, probe)


@contextlib.contextmanager
def _probe_folder(location: str) -> Iterator[str]:
    """Location of a folder in the storage with the driver's file in it; it is gone afterwards, and
    so is the storage's, if it was not there."""
    probe = below(location, f".storage-check-{uuid.uuid4().hex}")
    filesystem, path = open_location(probe)
    made = [] if is_uri(location) else _missing_folders(location)
    try:
        with _told(location, "the driver's machine"):
            filesystem.create_dir(path, recursive=True)
            content = os.urandom(_PROBE_BYTES)
            _write(filesystem, f"{path}/driver", content)
            if _read(filesystem, f"{path}/driver") != content:
                raise OSError("what was written is not what is read")
        yield probe
        with _told(location, "the driver's machine"):
            filesystem.delete_dir(path)
    finally:
        with contextlib.suppress(OSError):  # after an error that says more
            filesystem.delete_dir(path)
        for folder in made:
            with contextlib.suppress(OSError):
                os.rmdir(folder)  # noqa: PTH106


def _ask_nodes(nodes: list[dict[str, Any]], location: str, probe: str) -> None:
    """Raises StorageError if a node does not find the driver's file, or the driver not its."""
    names = {node["NodeID"]: _name(node) for node in nodes}
    answers = {
        _try_storage.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)
        ).remote(probe, node_id): node_id
        for node_id in names
    }
    ready, late = ray.wait(list(answers), num_returns=len(answers), timeout=TIMEOUT_S)
    for answer in ready:
        name = names[answers[answer]]
        try:
            problem = ray.get(answer)
        except TaskUnschedulableError:  # the node has died since it was listed
            del names[answers[answer]]
            continue
        except RayError as error:
            problem = f"it could not be asked ({type(error).__name__})"
        if problem is not None:
            raise StorageError(_sentence(location, name, problem))
    for answer in late:
        ray.cancel(answer, force=True)
        problem = f"no answer within {TIMEOUT_S:.0f} s"
        raise StorageError(_sentence(location, names[answers[answer]], problem))
    filesystem, path = open_location(probe)
    for node_id, name in names.items():
        with _told(location, name):
            try:
                _read(filesystem, f"{path}/{node_id}")
            except FileNotFoundError:
                raise OSError("what it writes there is not seen by the driver") from None


@ray.remote(num_cpus=0, max_retries=0)
def _try_storage(probe: str, node_id: str) -> str | None:
    """Runs on each node: what is wrong there, or None."""
    filesystem, path = open_location(probe)
    try:
        _read(filesystem, f"{path}/driver")
    except FileNotFoundError:
        return "it does not see what the driver writes there: all nodes must share it"
    except OSError as error:
        return reason(error)
    try:
        _write(filesystem, f"{path}/{node_id}", b"seen")
    except OSError as error:
        return reason(error)
    return None


@contextlib.contextmanager
def _told(location: str, node: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(_sentence(location, node, reason(error))) from None


def _sentence(location: str, node: str, problem: str) -> str:
    return f"the storage {shown_location(location)} can't be used from {node}: {problem}"


def _name(node: dict[str, Any]) -> str:
    return f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def _missing_folders(folder: str) -> list[str]:
    """A folder and those above it that are not there yet, innermost first."""
    missing = []
    while not os.path.lexists(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)  # noqa: PTH120
    return missing


def _write(filesystem: fs.FileSystem, path: str, content: bytes) -> None:
    with filesystem.open_output_stream(path) as stream:
        stream.write(content)


def _read(filesystem: fs.FileSystem, path: str) -> bytes:
    with filesystem.open_input_stream(path) as stream:
        return bytes(stream.read())

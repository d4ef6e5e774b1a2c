"""A Ray for one job on one machine, without the processes that serve others.

Ray starts three Python programs before its node can begin: the server behind its dashboard, which
it waits for even where no dashboard is wanted; the monitor that asks for machines when there are
too few; and the one that sends workers' output to drivers. A job that starts its own Ray has no use
for any: together they take three seconds of the processors, as long of its start, and a hundredth
of a core all the time. Nor has it for the door that the node's agent opens for a dashboard; to see
whether all is there for it takes the job another second.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray._private.node
import ray._private.utils
from ray._private import ray_constants


class LeanNode(ray._private.node.Node):
    """The head node without them."""

    def start_api_server(self, **_: Any) -> None:
        """Nobody asks it. But the node's agent asks for its address, again and again until there is
        one: it is told one that refuses what it sends."""
        self.get_gcs_client().internal_kv_put(
            ray_constants.DASHBOARD_ADDRESS.encode(),
            b"127.0.0.1:0",
            True,
            ray_constants.KV_NAMESPACE_DASHBOARD,
        )

    def start_monitor(self) -> None:
        """There are no machines to ask for."""

    def start_log_monitor(self) -> None:
        """The job does not want its workers' output: Ray keeps it in files."""


@contextmanager
def lean_node() -> Iterator[None]:
    """`ray.init` starts such a node meanwhile, if it starts one."""
    node, utils = ray._private.node, ray._private.utils
    node_class, dependency_error = node.Node, utils.get_dashboard_dependency_error
    node.Node = LeanNode  # type: ignore[misc]
    # As if a package that a dashboard needs were missing.
    utils.get_dashboard_dependency_error = lambda: ImportError("not wanted")
    try:
        yield
    finally:
        node.Node = node_class  # type: ignore[misc]
        utils.get_dashboard_dependency_error = dependency_error

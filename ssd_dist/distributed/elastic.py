"""How many workers a training takes: a number, or any number between two, as nodes come and go."""

from __future__ import annotations

import re

from ssd_dist.config import Config
from ssd_dist.distributed.cluster import Cluster, check_fits, check_shares

NumWorkers = int | tuple[int, int]
"""So many; or at least the first and at most the second, as many as there is room for."""

RESIZE_INTERVAL_S = 60.0
"""How long a training goes on before it takes up machines that have come: a change costs the epoch
under way, and the restart."""

_NUMBER, _RANGE = re.compile(r"\d+"), re.compile(r"(\d+)\.\.(\d+)")


def parse_workers(text: str) -> NumWorkers:
    """`4`, or `1..4`. Raises ValueError."""
    if _NUMBER.fullmatch(text):
        return int(text)
    found = _RANGE.fullmatch(text)
    if found is None:
        raise ValueError(f"--workers {text}: give a number such as 4, or a range such as 1..4")
    least, most = int(found[1]), int(found[2])
    if least > most:
        raise ValueError(f"--workers {text}: the first number is the larger one")
    return least if least == most else (least, most)


def wanted_workers(asked: NumWorkers | None, cluster: Cluster, config: Config) -> NumWorkers:
    """What was asked for, whether or not it can be; or as many as the cluster holds and a batch has
    pictures. Imports nothing."""
    if asked is None:
        return max(1, min(cluster.num_slots(), config.global_batch_size))
    return asked


def training_workers(asked: NumWorkers | None, cluster: Cluster, config: Config) -> NumWorkers:
    """What was asked for, or as many as the cluster holds and a batch has pictures.

    Raises ValueError for what can't be: see :func:`check_fits`. Of a range the least has to fit;
    the most has to have pictures.
    """
    asked = wanted_workers(asked, cluster, config)
    least, most = (asked, asked) if isinstance(asked, int) else asked
    check_fits(cluster, config, num_trials=1, workers_per_trial=least)
    check_shares(config, most)
    return asked


def shown_workers(num_workers: NumWorkers) -> str:
    """As on the command line."""
    return str(num_workers) if isinstance(num_workers, int) else "{}..{}".format(*num_workers)

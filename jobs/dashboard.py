"""Opens Optuna's dashboard on a search that runs or has ended.

python jobs/dashboard.py --experiment runs/search
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import tyro

from ssd_dist.distributed.mirror import pull
from ssd_dist.importing import importing
from ssd_dist.terminal import Terminal, run_job


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Watch a search in a browser: its best trials, curves and importances, and each trial's
    pictures of validation detections. Nothing can be changed there. Ctrl-C ends it."""

    experiment: str
    """The search's folder, or where it lies in a bucket, s3://… or gs://…: as it is there now."""
    host: str = "127.0.0.1"
    """Address to listen on; this one is reached from this machine only. There is no password."""
    port: int | None = None
    """Port; without it, the first free one from 8080 on."""
    study_storage: str | None = None
    """URL of the study's database, if it needs a password or was moved; see jobs/tune.py."""


def main(arguments: Arguments, terminal: Terminal) -> None:
    """Arguments → one server."""
    with importing():
        from ssd_dist.distributed.watching import serve_dashboard

    serve_dashboard(
        pull(arguments.experiment),
        terminal,
        host=arguments.host,
        port=arguments.port,
        study_storage=arguments.study_storage,
    )


if __name__ == "__main__":
    parsed = tyro.cli(Arguments, config=(tyro.conf.FlagCreatePairsOff,))
    sys.exit(run_job(lambda terminal: main(parsed, terminal)))

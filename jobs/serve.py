"""Serves a detector over HTTP: post a picture, get what is in it.

python jobs/serve.py --experiment runs/search
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from ssd_dist.importing import importing
from ssd_dist.terminal import Terminal, run_job

_MOST_PORT = 2**16 - 1
NEEDED = ("uvicorn", "fastapi", "fastapi_offline", "python_multipart")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Serve a detector: POST a picture to /detect; a page to drop one on; /docs, /healthz and
    /metrics. Ctrl-C or SIGTERM ends it, once all that is under way is answered."""

    experiment: str | None = None
    """Folder (or s3://…, gs://…) of a training or a search: its best checkpoint is served. Without
    it and --checkpoint: the experiment in `runs` that finished last."""
    checkpoint: str | None = None
    """Folder of one checkpoint, instead of an experiment."""
    host: str = "127.0.0.1"
    """Address to listen on; this one is reached from this machine only. Others need a token."""
    port: int = 8000
    """Port; 0 takes a free one."""
    token_file: Path | None = None
    """File with the token that `Authorization: Bearer` must give; made, for you alone to read, if
    it is not there."""
    min_workers: int = 1
    """Processes that hold the network, whatever the load."""
    max_workers: int | None = None
    """The same under load; without it one a GPU, or one a CPU core where there is no GPU."""
    batch_size: int | None = None
    """Pictures that meet the network together; without it up to 4 on a CPU, 16 on a GPU."""
    batch_wait_ms: float = 0.0
    """What the first picture of a batch waits for others."""
    max_requests: int = 64
    """Requests under way at most; all further ones are answered with 429 at once."""
    max_bytes: int = 20_000_000
    """Size of an upload at most."""
    max_pixels: int = 50_000_000
    """Pixels of a picture at most, by its header."""


def main(arguments: Arguments, terminal: Terminal) -> None:
    """Arguments → one service."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing: pip install 'ssd-dist[serve]'")
    if not 0 <= arguments.port <= _MOST_PORT:  # beyond it the system would take another one
        raise ValueError(f"--port must be from 0 to {_MOST_PORT}, not {arguments.port}")
    with importing():
        from ssd_dist.distributed.prediction_job import chosen_checkpoint
        from ssd_dist.distributed.serving import run_service
        from ssd_dist.distributed.serving_http import Limits

    run_service(
        chosen_checkpoint(arguments.experiment, arguments.checkpoint),
        terminal,
        host=arguments.host,
        port=arguments.port,
        token_file=arguments.token_file,
        limits=Limits(
            max_bytes=arguments.max_bytes,
            max_pixels=arguments.max_pixels,
            max_requests=arguments.max_requests,
        ),
        min_workers=arguments.min_workers,
        max_workers=arguments.max_workers,
        batch_size=arguments.batch_size,
        batch_wait_ms=arguments.batch_wait_ms,
    )


if __name__ == "__main__":
    parsed = tyro.cli(Arguments, config=(tyro.conf.FlagCreatePairsOff,))
    sys.exit(run_job(lambda terminal: main(parsed, terminal)))

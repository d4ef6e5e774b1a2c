"""A few training steps under torch.profiler, and their trace for chrome://tracing or Perfetto."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

from ssd_dist.analysis.step_timing import StepBudget, Training, time_steps

MOST_BYTES = 20_000_000
"""Size of trace.json at most: what a browser opens at once."""


def profile_steps(training: Training, budget: StepBudget) -> tuple[profile, list[float]]:
    """Runs steps under the profiler: what it saw, and the milliseconds of each timed step."""
    # Its library writes its comings and goings to standard error, unless this is set when it wakes.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    activities = [ProfilerActivity.CPU]
    if training.worker.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        times = time_steps(training, budget)
    return profiler, times


def write_trace(profiler: profile, path: Path, most_bytes: int = MOST_BYTES) -> None:
    """Writes the Chrome trace to `path`, without the machine's name and folders, in at most
    `most_bytes`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial.json")
    try:
        profiler.export_chrome_trace(str(partial))
        trace = json.loads(partial.read_text(encoding="utf-8"))
        trace.pop("host_name", None)
        trace["traceName"] = path.name
        partial.write_text(compact_json(trace, most_bytes), encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def compact_json(trace: dict[str, Any], most_bytes: int) -> str:
    """A trace as JSON; where that is longer than `most_bytes`, without its shortest operations and
    without the arrows between operations. Labels, metadata and a GPU's kernels stay longest."""
    whole = _dumps(trace)
    if len(whole) <= most_bytes:
        return whole
    longest_first = sorted(
        (event for event in trace["traceEvents"] if event.get("cat") not in ("ac2g", "fwdbwd")),
        key=lambda event: event.get("dur", 0) if event.get("cat") == "cpu_op" else float("inf"),
        reverse=True,
    )
    left = most_bytes - len(_dumps({**trace, "traceEvents": []}))
    kept = []
    for event in longest_first:
        left -= len(_dumps(event)) + 1
        if left < 0:
            break
        kept.append(event)
    return _dumps({**trace, "traceEvents": sorted(kept, key=lambda event: event.get("ts", 0))})


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))  # ASCII: as many bytes as characters

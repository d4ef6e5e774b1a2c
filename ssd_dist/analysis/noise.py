"""Whether what was timed would come out the same a second time."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TOLERANCE = 0.10
"""How far, relatively, two runs' medians may lie apart."""
SUM_TOLERANCE = 0.05
"""How far the sum of the segments' medians may lie from the step's median."""
_NUM_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Noise:
    """A verdict on a machine while something was timed on it."""

    noisy: bool
    sentence: str
    """What was found, either way."""
    unsteady: dict[str, float]
    """Names of timings whose medians may differ by more than 10 % the next time, and by how much
    (0.15: 15 %)."""
    others_percent: float | None
    """Of the processors' time, what other processes and the host took; None where the system does
    not tell."""


def median_gap(values: Sequence[float]) -> float:
    """How far apart, relative to their size, the medians of two such runs may well lie.

    The larger of two figures: the 95 % bound on the difference of two runs' medians (1.96·√2 times
    the median's standard error, by bootstrap), which grows with the spread and falls with the
    number of values; and the difference between the first and the second half (from 4 values on),
    which shows a machine that grows slower or faster. Infinite for fewer than 2 values.
    """
    array = np.asarray(values, dtype=float)
    if len(array) < 2:
        return float("inf")
    median = float(np.median(array))
    drawn = np.random.default_rng(0).choice(array, (_NUM_RESAMPLES, len(array)))
    gap = 1.96 * np.sqrt(2) * np.median(drawn, axis=1).std()
    half = len(array) // 2
    drift = abs(np.median(array[:half]) - np.median(array[-half:])) if half > 1 else 0.0
    largest = float(max(gap, drift))
    return largest / median if median > 0 else (0.0 if largest == 0 else float("inf"))


def judge(
    timings: Mapping[str, Sequence[float]],
    others_percent: float | None,
    *,
    sum_gap: float = 0.0,
) -> Noise:
    """The verdict on repeated timings.

    Args:
        timings: name → values in their order; at least one name.
        others_percent: see `Noise`.
        sum_gap: by which part of the whole the medians of its segments miss the whole's median.
    """
    gaps = {name: median_gap(values) for name, values in timings.items()}
    unsteady = {name: gap for name, gap in gaps.items() if gap > TOLERANCE}
    reasons = []
    if unsteady:
        named = ", ".join(
            f"{name} by {100 * gap:.0f} %" if np.isfinite(gap) else f"{name} (timed once)"
            for name, gap in sorted(unsteady.items(), key=lambda item: -item[1])
        )
        reasons.append(f"medians may differ the next time: {named}")
    if sum_gap > SUM_TOLERANCE:
        reasons.append(f"the segments' medians miss the step's by {100 * sum_gap:.0f} %")
    if others_percent is not None and others_percent > 100 * TOLERANCE:
        reasons.append(f"other processes took {others_percent:.0f} % of the processors' time")
    if reasons:
        sentence = f"The machine was noisy; {'; '.join(reasons)}."
    else:
        worst = max(gaps.values())
        sentence = (
            "The machine was quiet: by their spread the medians of another run should lie within "
            f"{100 * worst:.0f} % of these."
        )
    return Noise(bool(reasons), sentence, unsteady, others_percent)


class LoadMeter:
    """What the machine's processors do while this process measures, from /proc/stat."""

    def __init__(self) -> None:
        self._began = _machine_seconds()
        self._own_began = time.process_time()

    def others_percent(self) -> float | None:
        """Since this meter was made: the share of all processors' time that other processes, and
        the host of a virtual machine, took; None where there is no /proc/stat."""
        now = _machine_seconds()
        if now is None or self._began is None or now[1] <= self._began[1]:
            return None
        busy, total = now[0] - self._began[0], now[1] - self._began[1]
        own = time.process_time() - self._own_began
        return 100 * min(1.0, max(0.0, (busy - own) / total))


def _machine_seconds() -> tuple[float, float] | None:
    """Seconds of all processors since boot: (busy or stolen, all)."""
    with suppress(OSError, ValueError, IndexError):
        line = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
        # user, nice, system, idle, waiting for disks, interrupts, soft interrupts, stolen
        ticks = [int(field) for field in line.split()[1:9]]
        idle = ticks[3] + ticks[4]
        per_second = os.sysconf("SC_CLK_TCK")
        return (sum(ticks) - idle) / per_second, sum(ticks) / per_second
    return None

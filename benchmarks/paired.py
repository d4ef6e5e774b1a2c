"""What benchmarks share that compare two ways of doing one thing: turns in one process, ratios."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Paired:
    """Seconds turn by turn: on a CPU of the processor, which on an idle machine and one thread are
    those of the clock, and on a busy one still comparable; on a GPU of the clock."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median of the turns' ratios: how many times as long theirs takes."""
        return statistics.median(self.ratios)

    @property
    def ratios(self) -> list[float]:
        """Theirs over ours, turn by turn."""
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    def cells(self) -> tuple[str, str, str]:
        """Medians of both in milliseconds, and the ratio with the middle half of its turns."""
        low, _, high = statistics.quantiles(self.ratios, n=4)
        return (
            f"{1e3 * statistics.median(self.ours):.1f}",
            f"{1e3 * statistics.median(self.theirs):.1f}",
            f"{self.ratio:.2f} ({low:.2f} … {high:.2f})",
        )


def clock_of(device: torch.device) -> Callable[[], float]:
    """What tells the seconds of work on a device: a GPU's is waited for."""
    if device.type == "cpu":
        return time.process_time

    def seconds() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return seconds


def place_of(device: torch.device) -> str:
    """Where it runs, in words."""
    if device.type == "cpu":
        return f"{torch.backends.cpu.get_cpu_capability()}, one thread"
    return torch.cuda.get_device_name(device)


def by_turns(ours: Run, theirs: Run, turns: int, device: torch.device, warm_up: int = 2) -> Paired:
    """Runs both `turns` times; whichever comes first has the colder caches: they change places."""
    clock = clock_of(device)
    for _ in range(warm_up):
        ours()
        theirs()
    seconds: dict[Run, list[float]] = {ours: [], theirs: []}
    gc.collect()
    gc.disable()
    try:
        for turn in range(turns):
            for run in (ours, theirs)[:: 1 if turn % 2 else -1]:
                started = clock()
                run()
                seconds[run].append(clock() - started)
    finally:
        gc.enable()
    return Paired(tuple(seconds[ours]), tuple(seconds[theirs]))

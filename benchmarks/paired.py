"""What benchmarks share that compare two ways of doing one thing: turns in one process, ratios."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Paired:
    """Seconds of the processor, turn by turn: on an idle machine and one thread those of the clock,
    and on a busy one still comparable."""

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


def by_turns(ours: Run, theirs: Run, turns: int, warm_up: int = 2) -> Paired:
    """Runs both `turns` times; whichever comes first has the colder caches: they change places."""
    for _ in range(warm_up):
        ours()
        theirs()
    seconds: dict[Run, list[float]] = {ours: [], theirs: []}
    gc.collect()
    gc.disable()
    try:
        for turn in range(turns):
            for run in (ours, theirs)[:: 1 if turn % 2 else -1]:
                started = time.process_time()
                run()
                seconds[run].append(time.process_time() - started)
    finally:
        gc.enable()
    return Paired(tuple(seconds[ours]), tuple(seconds[theirs]))

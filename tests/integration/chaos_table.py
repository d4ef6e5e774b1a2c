"""What a run of chaos found, as figures and as a table."""

import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One fault that was done to a job."""

    kind: str
    script: str
    recovered: bool
    """Whether the job went on, by itself or by --resume."""
    seconds: float | None
    """Until it had stored an epoch again; None where there was nothing to wait for."""
    epochs_lost: float
    """Work that was done again."""

    def line(self) -> str:
        """For the log of a run."""
        seconds = "" if self.seconds is None else f" in {self.seconds:.0f} s"
        went = "went on" if self.recovered else "DID NOT GO ON"
        return f"{self.kind}: {went}{seconds}, {self.epochs_lost:.2f} epochs lost"


@dataclass(frozen=True)
class Figures:
    """What a run found."""

    faults: list[Fault]
    wrong: list[str]
    """What is wrong with the results, a sentence each."""
    seed: int
    machine: str
    commit: str | None
    minutes: float

    @property
    def num_wrong(self) -> int:
        """Wrong results, and faults after which a job did not go on."""
        return len(self.wrong) + sum(not fault.recovered for fault in self.faults)


def as_markdown(figures: Figures) -> str:
    """A table with a row for each kind of fault, and one for all."""
    kinds = list(dict.fromkeys(fault.kind for fault in figures.faults))
    rows = [
        "| fault | injected | recovered | seconds to recover: median | worst | epochs lost: median"
        " | worst |",
        "|---|--:|--:|--:|--:|--:|--:|",
        *(_row(kind, [f for f in figures.faults if f.kind == kind]) for kind in kinds),
        _row("**all**", figures.faults),
    ]
    return (
        "\n".join(rows)
        + f"\n\nWrong results: {len(figures.wrong)}. {figures.minutes:.0f} minutes on "
        f"{figures.machine}, seed {figures.seed}.\n"
    )


def _row(name: str, faults: list[Fault]) -> str:
    seconds = [fault.seconds for fault in faults if fault.seconds is not None]
    lost = [fault.epochs_lost for fault in faults]
    times = (f"{statistics.median(seconds):.0f}", f"{max(seconds):.0f}") if seconds else ("–", "–")
    cells = [
        name,
        str(len(faults)),
        str(sum(fault.recovered for fault in faults)),
        *times,
        f"{statistics.median(lost):.1f}",
        f"{max(lost):.1f}",
    ]
    return f"| {' | '.join(cells)} |"

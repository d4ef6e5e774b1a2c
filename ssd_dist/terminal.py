"""What people read while a job runs: lines, and a progress bar where there is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ssd_dist.experiment import TrialRecord, ranked
from ssd_dist.repeated import Repeated, spread

if TYPE_CHECKING:
    from ssd_dist.training import Preparation

MOST_PROBLEMS = 10


class JobFailedError(RuntimeError):
    """A training or a search that was started and could not be finished; the message says why."""


class Terminal:
    """Plain lines on standard output; on a real terminal with colour and one live progress bar."""

    def __init__(self) -> None:
        # Bound to today's stream: Ray's libraries print, and their prints are redirected. In a log
        # nothing is gained by 80 columns.
        width = None if sys.stdout.isatty() else 160
        self.console = Console(file=sys.stdout, width=width, highlight=False, soft_wrap=True)
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __reduce__(self) -> tuple[type[Terminal], tuple[()]]:
        # Ray Tune pickles its callbacks into a snapshot, which nothing here reads.
        return Terminal, ()

    def line(self, text: str) -> None:
        """One line; above the bar, where there is one."""
        self.console.print(escape(text))

    def heading(self, text: str) -> None:
        """One line that stands out."""
        self.console.print(f"[bold]{escape(text)}[/bold]")

    def introduce(self, preparation: Preparation) -> None:
        """What a job is about to work on."""
        names = preparation.class_names
        shown_names = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        self.line(
            f"data: {preparation.num_train} training and {preparation.num_val} validation "
            f"pictures, {len(names)} classes ({shown_names})"
        )
        if preparation.first_weights is not None:
            self.line(f"weights: {preparation.first_weights}")
        for problem in preparation.problems[:MOST_PROBLEMS]:
            self.line(f"note: {problem}")
        if len(preparation.problems) > MOST_PROBLEMS:
            self.line(f"note: … and {len(preparation.problems) - MOST_PROBLEMS} more like these")

    @contextmanager
    def bar(self, description: str) -> Iterator[None]:
        """Shows a progress bar meanwhile, if there is a terminal to show it on."""
        if not self.console.is_terminal:
            yield
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            self._progress, self._task = progress, progress.add_task(description, total=1)
            try:
                yield
            finally:
                self._progress = None

    def advance(self, completed: float, total: float, description: str | None = None) -> None:
        """Moves the bar; nothing where there is none."""
        if self._progress is not None and self._task is not None:
            changes = {} if description is None else {"description": escape(description)}
            self._progress.update(self._task, completed=completed, total=total, **changes)  # type: ignore[arg-type]

    def leaderboard(self, trials: Sequence[TrialRecord], most: int = 20) -> None:
        """The trials as a table, best first."""
        names = list(dict.fromkeys(name for trial in trials for name in trial.parameters))
        table = Table(title="Leaderboard (validation 11-point mAP)", title_justify="left")
        for column in ("rank", "trial", "mAP", "epochs", "seconds", *names):
            table.add_column(column, justify="right")
        table.add_column("state")
        for rank, trial in enumerate(ranked(trials)[:most], start=1):
            table.add_row(
                str(rank),
                str(trial.number),
                "-" if trial.map_11pt is None else f"{trial.map_11pt:.4f}",
                str(trial.epochs),
                f"{trial.seconds:.0f}",
                *(escape(format_value(trial.parameters.get(name))) for name in names),
                trial.state,
            )
        self.console.print(table)

    def repeats(self, repeats: Sequence[Repeated]) -> None:
        """What was trained again with several seeds as a table, best mean first."""
        names = list(repeats[0].parameters)
        table = Table(title="Trained again in full (validation 11-point mAP)", title_justify="left")
        for column in ("configuration", "mean ± deviation", "each seed", *names):
            table.add_column(column, justify="left" if column == "configuration" else "right")
        for one in repeats:
            table.add_row(
                one.name,
                spread(one.values, 4),
                " ".join(f"{value:.4f}" for value in one.values),
                *(escape(format_value(one.parameters[name])) for name in names),
            )
        self.console.print(table)


def format_value(value: object) -> str:
    """A hyperparameter in four digits at most."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def shown(path: Path) -> str:
    """A path as a person would type it: relative to here, where it lies below."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def run_job(job: Callable[[Terminal], None]) -> int:
    """Runs a job; the exit status of its process.

    What the user can put right (ValueError, OSError) and a job that failed (JobFailedError) are
    told in one line on standard error; anything else is a mistake of ours and keeps its trace.
    """
    terminal = Terminal()
    try:
        job(terminal)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except (ValueError, OSError, JobFailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0

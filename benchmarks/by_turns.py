"""Trainings that take turns epoch by epoch, all others stopped meanwhile.

The speed of a shared machine changes by a quarter within a minute. So trainings that are to be
compared do not run one after the other: each is stopped, with all its processes, after each of its
epochs, and goes on once all others have done one. What is compared lies seconds apart.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

_POLL_S = 0.05


class Run:
    """A training that is under way, or stopped after one of its epochs."""

    def __init__(
        self,
        command: Sequence[object],
        log: Path,
        environment: dict[str, str],
        *,
        settle_s: float,
    ) -> None:
        """Not yet started.

        Args:
            command: what to run; of what it prints a line for each epoch begins with `epoch`.
            log: where that goes.
            environment: of its process.
            settle_s: seconds from such a line until the training surely works on the next epoch:
                what the end of one leaves to do, a checkpoint to write, is done by then, and the
                pause lies within the next one.
        """
        self._command, self._log, self._environment = list(map(str, command)), log, environment
        self._settle_s = settle_s
        self._process: subprocess.Popen[bytes] | None = None
        self._paused_at = 0.0
        self._pauses: list[float] = []

    def epoch(self) -> None:
        """Goes on until an epoch more is told, and a little further, and stops. Raises SystemExit
        with the training's own words if it ends."""
        process = self._go_on()
        told = self._num_told()
        while self._num_told() == told and process.poll() is None:
            time.sleep(_POLL_S)
        time.sleep(self._settle_s)
        if process.poll() is not None:
            sys.exit(f"{self._command} ended: {self.words()[-2000:]}")
        self._signal(psutil.Process.suspend)
        self._paused_at = time.perf_counter()

    def finish(self) -> None:
        """Goes on to its end. Raises SystemExit with the training's own words if it fails."""
        if self._go_on().wait():
            sys.exit(f"{self._command} failed: {self.words()[-2000:]}")

    def words(self) -> str:
        """All that it has printed."""
        return self._log.read_text(encoding="utf-8")

    def without_pauses(self, seconds: Sequence[float]) -> list[float]:
        """What each of its epochs took by its own clock, less the pause in it. Raises SystemExit if
        a pause was not in its epoch."""
        active = [own - pause for own, pause in zip(seconds, self._pauses, strict=True)]
        if min(active) <= 0:
            sys.exit(
                f"{self._command}: a pause fell between two epochs, as the end of one took longer "
                f"than the {self._settle_s} s it was given: give it more"
            )
        return active

    def kill(self) -> None:
        """Ends it where it is, with all its processes; nothing if it has ended."""
        self._signal(psutil.Process.kill)

    def _go_on(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            with self._log.open("wb") as output:
                self._process = subprocess.Popen(
                    self._command, stdout=output, stderr=subprocess.STDOUT, env=self._environment
                )
            self._pauses.append(0.0)
        else:
            self._pauses.append(time.perf_counter() - self._paused_at)
            self._signal(psutil.Process.resume)
        return self._process

    def _num_told(self) -> int:
        return sum(line.startswith("epoch ") for line in self.words().splitlines())

    def _signal(self, send: Callable[[psutil.Process], None]) -> None:
        if self._process is not None and self._process.poll() is None:
            root = psutil.Process(self._process.pid)
            for process in (*root.children(recursive=True), root):
                with contextlib.suppress(psutil.NoSuchProcess):
                    send(process)


def take_turns(runs: Sequence[Run], num_epochs: int) -> None:
    """Has each run do its epochs, by turns; the first ones, in which they start, one after the
    other as well. All of them have ended then, whatever happens."""
    try:
        for _ in range(num_epochs - 1):
            for run in runs:
                run.epoch()
        for run in runs:
            run.finish()
    finally:
        for run in runs:
            run.kill()

"""Ends a worker that hangs: nobody else would notice one that is stopped, or waits for ever.

A process of its own watches it, as a worker that hangs can't be trusted to watch itself: it may
hold the interpreter's lock, or not run at all (SIGSTOP). Started as a script, without the package,
it is there in 20 ms and takes 10 MB.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import signal
import subprocess
import sys
import time
from types import TracebackType

LEAST_GIVEN_S = 5.0
"""A user's limit is at least so many seconds: signs of life are sent once a second."""
LEAST_S = 300.0
"""Without a limit of the user's: a worker is given this long at least…"""
FACTOR = 20.0
"""… and so many times the longest pause between two signs of life that it has made so far."""
START_S = 1800.0
"""How long it may take until the first step's end: there may be something to compile."""
_INTERVAL_S = 1.0
_GRACE_S = 3.0
_DUMP = signal.SIGUSR2


def check_limit(limit_s: float | None) -> None:
    """Raises ValueError for a limit of a user's that would end workers that are well."""
    if limit_s is not None and limit_s != 0 and not limit_s >= LEAST_GIVEN_S:
        raise ValueError(
            f"--hang-timeout must be 0, for never, or at least {LEAST_GIVEN_S:g}, not {limit_s:g}"
        )


class Watchdog:
    """Watches this process meanwhile: once it has shown no sign of life for too long, the stacks of
    its threads go to its standard error, and it is killed; Ray then takes its work up again.

    Until the second sign of life that is START_S: what comes before the first step's end may take
    longer than any step, such as a compilation.
    """

    def __init__(self, limit_s: float | None) -> None:
        """`limit_s`: seconds without a sign of life; None: see LEAST_S and FACTOR; 0: for ever."""
        self._limit_s = limit_s
        self._longest = 0.0
        self._last: float | None = None
        self._sent = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Watchdog:
        if self._limit_s == 0:
            return self
        faulthandler.register(_DUMP, 2, all_threads=True, chain=False)  # Ray's log of the worker
        command = [sys.executable, "-I", "-S", __file__, str(os.getpid())]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE)
        self._send(max(START_S, self._limit_s or 0.0))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()
        faulthandler.unregister(_DUMP)

    def sign_of_life(self) -> None:
        """To be called often: it takes a microsecond, and a few more once a second."""
        now = time.monotonic()
        if self._last is None:
            self._last = now
            return
        pause, self._last = now - self._last, now
        self._longest = max(self._longest, pause)
        if self._process is None or (now - self._sent < _INTERVAL_S and pause < self._longest):
            return
        self._sent = now
        self._send(self._limit_s or max(LEAST_S, FACTOR * self._longest))

    def _send(self, limit_s: float) -> None:
        """A sign of life, and how long it holds."""
        assert self._process is not None
        assert self._process.stdin is not None
        # A watchdog that is gone is no reason to end.
        with contextlib.suppress(OSError):
            os.write(self._process.stdin.fileno(), f"{limit_s}\n".encode())


def _watch(pid: int) -> None:
    """The watching process: each line that it reads is a sign of life, and the limit from then."""
    limit, last = None, time.monotonic()
    while os.getppid() == pid:
        if select.select([0], [], [], _INTERVAL_S)[0]:
            read = os.read(0, 1 << 16)
            if not read:
                return
            limit, last = float(read.split()[-1]), time.monotonic()
        elif limit is not None and time.monotonic() - last > limit:
            _end(pid, time.monotonic() - last)
            return


def _end(pid: int, seconds: float) -> None:
    message = f"worker {pid} has made no step for {seconds:.0f} s: its stacks follow, it is ended\n"
    with contextlib.suppress(OSError):
        os.write(2, message.encode())
    for number, pause in ((_DUMP, 0.0), (signal.SIGCONT, _GRACE_S), (signal.SIGKILL, 0.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        time.sleep(pause)


if __name__ == "__main__":
    _watch(int(sys.argv[1]))

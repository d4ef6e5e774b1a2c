"""A stopwatch for training steps and for inference: wall time, cut into sections without gaps."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.profiler import record_function

from ssd_dist.model.ssd import SSD

REST = "rest"
"""What lies in no section."""
TOTAL = "total"
"""The whole step."""


class StepClock:
    """The wall time of every step, by section.

    Each moment belongs to the innermost section that is open, or to `rest`, so that the sections of
    a step add up to its `total`. Where one section ends and the next begins, the device is waited
    for: on a GPU this takes time that an unwatched step does not spend.

    `section` and `finish_step` are what :func:`ssd_dist.engine.train_epoch` takes as `section` and
    `on_step`.
    """

    def __init__(self, device: torch.device) -> None:
        self.steps: list[dict[str, float]] = []
        """Of each finished step, milliseconds: section → its time, and `total`."""
        self._device = device
        self._laps: defaultdict[str, float] = defaultdict(float)
        self._current = REST
        self._since = self._step_began = self._now()

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """A section, also a label in a profiler's trace. Sections nest: the inner one's time is not
        the outer one's."""
        outer = self._current
        with record_function(name):
            self.enter(name)
            try:
                yield
            finally:
                self.enter(outer)

    def enter(self, name: str) -> None:
        """From here on time belongs to `name`, until the next call or the end of the section."""
        now = self._now()
        self._laps[self._current] += 1000 * (now - self._since)
        self._current, self._since = name, now

    def finish_step(self, _num_finished: int = 0) -> None:
        """Ends a step; the next one begins at the same moment."""
        now = self._now()
        self._laps[self._current] += 1000 * (now - self._since)
        self.steps.append({**self._laps, TOTAL: 1000 * (now - self._step_began)})
        self._laps.clear()
        self._current = REST
        self._since = self._step_began = now

    def _now(self) -> float:
        synchronise(self._device)
        return time.perf_counter()


def synchronise(device: torch.device) -> None:
    """Waits until the device has done all that it was told; on a CPU it has already."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def forward_sections(model: SSD, clock: StepClock, *, behind: str | None = None) -> Iterator[None]:
    """Meanwhile the clock cuts each forward pass of `model` into `backbone`, `extras` and `heads`.

    They are the segments that complexity.py counts: `extras` begins at the first layer of the
    backbone's `neck` or `extra`. Time before the backbone stays with the section that is open, and
    time after the heads goes to `behind` where that is given.
    """

    def begin_extras(*_: object) -> None:
        if not in_extras:
            in_extras.append(True)
            clock.enter("extras")

    def begin_heads(*_: object) -> None:
        in_extras.clear()
        clock.enter("heads")

    in_extras: list[bool] = []
    backbone = model.backbone
    handles = [
        backbone.register_forward_pre_hook(lambda *_: clock.enter("backbone")),
        backbone.register_forward_hook(begin_heads),
    ]
    for name in ("neck", "extra"):
        layers = getattr(backbone, name, None)
        if isinstance(layers, nn.ModuleList):
            handles += [layer.register_forward_pre_hook(begin_extras) for layer in layers]
    if behind is not None:
        handles.append(model.register_forward_hook(lambda *_: clock.enter(behind)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

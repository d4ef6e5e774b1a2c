"""How far a training is: told by its first worker, shown by the driver.

Ray Train's workers and its controller are other processes, perhaps on other machines; an actor is
the one place that both they and the driver's terminal reach.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ssd_dist.config import Config
from ssd_dist.distributed.event_files import EventFiles, hyperparameters
from ssd_dist.terminal import Terminal

_POLL_INTERVAL_S = 0.5
_RUN = "training"


@ray.remote(num_cpus=0)
class ProgressBoard:
    """The latest step, and the epochs that nobody has fetched yet."""

    def __init__(self) -> None:
        self._step = (0, 1)
        self._epochs: list[dict[str, float]] = []
        self._notes: list[str] = []
        self._started = False
        self._divergence: str | None = None

    def push_step(self, step: int, num_steps: int) -> None:
        """From the worker: `step` of `num_steps` steps are done."""
        self._step = (step, num_steps)

    def push_epoch(self, metrics: dict[str, float]) -> None:
        """From the worker: an epoch is over."""
        self._epochs.append(metrics)

    def push_start(self, num_workers: int, *, resumed: bool) -> None:
        """From the first worker: all have been started; anew, if a machine was lost or has come."""
        if resumed:
            self._notes.append(f"going on from the last checkpoint with {num_workers} worker(s)")
        elif self._started:
            self._notes.append(f"beginning again with {num_workers} worker(s)")
        self._started = True

    def push_divergence(self, reason: str) -> None:
        """From the worker: the training diverged."""
        self._divergence = reason

    def divergence(self) -> str | None:
        """For the driver: why the training diverged; None if it did not."""
        return self._divergence

    def fetch(self) -> tuple[tuple[int, int], list[dict[str, float]], list[str]]:
        """For the driver: the latest step, and the epochs and notes since the last call."""
        epochs, self._epochs = self._epochs, []
        notes, self._notes = self._notes, []
        return self._step, epochs, notes


def start_board() -> Any:
    """A board on the driver's own machine, which the training does not outlive anyway."""
    here = ray.get_runtime_context().get_node_id()
    strategy = NodeAffinitySchedulingStrategy(here, soft=False)
    return ProgressBoard.options(scheduling_strategy=strategy).remote()  # type: ignore[attr-defined]


@contextmanager
def follow_training(
    board: Any, terminal: Terminal, config: Config, events: EventFiles
) -> Iterator[None]:
    """Shows the training's progress meanwhile: a line an epoch, which is entered in the event files
    too, and a bar on a terminal."""
    shown = hyperparameters(config, {})
    stop = threading.Event()

    def show() -> None:
        try:
            (step, num_steps), epochs, notes = ray.get(board.fetch.remote())
        except ray.exceptions.RayError:  # a lost board costs the lines, not the training
            return
        terminal.advance(step, num_steps)
        for metrics in epochs:
            terminal.line(epoch_line(metrics, config.epochs))
            events.epoch(_RUN, metrics, shown)
        for note in notes:
            terminal.line(f"note: {note}")

    def follow() -> None:
        while not stop.wait(_POLL_INTERVAL_S):
            show()

    thread = threading.Thread(target=follow, daemon=True)
    with terminal.bar("training"):
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            show()
            events.end(_RUN)


def epoch_line(metrics: Mapping[str, float], num_epochs: int) -> str:
    """An epoch in one line."""
    return (
        f"epoch {int(metrics['epoch']):>3}/{num_epochs}"
        f"  mAP {metrics['map_11pt']:.4f}"
        f"  loss {metrics['loss']:.3f} (conf {metrics['loss_conf']:.3f}"
        f", loc {metrics['loss_loc']:.3f})  l2 {metrics['l2_term']:.3f}"
        f"  lr {metrics['lr']:.2e}"
        f"  {metrics['images_per_second']:.1f} images/s  {metrics['seconds']:.0f} s"
    )

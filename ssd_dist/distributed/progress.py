"""Shows on the driver's terminal how far a training is, and enters it in the event files."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator, Mapping

from ray.exceptions import RayError

from ssd_dist.config import Config
from ssd_dist.distributed.event_files import EventFiles, hyperparameters
from ssd_dist.distributed.progress_board import ProgressBoard
from ssd_dist.terminal import Terminal

_POLL_INTERVAL_S = 0.5
_RUN = "training"


@contextlib.contextmanager
def follow_training(
    board: ProgressBoard, terminal: Terminal, config: Config, events: EventFiles
) -> Iterator[None]:
    """Shows the training's progress meanwhile: a line an epoch, which is entered in the event files
    too, and a bar on a terminal. Afterwards the board is taken down.

    What can't be shown or entered costs its line, not the training: epochs wait for a disk that
    takes nothing for a while."""
    shown = hyperparameters(config, {})
    to_enter: deque[dict[str, float]] = deque()
    stop = threading.Event()

    def show() -> None:
        with contextlib.suppress(RayError):
            progress = board.fetch()
            to_enter.extend(progress.epochs)
            terminal.advance(progress.step, progress.num_steps)
            for metrics in progress.epochs:
                terminal.line(epoch_line(metrics, config.epochs))
            for note in progress.notes:
                terminal.line(f"note: {note}")
        with contextlib.suppress(OSError):
            while to_enter:
                events.epoch(_RUN, to_enter[0], shown)
                to_enter.popleft()

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
            # What the training ended by is not to be replaced by what its files can't take.
            with contextlib.suppress(OSError):
                show()
            board.clear()
            with contextlib.suppress(OSError):
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

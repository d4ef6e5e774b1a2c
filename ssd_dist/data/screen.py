"""What a command about data sets shows its progress and its findings on."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console


class Screen(Protocol):
    """What such a command asks of `ssd_dist.terminal.Terminal`, which lies above this package."""

    console: Console

    def line(self, text: str) -> None:
        """One line; its markup is text."""
        ...

    def heading(self, text: str) -> None:
        """One line that stands out; its markup is text."""
        ...

    def bar(self, description: str) -> AbstractContextManager[None]:
        """Shows a progress bar meanwhile, if there is a terminal to show it on."""
        ...

    def advance(self, completed: float, total: float) -> None:
        """Moves the bar; nothing where there is none."""
        ...

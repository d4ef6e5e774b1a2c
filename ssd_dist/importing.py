"""Importing much at once."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """For the imports of torch and the like: Python does not look for garbage meanwhile.

    They make a million objects that stay for good. To go through these again and again for what
    could be freed takes a quarter of the time, and is left out later, too.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()

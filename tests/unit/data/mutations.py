"""Files as they come from broken disks and from people who mean harm: bytes changed at random."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

_VALUE = re.compile(rb"[^<>\[\]{}\",:\s/]+")


def mutants(
    originals: Sequence[bytes], tokens: Sequence[bytes], count: int, seed: int
) -> Iterator[bytes]:
    """`count` variations of the originals, the same ones for a seed: each has one to three changes.

    `tokens` are pieces that mean something in the format, put in or in place of something.
    """
    rng = random.Random(seed)
    for _ in range(count):
        data = bytearray(rng.choice(originals))
        for _ in range(rng.choice((1, 1, 2, 3))):
            _change(data, tokens, rng)
        yield bytes(data)


def _change(data: bytearray, tokens: Sequence[bytes], rng: random.Random) -> None:
    start = rng.randrange(len(data) + 1)
    stop = min(len(data), start + rng.choice((1, 2, 5, 20, 100)))
    kind = rng.randrange(10)
    if kind == 0:  # a bit
        if start < len(data):
            data[start] ^= 1 << rng.randrange(8)
    elif kind == 1:  # noise
        data[start:stop] = rng.randbytes(stop - start)
    elif kind == 2:  # a piece is lost
        del data[start:stop]
    elif kind == 3:  # the end is lost
        if rng.random() < 0.3:
            del data[start:]
    elif kind == 4:  # a piece twice, or in another place
        place = rng.randrange(len(data) + 1)
        data[place:place] = data[start:stop]
    else:
        if kind > 6 and (values := list(_VALUE.finditer(data))):  # a value for another
            start, stop = rng.choice(values).span()
        data[start : start if kind == 5 else stop] = rng.choice(tokens)

"""Batches made in this process, some of their pictures before they are asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Generic, TypeVar

Key = TypeVar("Key")
Sample = TypeVar("Sample")
Batch = TypeVar("Batch")


class BatchesAhead(Generic[Key, Sample, Batch]):
    """Batches in the order of their samples' keys, the same whenever they are made; once."""

    def __init__(
        self,
        make: Callable[[Key], Sample],
        collate: Callable[[list[Sample]], Batch],
        keys: Sequence[Sequence[Key]],
        *,
        most: int,
    ) -> None:
        """Nothing is made yet.

        Args:
            make: a sample of its key.
            collate: a batch of its samples.
            keys: of each batch's samples.
            most: so many samples at most are made ahead.
        """
        self._make, self._collate, self._most = make, collate, most
        self._sizes = [len(each) for each in keys]
        self._keys = chain.from_iterable(keys)
        self._made: deque[Sample] = deque()

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[Batch]:
        for size in self._sizes:
            while len(self._made) < size:
                self._made.append(self._make(next(self._keys)))
            yield self._collate([self._made.popleft() for _ in range(size)])

    def make_one(self) -> bool:
        """Makes the next sample, if fewer than `most` wait already; whether it made one."""
        key = next(self._keys, None) if len(self._made) < self._most else None
        if key is None:
            return False
        self._made.append(self._make(key))
        return True

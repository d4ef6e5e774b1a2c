"""Pictures that stand in two splits: what is learned of them in the one counts as found in the
other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from ssd_dist.data.problems import ProblemList, quoted


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture in the list of a split."""

    name: str
    """As the list has it."""
    file: Path
    """The list; or the picture itself, where the split is a folder."""
    line: int | None = None
    place: str | None = None
    """In a JSON file."""


def tell_shared(
    split: str, entries: Mapping[str, Mapping[str, Entry]], problems: ProblemList
) -> None:
    """Tells each picture that is in `split` and in another, once for each two splits and in the
    same words from either side. Splits that others make up, such as VOC's trainval, are as they
    should be.

    `entries`: split → what identifies a picture in all of them → its entry there.
    """
    for pair in combinations(sorted(entries), 2):
        if split not in pair or any(_is_union(name, entries) for name in pair):
            continue
        first, second = entries[pair[0]], entries[pair[1]]
        for key, entry in first.items():
            if key not in second:
                continue
            other = second[key]
            where = f"line {other.line}" if other.line is not None else other.place
            problems.add(
                "shared_id",
                entry.file,
                f"{quoted(entry.name)} is in the splits {pair[0]} and {pair[1]}"
                f"{'' if where is None else f' ({where})'}: what is learned there counts as found "
                "here",
                line=entry.line,
                place=entry.place,
            )


def _is_union(name: str, entries: Mapping[str, Mapping[str, Entry]]) -> bool:
    """Whether a split is what two or more others are together."""
    keys = entries[name].keys()
    parts = [other.keys() for other in entries.values() if other and other.keys() < keys]
    return len(parts) > 1 and set().union(*parts) == keys

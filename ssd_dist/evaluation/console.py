"""The summary of an evaluation as tables for a terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ssd_dist.evaluation.error_kinds import KINDS
from ssd_dist.evaluation.options import PRESETS
from ssd_dist.evaluation.summary import Summary
from ssd_dist.evaluation.voc_ap import Rank

_MOST_CONFUSED_CLASSES = 12
"""Up to so many classes the confusion matrix fits a terminal."""


def print_summary(summary: Summary, preset: str, console: Console) -> None:
    """mAP, and tables of AP, recall levels, COCO's numbers, errors and confusions."""
    voc, interval = summary.voc, summary.map_11pt_interval
    between = f", 95 % interval {interval.low:.4f} to {interval.high:.4f}" if interval else ""
    console.print(f"[bold]11-point mAP {voc.map_11pt:.4f}[/bold]{between}")
    console.print(f"area mAP {voc.map_area:.4f}")
    changed = [
        f"{field.name}={getattr(voc.options, field.name)}"
        for field in dataclasses.fields(voc.options)
        if getattr(voc.options, field.name) != getattr(PRESETS[preset], field.name)
    ]
    console.print(
        f"{summary.num_images} pictures, {sum(voc.num_objects.values())} objects; "
        f"rules: {' '.join([preset, *changed])}\n"
    )
    tables = [_classes(summary), _ranks(voc.ranks)]
    if summary.coco is not None:
        tables.append(_coco(summary.coco))
    tables.append(_errors(summary))
    if len(summary.class_names) <= _MOST_CONFUSED_CLASSES:
        tables.append(_confusions(summary))
    for table in tables:
        console.print(table)
        console.print()


def _classes(summary: Summary) -> Table:
    voc = summary.voc
    table = _table(
        "Average precision, and the score threshold with the best F1",
        ["class", "objects", "AP 11-point", "AP area", "threshold", "precision", "recall", "F1"],
    )
    for name, point in summary.best_f1.items():
        table.add_row(
            escape(name),
            str(voc.num_objects[name]),
            _measure(voc.ap_11pt[name], "no objects"),
            _measure(voc.ap_area[name], ""),
            *(["never right", "", "", ""] if point is None else map(_measure, point)),
        )
    return table


def _ranks(ranks: dict[str, list[Rank]]) -> Table:
    levels = [f"{rank.recall:.1f}" for rank in next(iter(ranks.values()))]
    table = _table(
        "Score threshold at which a recall is reached, and the precision there", ["recall", *levels]
    )
    for name, of_class in ranks.items():
        cells = [
            "never" if rank.confidence is None else f"{rank.confidence:.4f}\n{rank.precision:.4f}"
            for rank in of_class
        ]
        table.add_row(escape(name), *cells)
    return table


def _coco(values: dict[str, float | None]) -> Table:
    table = _table("COCO", list(values), left=0)
    table.add_row(*(_measure(value, "–") for value in values.values()))
    return table


def _errors(summary: Summary) -> Table:
    table = _table("Detections by kind, at the thresholds with the best F1", ["class", *KINDS])
    for label, name in enumerate(summary.class_names, start=1):
        table.add_row(escape(name), *_counts(summary.errors[label].values()))
    table.add_row("all", *_counts(summary.errors[0].values()))
    lost = [_measure(summary.map_lost.get(kind), "") for kind in KINDS]
    table.add_row("mAP lost, at any score", *lost)
    return table


def _confusions(summary: Summary) -> Table:
    names = ["background", *summary.class_names]
    table = _table(
        "Confusions at these thresholds: objects in rows, as what they were detected in columns",
        ["", *map(escape, names)],
    )
    for name, row in zip(names, summary.confusion.tolist(), strict=True):
        table.add_row(escape(name), *_counts(row))
    return table


def _table(title: str, columns: Sequence[str], *, left: int = 1) -> Table:
    """So many columns are set to the left; the others hold numbers, set to the right."""
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < left else "right", no_wrap=True)
    return table


def _measure(value: float | None, otherwise: str = "") -> str:
    return otherwise if value is None else f"{value:.4f}"


def _counts(values: Iterable[int]) -> list[str]:
    return [str(value) for value in values]

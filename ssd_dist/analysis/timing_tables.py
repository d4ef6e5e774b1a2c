"""The timing as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.markup import escape
from rich.table import Table

from ssd_dist.analysis.clock import TOTAL
from ssd_dist.analysis.device_table import DeviceTable
from ssd_dist.analysis.kinds import share_beside_convolution
from ssd_dist.analysis.timing import Percentiles
from ssd_dist.analysis.timing_report import TimingReport

_MIN_WIDTH = 76
"""For the captions' sake."""


def tables(report: TimingReport) -> list[Table]:
    """Training step, inference, kinds of operation, and, where they were timed, the devices; what
    there is to say of each stands below it."""
    pictures = f"{report.batch_size} pictures, {report.precision}, {_where(report)}"
    shown = [
        _segments(
            f"Training step: {pictures}",
            report.train_step_ms,
            f"{report.num_steps} steps after {report.num_warmup} to warm up. "
            f"{report.noise.sentence}",
        ),
        _segments(
            f"Inference: 1 picture, {report.precision}, {_where(report)}",
            report.inference_ms,
            f"{report.num_inferences} pictures, in memory at the network's size.",
        ),
        _kinds(report),
    ]
    if report.devices is not None:
        shown.append(_devices(report.devices))
    return shown


def _segments(title: str, segments: Mapping[str, Percentiles], caption: str) -> Table:
    table = _table(title, caption, "segment", "median ms", "p10", "p90", "share")
    for name, values in segments.items():
        share = 100 * values.median / segments[TOTAL].median
        cells = [f"{value:.2f}" for value in (values.median, values.p10, values.p90)]
        table.add_row(name, *cells, f"{share:.1f} %", style="bold" if name == TOTAL else "")
    return table


def _kinds(report: TimingReport) -> Table:
    profiler, memory = report.profiler, report.memory
    caption = (
        f"{share_beside_convolution(report.by_kind_percent)['sentence']} The step takes "
        f"{profiler.without_ms:.1f} ms without the profiler and {profiler.with_ms:.1f} ms with it "
        f"({profiler.overhead_percent:+.1f} %). Peak memory of the training: "
        f"{_mebibytes(memory.measured_bytes)} measured ({memory.how}), "
        f"{_mebibytes(memory.predicted_bytes)} predicted."
    )
    table = _table("Training step by kind of operation", caption, "kind", "share")
    for kind, percent in report.by_kind_percent.items():
        table.add_row(kind.replace("_", " "), f"{percent:.1f} %")
    return table


def _devices(devices: DeviceTable) -> Table:
    title = f"The same training step on every device: {devices.batch_size} pictures"
    table = _table(
        title,
        devices.sentence(),
        "device",
        "precision",
        "step ms",
        "p10",
        "p90",
        "of it exchange",
        "pictures/s",
        "speed-up",
    )
    for row in devices.rows:
        if row.step_ms is None or row.images_per_second is None:
            table.add_row(escape(row.device), row.precision, escape(row.note))
            continue
        table.add_row(
            escape(row.device),
            row.precision,
            f"{row.step_ms.median:.1f}",
            f"{row.step_ms.p10:.1f}",
            f"{row.step_ms.p90:.1f}",
            "" if row.communication_ms is None else f"{row.communication_ms:.1f}",
            f"{row.images_per_second:.2f}",
            "" if row.speed_up is None else f"{row.speed_up:.2f}",
        )
    return table


def _table(title: str, caption: str, first: str, *others: str) -> Table:
    table = Table(
        title=escape(title),
        title_justify="left",
        caption=escape(caption),
        caption_justify="left",
        min_width=_MIN_WIDTH,
    )
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _where(report: TimingReport) -> str:
    if report.device != "cpu":
        return report.device
    return f"CPU with {report.num_threads} thread{'s' if report.num_threads > 1 else ''}"


def _mebibytes(num_bytes: int | None) -> str:
    return "not" if num_bytes is None else f"{num_bytes / 2**20:.0f} MiB"

"""What a training step takes on each device, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ssd_dist.analysis.timing import Percentiles

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
NOT_HERE = "not here"
THESIS = {"gpu": "GTX 1070", "cpu": "five-core CPU", "gpu_over_cpu": 10.0}
"""What the thesis that this project follows saw: training on the GPU went ten times faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow:
    """The training step on one device in one precision; what was not measured is None."""

    device: str
    """`1 CPU thread`, `2 CPU processes`, `GPU 0: NVIDIA …`, or `GPU` where there is none."""
    kind: Literal["threads", "processes", "gpu"]
    count: int
    """Threads, processes (of one thread each), or GPUs."""
    precision: Precision
    step_ms: Percentiles | None = None
    num_steps: int = 0
    images_per_second: float | None = None
    """From the median."""
    speed_up: float | None = None
    """Against one CPU thread in fp32, where that was measured."""
    communication_ms: float | None = None
    """Of processes: how much longer the median step takes than without exchanging gradients. What
    overlaps with the backward pass is not in it; 0 where no difference was seen."""
    note: str = ""
    """Why nothing was measured: `not here`, or what stood against it."""


@dataclass(frozen=True, slots=True)
class DeviceTable:
    """All devices, one batch size."""

    batch_size: int
    """Pictures a step, over all processes; may be smaller than the training's, to save time."""
    rows: tuple[DeviceRow, ...]

    def gpu_over_cpu(self) -> float | None:
        """How much faster the fastest GPU trains than the CPU in its fastest way (each in any
        precision); None where one of them was not measured."""
        gpu, cpu = self._fastest(on_gpu=True), self._fastest(on_gpu=False)
        return None if gpu is None or cpu is None else gpu / cpu

    def _fastest(self, *, on_gpu: bool) -> float | None:
        """Pictures a second."""
        rates = [
            row.images_per_second
            for row in self.rows
            if row.images_per_second is not None and (row.kind == "gpu") == on_gpu
        ]
        return max(rates, default=None)

    def sentence(self) -> str:
        """The thesis's observation beside ours."""
        thesis = (
            f"The thesis that this project follows trained {THESIS['gpu_over_cpu']:g} times faster "
            f"on a {THESIS['gpu']} than on a {THESIS['cpu']}"
        )
        ratio = self.gpu_over_cpu()
        if ratio is not None:
            return f"{thesis}; here the GPU is {ratio:.1f} times as fast as the CPU at its fastest."
        if any(row.note == NOT_HERE for row in self.rows):
            return f"{thesis}; there is no GPU here to compare the CPU with."
        return f"{thesis}; here the two were not both measured."

    def to_json(self) -> dict[str, Any]:
        """Plain mappings; `thesis` beside the `rows`."""
        return {
            "batch_size": self.batch_size,
            "rows": [asdict(row) for row in self.rows],
            "gpu_over_cpu": self.gpu_over_cpu(),
            "thesis": dict(THESIS),
            "sentence": self.sentence(),
        }


def with_speed_ups(rows: Sequence[DeviceRow]) -> tuple[DeviceRow, ...]:
    """The rows with `speed_up` against the row of one thread in fp32, if that was measured."""
    base = next(
        (
            row.images_per_second
            for row in rows
            if (row.kind, row.count, row.precision) == ("threads", 1, "fp32")
        ),
        None,
    )
    return tuple(
        row
        if base is None or row.images_per_second is None
        else replace(row, speed_up=row.images_per_second / base)
        for row in rows
    )

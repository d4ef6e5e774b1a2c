"""What the detector costs by the clock: training step, inference, kinds of operation, devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssd_dist.report.content import ReportContent
from ssd_dist.report.sections.answer import device

_TOTAL = "total"
# The parts of the network share a colour here and below; what belongs together lies side by side.
_LOOKS = {
    "data": "series-6",
    "matching": "series-5",
    "preprocessing": "series-0 tint-2",
    "backbone": "series-0",
    "extras": "series-0 tint-1",
    "heads": "series-0 tint-2",
    "loss": "series-3",
    "communication": "series-4",
    "backward": "series-1",
    "optimizer": "series-2",
    "rest": "series-6 tint-2",
    "postprocessing": "series-3",
}
_NAMES = {"extras": "extra layers", "postprocessing": "decoding and NMS"}
_KIND_NAMES = {"batch_norm": "batch normalisation"}


def timing(content: ReportContent) -> dict[str, Any]:
    """What the section shows; `step` is None where only inference was timed."""
    measured = content.timing
    ms = measured["inference_ms_per_image"]
    return {
        "measured": measured,
        "device": device(content),
        "ms": ms,
        "per_second": 1000 / ms["median"],
        "macs_per_second": content.macs_of_a_picture / (ms["median"] / 1000),
        "inference": _segments(measured.get("inference_segments_ms")),
        "step": _segments(measured.get("train_step_ms")),
        "kinds": _kinds(measured.get("by_kind_percent"), measured.get("share_beside_convolution")),
        "thesis": _thesis(measured.get("share_beside_convolution")),
        "devices": measured.get("devices"),
        "memory": measured.get("peak_memory"),
        "profiler": measured.get("profiler"),
        "trace": measured.get("trace"),
        "left_out": measured.get("left_out"),
    }


def _segments(segments: Mapping[str, Mapping[str, float]] | None) -> dict[str, Any] | None:
    """The segments that took any time, with their share of the whole, and the whole."""
    if segments is None:
        return None
    total = segments[_TOTAL]["median"]
    return {
        "rows": [
            {
                "name": _NAMES.get(name, name),
                "look": _LOOKS.get(name, "series-6"),
                "share": values["median"] / total,
                **values,
            }
            for name, values in segments.items()
            if name != _TOTAL and values["p90"] > 0
        ],
        "total": segments[_TOTAL],
    }


def _kinds(
    percent: Mapping[str, float] | None, beside: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    if not percent or beside is None:
        return []
    most = max(percent.values())
    return [
        {
            "name": _KIND_NAMES.get(kind, kind.replace("_", " ")),
            "percent": value,
            "width": value / most,
            "is_beside": kind in beside["kinds"],
        }
        for kind, value in percent.items()
        if value > 0
    ]


def _thesis(beside: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Our share on a ruler with the thesis's range, both 0 to 1 of its length."""
    if beside is None:
        return None
    low, high = beside["thesis_percent"]
    end = max(2 * high, 1.25 * beside["percent"])
    return {
        **beside,
        "low": low,
        "high": high,
        "end": end,
        "from": low / end,
        "to": high / end,
        "at": beside["percent"] / end,
    }

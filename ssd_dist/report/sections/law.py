"""Whether running time follows weights, operations or bytes, and how training scales."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssd_dist.report.content import ReportContent
from ssd_dist.report.law_plots import law_plots

_PREDICTORS = {
    "weights": ("weights", 1e6, "million"),
    "macs": ("multiply-accumulates", 1e9, "billion"),
    "bytes": ("bytes moved", 1e6, "MB"),
}


def law(content: ReportContent) -> dict[str, Any] | None:
    """What the section shows; None where the law was not measured."""
    if content.law is None:
        return None
    details = content.law["law_details"]
    plots = law_plots(content.law)
    return {
        "sentence": details["sentence"],
        "num_points": len(details["points"]),
        "plots": plots[: len(_PREDICTORS)],
        "scaling_plots": plots[len(_PREDICTORS) :],
        "fits": [
            *_fits("training", content.law["law"]),
            *_fits("inference", details["inference"]),
        ],
        "both": details["macs_and_bytes"],
        "spread": details["spread"],
        "correlation": [
            (key.replace("_", " and "), value) for key, value in details["correlation"].items()
        ],
        "points": details["points"],
        "scaling": details["scaling"],
    }


def _fits(phase: str, fits: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for key, (name, unit, unit_name) in _PREDICTORS.items():
        low, high = fits[key]["exponent_interval"]
        rows.append(
            {
                **fits[key],
                "phase": phase,
                "name": name,
                "slope": fits[key]["slope"] * unit,
                "unit": unit_name,
                "low": low,
                "high": high,
            }
        )
    return rows

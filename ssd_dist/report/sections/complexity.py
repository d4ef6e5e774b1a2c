"""What the detector costs by count: layers, parts, training step, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ssd_dist.report.content import ReportContent

_SEGMENT_NAMES = {"extras": "extra layers", "postprocessing": "post-processing"}
_KIND_SERIES = {"convolution": 0, "linear": 0, "batch norm": 1, "activation": 2}
_OTHER_SERIES = 6
_STRIPS = (
    ("macs", "Multiply-accumulates"),
    ("params", "Parameters"),
    ("bytes", "Bytes moved"),
)
_NUM_HEAVIEST = 8
_STEP_PARTS = {
    "forward": "forward pass",
    "loss": "loss",
    "backward": "backward pass",
    "update": "optimizer",
    "step": "training step",
}
_MEMORY_PARTS = {
    "activations": ("activations kept for the backward pass", 0),
    "weights": ("weights and buffers", 1),
    "optimizer_state": ("optimizer state", 2),
    "gradients": ("gradients", 3),
    "average": ("moving average of the weights", 4),
    "batch": ("the batch", 6),
}


def complexity(content: ReportContent) -> dict[str, Any]:
    """What the section shows."""
    counted = content.complexity
    layers = [
        {
            **layer,
            "bytes": layer["bytes_read"] + layer["bytes_written"],
            "series": _KIND_SERIES.get(layer["kind"], _OTHER_SERIES),
        }
        for layer in counted["layers"]
    ]
    with_macs = sorted((layer for layer in layers if layer["macs"]), key=lambda x: -x["macs"])
    return {
        "counted": counted,
        "layers": layers,
        "num_with_macs": len(with_macs),
        "heaviest": with_macs[:_NUM_HEAVIEST],
        "num_for_half": _num_for_half(with_macs, counted["total_macs"]),
        "strips": [_strip(layers, key, title) for key, title in _STRIPS],
        "kinds": sorted(
            {_shown_kind(layer): layer["series"] for layer in layers}.items(),
            key=lambda item: item[1],
        ),
        "segments": _segments(counted),
        "postprocessing": counted["postprocessing"],
        "training": counted["training"],
        "step_parts": [
            {"name": name, **_with_bytes(counted["training"][key])}
            for key, name in _STEP_PARTS.items()
        ],
        "memory": _memory(counted["training"]["memory"]),
    }


def _shown_kind(layer: Mapping[str, Any]) -> str:
    return layer["kind"] if layer["series"] != _OTHER_SERIES else "other"


def _num_for_half(heaviest_first: Sequence[Mapping[str, Any]], total_macs: int) -> int:
    """How many of the heaviest layers make half of all multiply-accumulates."""
    so_far = 0
    for count, layer in enumerate(heaviest_first, start=1):
        so_far += layer["macs"]
        if 2 * so_far >= total_macs:
            return count
    return len(heaviest_first)


def _strip(layers: Sequence[Mapping[str, Any]], key: str, title: str) -> dict[str, Any]:
    """A bar a layer, in the order of the forward pass, 0 to 1 high."""
    most = max((layer[key] for layer in layers), default=0) or 1
    return {
        "title": title,
        "most": most,
        "bars": [
            {
                "at": at,
                "height": layer[key] / most,
                "series": layer["series"],
                "name": layer["name"],
                "value": layer[key],
            }
            for at, layer in enumerate(layers)
            if layer[key]
        ],
        "num_layers": len(layers),
    }


def _segments(counted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The model's parts in the order in which they run, with their shares."""
    parts = {name: _with_bytes(part) for name, part in counted["segments"].items()}
    sums = {key: sum(part[key] for part in parts.values()) for key in ("macs", "params", "bytes")}
    return [
        {
            "name": _SEGMENT_NAMES.get(name, name),
            **part,
            "shares": {key: part[key] / (sums[key] or 1) for key in sums},
        }
        for name, part in parts.items()
    ]


def _with_bytes(cost: Mapping[str, Any]) -> dict[str, Any]:
    return {**cost, "bytes": cost["bytes_read"] + cost["bytes_written"]}


def _memory(memory: Mapping[str, int]) -> dict[str, Any]:
    return {
        "parts": [
            {"name": name, "bytes": memory[key], "series": series}
            for key, (name, series) in _MEMORY_PARTS.items()
            if memory[key]
        ],
        "total": memory["total"],
        "peak": memory["peak"],
    }

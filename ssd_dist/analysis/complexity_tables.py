"""The count as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.markup import escape
from rich.table import Table

from ssd_dist.analysis.complexity import MEMORY_FORMULA, OPERATIONS_FORMULA, Complexity, Segment
from ssd_dist.analysis.layers import Cost, Layer, Pair, total

_COSTS = ("MACs (M)", "other ops (M)", "MB read", "MB written", "ops/byte")


def tables(complexity: Complexity) -> list[Table]:
    """The layers of Eq. 3, the kinds of operation, the parts from picture to detections, and the
    training step with its memory; what they come to stands below them."""
    return [
        _layers(complexity),
        _kinds(complexity),
        _segments(complexity),
        _training(complexity),
        _memory(complexity),
    ]


def summary(complexity: Complexity) -> list[str]:
    """Formula and figures, two lines."""
    macs, params = complexity.total_macs, complexity.total_params
    return [
        f"{OPERATIONS_FORMULA} = {macs:,} multiply-accumulates a picture "
        f"({macs / 1e9:.3f} billion, {2 * macs / 1e9:.3f} GFLOPs)",
        f"{MEMORY_FORMULA} = {params:,} parameters ({4 * params / 1e6:.1f} MB in fp32)",
    ]


def _layers(complexity: Complexity) -> Table:
    grid = _grid(
        f"Layers of Eq. 3, for one picture of {complexity.image_size} x {complexity.image_size}",
        ("layer",),
        (
            "in",
            "out",
            "filter",
            "stride",
            "dilation",
            "groups",
            "output",
            "weights",
            "MACs (M)",
            "backward",
            "MB moved",
            "ops/byte",
        ),
        "in and out are n_{l-1} and n_l, filter is f, output is m_l; backward: so many times the "
        "MACs for the gradients of input and weights; MB are 10⁶ bytes.",
    )
    for layer in complexity.layers:
        if not layer.macs:
            continue
        grid.add_row(
            escape(layer.name),
            str(layer.in_channels),
            str(layer.out_channels),
            *map(_pair, (layer.kernel, layer.stride, layer.dilation)),
            str(layer.groups),
            _pair(layer.output_hw),
            f"{layer.params:,}",
            _millions(layer.macs),
            str((layer.input_gradient_macs + layer.weight_gradient_macs) // layer.macs),
            _millions(layer.bytes_read + layer.bytes_written),
            f"{layer.intensity:.1f}",
        )
    return grid


def _kinds(complexity: Complexity) -> Table:
    grid = _grid(
        "All operations by kind, for one picture",
        ("kind",),
        ("number", "weights", "activations", *_COSTS),
    )
    by_kind = sorted(complexity.layers, key=lambda layer: layer.kind)
    groups = [list(layers) for _, layers in groupby(by_kind, lambda layer: layer.kind)]
    for layers in sorted(groups, key=lambda layers: -total(layers).bytes_moved):
        grid.add_row(layers[0].kind.replace("_", " "), *_sums(layers), *_costs(total(layers)))
    grid.add_section()
    grid.add_row("forward pass", *_sums(complexity.layers), *_costs(total(complexity.layers)))
    return grid


def _segments(complexity: Complexity) -> Table:
    postprocessing = complexity.postprocessing
    grid = _grid(
        "From a picture to its detections",
        ("part",),
        ("weights", "activations", "share of MACs", *_COSTS),
        f"Postprocessing of {postprocessing.num_priors:,} priors: at most "
        f"{postprocessing.max_ious:,} IoUs in non-maximum suppression of "
        f"{postprocessing.num_candidates:,} candidates.",
    )
    whole = Segment(
        complexity.total_params,
        sum(segment.activations for segment in complexity.segments.values()),
        complexity.cost,
    )
    for name, segment in [*complexity.segments.items(), ("all", whole)]:
        grid.add_row(
            name,
            f"{segment.params:,}",
            f"{segment.activations:,}",
            f"{100 * segment.macs / (complexity.total_macs or 1):.1f} %",
            *_costs(segment.cost),
            style="bold" if segment is whole else "",
        )
    return grid


def _training(complexity: Complexity) -> Table:
    training = complexity.training
    grid = _grid(
        f"A training step of {training.batch_size} pictures with {training.optimizer}",
        ("part",),
        _COSTS,
        "In MACs, gradients of inputs take "
        f"{_ratio(training.input_gradient_macs, training.forward.macs)} times the forward pass, "
        f"and gradients of weights "
        f"{_ratio(training.weight_gradient_macs, training.forward.macs)} times.",
    )
    for name in ("forward", "loss", "backward", "update"):
        grid.add_row(name, *_costs(getattr(training, name)))
    grid.add_row("step", *_costs(training.step), style="bold")
    return grid


def _memory(complexity: Complexity) -> Table:
    training = complexity.training
    memory = training.memory
    grid = _grid(
        f"Memory of that step of {training.batch_size} pictures",
        ("what",),
        ("MB",),
        "Activations are what autograd keeps for the backward pass. Peak: the most that is alive "
        "at one time, as gradients come while activations go; scratch space inside a kernel comes "
        "on top.",
    )
    for name in ("weights", "gradients", "optimizer_state", "average", "activations", "batch"):
        grid.add_row(name.replace("_", " "), _millions(getattr(memory, name)))
    grid.add_row("sum", _millions(memory.total), style="bold")
    grid.add_row("peak", _millions(memory.peak), style="bold")
    return grid


def _grid(title: str, texts: Sequence[str], numbers: Sequence[str], caption: str = "") -> Table:
    grid = Table(title=title, title_justify="left", caption=caption or None, caption_justify="left")
    for column in texts:
        grid.add_column(column, overflow="fold")
    for column in numbers:
        grid.add_column(column, justify="right")
    return grid


def _sums(layers: Sequence[Layer]) -> Iterable[str]:
    yield f"{len(layers)}"
    yield f"{sum(layer.params for layer in layers):,}"
    yield f"{sum(layer.activations for layer in layers):,}"


def _costs(cost: Cost) -> Iterable[str]:
    for number in (cost.macs, cost.other_ops, cost.bytes_read, cost.bytes_written):
        yield _millions(number)
    yield f"{cost.intensity:.2f}"


def _millions(number: int) -> str:
    return f"{number / 1e6:,.3f}"


def _ratio(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "0"


def _pair(pair: Pair) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"

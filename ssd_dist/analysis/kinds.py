"""Where a training step's time goes by kind of operation, from what torch.profiler saw."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent

_SECTION_KINDS = {
    "data": "data",
    "matching": "matching",
    "loss": "softmax_and_regression",
    "communication": "communication",
    "optimizer": "optimizer",
}
"""Sections of the training step (engine.SECTIONS) that are of one kind, whatever runs in them."""

_OPERATIONS = {
    "convolution": (
        "conv1d conv2d conv3d conv_transpose2d convolution mkldnn_convolution cudnn_convolution "
        "winograd_convolution"
    ),
    "convolution_and_norm": "convolution_chain",
    "matrix_product": "linear mkldnn_linear addmm mm bmm baddbmm scaled_dot_product_attention",
    "batch_norm": (
        "batch_norm native_batch_norm cudnn_batch_norm miopen_batch_norm batch_norm_stats "
        "batch_norm_elemt batch_norm_gather_stats_with_counts sync_batch_norm norm_activation"
    ),
    "activation": (
        "relu relu6 leaky_relu elu celu selu gelu silu mish sigmoid hardsigmoid hardswish hardtanh "
        "tanh threshold prelu softplus"
    ),
    "pooling": "max_pool2d max_pool2d_with_indices avg_pool2d adaptive_avg_pool2d mean",
    "dropout": "dropout native_dropout feature_dropout alpha_dropout bernoulli",
    # Beside the section `loss`: the backward pass of what runs there.
    "softmax_and_regression": (
        "softmax log_softmax logsumexp nll_loss cross_entropy_loss smooth_l1_loss gather sort where"
    ),
    "communication": "allreduce broadcast allgather all_reduce record_param_comms",
}
"""Kind → operations, as ATen names them without `_backward` and trailing underscores."""

KINDS = tuple(dict.fromkeys([*_OPERATIONS, *_SECTION_KINDS.values(), "rest"]))
"""Every kind. `convolution_and_norm`: convolutions with the batch norms, activations and gates that
are computed along with them (model/cpu). `rest`: sums and products of maps, copies, the profiler's
and Python's own time, and whatever operation is not known here."""

BESIDE_CONVOLUTION = ("batch_norm", "dropout", "softmax_and_regression")
"""What the thesis named together: batch normalisation, dropout, regression, classification."""
THESIS_PERCENT = (5.0, 10.0)
"""Their share of the training time in the thesis that this project follows."""


def percent_by_kind(events: Iterable[FunctionEvent], *, on_gpu: bool) -> dict[str, float]:
    """Every kind → its percentage of the time of all events, largest first.

    Args:
        events: of a profiler, `profile.events()`.
        on_gpu: count the time of the kernels that each operation launched, not its own on the CPU.
    """
    spent = dict.fromkeys(KINDS, 0.0)
    for event in events:
        # A GPU's kernels come as events of their own too; their time is their operations' already.
        if event.device_type == DeviceType.CPU:
            own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            spent[kind_of(enclosing_names(event))] += own
    total = sum(spent.values())
    largest_first = sorted(spent.items(), key=lambda item: -item[1])
    return {kind: 100 * time / total for kind, time in largest_first}


def kind_of(names: Sequence[str]) -> str:
    """The kind of an operation that runs within others; `names` from the outermost to its own.

    The outermost known name decides: what a convolution does inside, copies and products, is
    convolution, and all that runs in the section `optimizer` is the optimizer's.
    """
    for name in names:
        kind = _SECTION_KINDS.get(name) or _OPERATION_KINDS.get(operation(name))
        if kind is not None:
            return kind
    return "rest"


def enclosing_names(event: FunctionEvent) -> list[str]:
    """The names of all that an event runs in, outermost first, and its own last."""
    names = []
    enclosing: FunctionEvent | None = event
    while enclosing is not None:
        names.append(enclosing.name)
        enclosing = enclosing.cpu_parent
    return names[::-1]


@cache
def operation(name: str) -> str:
    """What the profiler's names of an operation have in common, forward and backward: lower case
    without underscores. `aten::relu_`, `aten::relu` and
    `autograd::engine::evaluate_function: ReluBackward0` all are `relu`."""
    last = name.removeprefix("autograd::engine::evaluate_function: ").rpartition(":")[2]
    forward = re.sub(r"(_b|B)ackward(_data|_input|_weight|_reduce|_elemt)?\d*$", "", last)
    return forward.replace("_", "").lower()


def share_beside_convolution(percent: Mapping[str, float]) -> dict[str, object]:
    """The share that the thesis saw at 5 to 10 % beside ours: `percent`, `thesis_percent`, `kinds`
    and a `sentence`."""
    ours = sum(percent.get(kind, 0.0) for kind in BESIDE_CONVOLUTION)
    low, high = THESIS_PERCENT
    place = "below" if ours < low else "above" if ours > high else "within"
    parts = ", ".join(
        f"{_words(kind)} {percent.get(kind, 0.0):.1f} %" for kind in BESIDE_CONVOLUTION
    )
    within = percent.get("convolution_and_norm", 0.0)
    at_once = f"; {within:.1f} % more go to convolutions, norms and activations computed at once"
    return {
        "percent": ours,
        "thesis_percent": [low, high],
        "kinds": list(BESIDE_CONVOLUTION),
        "sentence": (
            "The thesis that this project follows saw batch normalisation, dropout, regression and "
            f"classification take {low:g} to {high:g} % of the training time; here they take "
            f"{ours:.1f} %, {place} that range ({parts}{at_once if within else ''})."
        ),
    }


def _words(kind: str) -> str:
    return kind.replace("batch_norm", "batch normalisation").replace("_", " ")


_OPERATION_KINDS = {
    operation(name): kind for kind, names in _OPERATIONS.items() for name in names.split()
}

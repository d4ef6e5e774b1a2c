"""Kinds of operation, on names as the profiler gives them."""

from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from ssd_dist.analysis.kinds import (
    KINDS,
    enclosing_names,
    kind_of,
    operation,
    percent_by_kind,
    share_beside_convolution,
)
from ssd_dist.engine import SECTIONS

NODE = "autograd::engine::evaluate_function: "


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("aten::relu_", "relu"),
        (NODE + "ReluBackward0", "relu"),
        ("aten::native_batch_norm_backward", "nativebatchnorm"),
        ("NativeBatchNormBackward0", "nativebatchnorm"),
        ("aten::max_pool2d_with_indices_backward", "maxpool2dwithindices"),
        (NODE + "MaxPool2DWithIndicesBackward0", "maxpool2dwithindices"),
        ("aten::_softmax_backward_data", "softmax"),
        ("aten::batch_norm_backward_elemt", "batchnorm"),
        ("c10d::allreduce_", "allreduce"),
    ],
)
def test_one_name_for_an_operations_forward_and_backward(name, expected):
    assert operation(name) == expected


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        # As they occur in the shipped models on a CPU, outermost first.
        ("convolution", ["forward", "aten::conv2d"]),
        ("convolution", ["forward", "aten::conv2d", "aten::convolution", "aten::copy_"]),
        ("convolution", ["forward", "aten::conv2d", "aten::mkldnn_convolution"]),
        ("convolution", ["backward", NODE + "ConvolutionBackward0", "aten::sum"]),
        ("convolution_and_norm", ["forward", "ConvolutionChain", "aten::empty"]),
        ("convolution_and_norm", ["backward", NODE + "ConvolutionChainBackward"]),
        ("batch_norm", ["forward", "NormActivation"]),
        ("batch_norm", ["forward", "aten::batch_norm", "aten::native_batch_norm"]),
        ("batch_norm", ["backward", NODE + "NativeBatchNormBackward0", "aten::empty"]),
        ("activation", ["forward", "aten::relu_", "aten::clamp_min_"]),
        ("activation", ["backward", NODE + "ReluBackward0", "aten::threshold_backward"]),
        ("activation", ["forward", "aten::hardtanh_"]),
        ("activation", ["backward", NODE + "HardtanhBackward0"]),
        ("activation", ["forward", "aten::silu"]),
        ("activation", ["backward", NODE + "SiluBackward0", "aten::silu_backward"]),
        ("activation", ["forward", "aten::hardswish"]),
        ("activation", ["backward", NODE + "HardswishBackward0"]),
        ("activation", ["forward", "aten::hardsigmoid"]),
        ("pooling", ["forward", "aten::max_pool2d", "aten::max_pool2d_with_indices"]),
        ("pooling", ["forward", "aten::adaptive_avg_pool2d", "aten::mean"]),
        ("pooling", ["backward", NODE + "MeanBackward1", "MeanBackward1", "aten::div"]),
        ("dropout", ["forward", "aten::dropout", "aten::native_dropout", "aten::mul"]),
        ("dropout", ["backward", NODE + "NativeDropoutBackward0"]),
        ("softmax_and_regression", ["loss", "aten::logsumexp", "aten::max"]),
        ("softmax_and_regression", ["loss", "aten::mul"]),
        ("softmax_and_regression", ["backward", NODE + "LogsumexpBackward0", "aten::exp"]),
        ("softmax_and_regression", ["backward", NODE + "SmoothL1LossBackward0"]),
        ("softmax_and_regression", ["backward", NODE + "GatherBackward0", "aten::scatter_add_"]),
        ("softmax_and_regression", ["forward", "aten::log_softmax", "aten::_log_softmax"]),
        ("matching", ["matching", "aten::topk"]),
        ("data", ["data", "enumerate(DataLoader)#__next__", "aten::mul"]),
        ("optimizer", ["optimizer", "Optimizer.step#SGD.step", "aten::_fused_sgd_"]),
        ("optimizer", ["optimizer", "aten::_foreach_norm", "aten::linalg_vector_norm"]),
        ("communication", ["loss", "communication", "c10d::allreduce_"][1:]),
        # And on a GPU, whose backward pass has a thread of its own.
        ("convolution", ["forward", "aten::conv2d", "aten::cudnn_convolution"]),
        ("convolution", [NODE + "ConvolutionBackward0", "cudaLaunchKernel"]),
        ("batch_norm", ["aten::cudnn_batch_norm"]),
        ("batch_norm", [NODE + "CudnnBatchNormBackward0"]),
        ("batch_norm", ["aten::batch_norm_elemt"]),
        ("communication", ["backward", "record_param_comms", "nccl:all_reduce"]),
        # What belongs to no kind.
        ("rest", ["forward"]),
        ("rest", ["forward", "aten::mul"]),
        ("rest", ["forward", "aten::cat"]),
        ("rest", ["backward", NODE + "torch::autograd::AccumulateGrad", "aten::detach"]),
        ("rest", ["forward", "aten::an_operation_of_tomorrow"]),
    ],
)
def test_kinds(kind, names):
    assert kind_of(names) == kind
    assert kind in KINDS


def test_every_section_has_its_kind_or_holds_operations_of_many():
    kinds = {name: kind_of([name]) for name in SECTIONS}
    assert kinds.pop("forward") == kinds.pop("backward") == "rest"
    assert "rest" not in kinds.values()


def test_no_layer_of_a_shipped_model_is_unknown(shipped_model):
    model = shipped_model.train()
    images = torch.empty(2, 3, model.image_size, model.image_size, device="meta")
    with profile(activities=[ProfilerActivity.CPU]) as profiler, record_function("forward"):
        loc, conf = model(images)
        (conf.logsumexp(-1).sum() + loc.sum()).backward()
    rest = set()
    for seen in profiler.events():
        names = enclosing_names(seen)
        if len(names) > 1 and kind_of(names) == "rest":
            rest.add(operation(names[1]))
    assert rest <= {
        *("add", "addcmul", "mul", "div", "expand", "expandas", "sum", "cat"),  # sums, scales
        *("linalgvectornorm", "clampmin"),  # VGG's L2 normalisation
        *("to", "tocopy", "contiguous", "permute", "reshape", "view", "unsafeview", "clone"),
        *("emptylike", "oneslike", "zeros", "fill", "asstrided", "slice", "pad", "constantpadnd"),
        "accumulategrad",
    }


def event(name, parent, own, kernels=0.0, device=DeviceType.CPU):
    return SimpleNamespace(
        name=name,
        cpu_parent=parent,
        self_cpu_time_total=own,
        self_device_time_total=kernels,
        device_type=device,
    )


def test_percentages_by_hand():
    forward = event("forward", None, 5.0)
    convolution = event("aten::conv2d", forward, 10.0, kernels=90.0)
    events = [
        forward,
        convolution,
        event("aten::copy_", convolution, 40.0, kernels=0.0),
        event("aten::relu", forward, 25.0, kernels=10.0),
        event("data", None, 20.0),
        event("sgemm_kernel", None, 0.0, kernels=90.0, device=DeviceType.CUDA),
    ]
    percent = percent_by_kind(events, on_gpu=False)
    assert list(percent)[:4] == ["convolution", "activation", "data", "rest"]
    assert [percent.pop(kind) for kind in list(percent)[:4]] == [50.0, 25.0, 20.0, 5.0]
    assert set(percent) == set(KINDS) - {"convolution", "activation", "data", "rest"}
    assert not any(percent.values())
    percent = percent_by_kind(events, on_gpu=True)
    assert (percent["convolution"], percent["activation"], percent["rest"]) == (90.0, 10.0, 0.0)


@pytest.mark.parametrize(
    ("batch_norm", "share", "place"),
    [(4.0, 7.5, "within"), (9.0, 12.5, "above"), (1, 4.5, "below")],
)
def test_the_share_that_the_thesis_named(batch_norm, share, place):
    percent = {
        "convolution": 80.0,
        "batch_norm": batch_norm,
        "dropout": 1.0,
        "softmax_and_regression": 2.5,
    }
    told = share_beside_convolution(percent)
    assert told["percent"] == pytest.approx(share)
    assert told["thesis_percent"] == [5.0, 10.0]
    assert f"here they take {share:.1f} %, {place} that range" in told["sentence"]

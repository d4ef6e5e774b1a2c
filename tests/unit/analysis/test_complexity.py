"""Eq. 3 against torchvision's published figures and two independent counters, layer by layer."""

import functools
import json
import logging
from pathlib import Path

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch.utils.flop_counter import FlopCounterMode

from ssd_dist.analysis.complexity import count_complexity
from ssd_dist.analysis.counting import OperationCounter
from ssd_dist.analysis.layers import total
from ssd_dist.analysis.models import choose_model
from ssd_dist.config import Config, ModelConfig
from ssd_dist.engine import laid_out
from ssd_dist.model.ssd import build_model

CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))
PUBLISHED = {  # torchvision's documentation: input size, GMACs and parameters with COCO's classes
    "ssd300_vgg16": (300, 34.858, 35_641_826),
    "ssdlite320_mobilenet_v3_large": (320, 0.583, 3_440_060),
}


@functools.cache
def counted(name, head=None, image_size=None):
    """A model without memory, its configuration, and its count."""
    chosen = choose_model(name, head=head, image_size=image_size)
    model = chosen.build_without_memory().to("meta").eval()
    return model, chosen.config, count_complexity(model, model.image_size, chosen.config)


@pytest.fixture(
    params=[
        *((name,) for name in PUBLISHED),
        ("resnet18", "ssdlite", 96),
        *((str(path),) for path in CONFIGS),
    ],
    ids=lambda arguments: Path(arguments[0]).name,
)
def shipped(request):
    return counted(*request.param)


@pytest.mark.parametrize("name", PUBLISHED)
def test_torchvisions_published_figures(name):
    model, _, complexity = counted(name)
    gmacs = round(complexity.total_macs / 1e9, 3)
    assert (model.image_size, gmacs, complexity.total_params) == PUBLISHED[name]


def test_each_layer_equals_torchs_counter(shipped):
    model, _, complexity = shipped
    images = torch.empty(1, 3, model.image_size, model.image_size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    flops = {
        name.removeprefix("SSD."): sum(of_module.values())
        for name, of_module in counter.get_flop_counts().items()
    }
    counted = [layer for layer in complexity.layers if layer.macs]
    assert {layer.name: 2 * layer.macs for layer in counted} == {
        layer.name: flops[layer.name] for layer in counted
    }
    assert 2 * complexity.total_macs == counter.get_total_flops()


def test_each_layer_equals_fvcores_counter(shipped):
    model, _, complexity = shipped
    real = model.to_empty(device="cpu")  # fvcore traces, which tensors without memory can't stand
    for tensor in real.state_dict().values():
        tensor.zero_()
    images = torch.zeros(1, 3, real.image_size, real.image_size, dtype=torch.uint8)
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    analysis = FlopCountAnalysis(real, images).tracer_warnings("none")
    by_module = analysis.by_module_and_operator()
    model.to("meta")
    # What fvcore calls a flop is a multiply-accumulate. It counts batch norm, resizing and pooling
    # of whole maps, too, in rules of thumb of its own, which Eq. 3 leaves out.
    for layer in complexity.layers:
        if layer.macs:
            assert by_module[layer.name]["conv"] == layer.macs, layer.name
    operators = analysis.by_operator()
    assert operators["conv"] == complexity.total_macs
    assert set(operators) <= {"conv", "batch_norm", "upsample_nearest2d", "adaptive_avg_pool2d"}


def test_without_memory_runs_what_real_tensors_run(shipped):
    """Same operations, layouts, bytes: nothing of the count is guessed."""
    model, config, complexity = shipped
    real = model.to_empty(device="cpu")
    images = torch.zeros(1, 3, real.image_size, real.image_size, dtype=torch.uint8)
    with OperationCounter(real, dict(real.named_parameters())) as counter:
        real(laid_out(images, config))
    model.to("meta")
    assert tuple(counter.layers) == complexity.layers


@pytest.fixture(scope="module")
def model():
    config = ModelConfig(backbone="resnet18", image_size=64, feature_strides=(16, 32))
    return build_model(config, num_classes=3)


def test_totals_are_the_sums_of_segments_and_layers(shipped):
    model, _, complexity = shipped
    segments = complexity.segments
    assert list(segments) == ["preprocessing", "backbone", "extras", "heads", "postprocessing"]
    assert complexity.total_macs == sum(layer.macs for layer in complexity.layers)
    assert complexity.total_macs == sum(segment.macs for segment in segments.values())
    assert complexity.total_params == sum(segment.params for segment in segments.values())
    assert complexity.total_params == sum(layer.params for layer in complexity.layers)
    assert complexity.total_params == sum(p.numel() for p in model.parameters())
    of_network = [segment.cost for name, segment in segments.items() if name != "postprocessing"]
    assert total(of_network) == total(complexity.layers)
    assert complexity.total_bytes_moved == sum(s.cost.bytes_moved for s in segments.values())
    assert sum(segment.activations for segment in segments.values()) == sum(
        layer.activations for layer in complexity.layers
    )
    for name in ("backbone", "extras", "heads"):
        assert segments[name].macs > 0 or name == "extras"
    assert segments["preprocessing"].params == segments["postprocessing"].params == 0


def test_layers_by_hand(model):
    layers = {layer.name: layer for layer in count_complexity(model, 64).layers}
    stem = layers["backbone.features.conv1"]
    assert (stem.kernel, stem.stride, stem.output_hw) == ((7, 7), (2, 2), (32, 32))
    assert stem.macs == 3 * 49 * 64 * 32 * 32
    assert stem.params == 3 * 49 * 64
    assert stem.bytes_read == 4 * (3 * 64 * 64 + 3 * 49 * 64)
    assert stem.bytes_written == 4 * stem.activations == 4 * 64 * 32 * 32
    assert stem.intensity == 2 * stem.macs / (stem.bytes_read + stem.bytes_written)
    norm = layers["backbone.features.bn1"]
    assert (norm.kind, norm.macs, norm.params) == ("batch_norm", 0, 2 * 64)
    assert norm.other_ops == 2 * 64 * 32 * 32
    assert norm.bytes_read == 4 * (64 * 32 * 32 + 4 * 64)  # statistics, too
    pool = layers["backbone.features.maxpool"]
    assert (pool.kind, pool.kernel, pool.stride) == ("pooling", (3, 3), (2, 2))
    assert pool.other_ops == 9 * 64 * 16 * 16
    neck = layers["backbone.neck.0"]
    assert neck.macs == 256 * 96 * 4 * 4
    assert neck.params == 256 * 96 + 96
    scores = layers["head.classification_head.module_list.1"]
    assert scores.macs == 96 * 9 * (6 * 4) * 2 * 2
    sums = [layer for name, layer in layers.items() if name.endswith(".add")]
    assert sums
    assert all(layer.kind == "elementwise" for layer in sums)


def test_operations_grow_with_the_area(model):
    small, large = count_complexity(model, 64), count_complexity(model, 128)
    assert large.total_params == small.total_params
    assert large.segments["backbone"].macs == 4 * small.segments["backbone"].macs


def test_postprocessing_by_hand(model):
    config = Config()
    found = count_complexity(model, 64, config)
    num_priors = model.priors_cxcywh.shape[0]
    cost = found.postprocessing
    assert cost.num_priors == num_priors == 6 * (4 * 4 + 2 * 2)
    assert cost.num_candidates == 3 * num_priors  # fewer pairs than the 400 that may enter
    assert cost.max_ious == 360 * 359 // 2
    assert cost.softmax.other_ops == 5 * 4 * num_priors
    assert cost.nms.other_ops == 13 * cost.max_ious
    assert found.segments["postprocessing"].macs == 0


def test_the_model_is_left_as_it_was(model):
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count_complexity(model, 64)
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_json_has_its_keys(model):
    mapping = json.loads(json.dumps(count_complexity(model, 64).to_json(), allow_nan=False))
    assert {"total_macs", "total_params", "layers", "segments", "training"} <= set(mapping)
    assert mapping["formula"] == {"macs": "O(Σ n_{l-1}·f²·n_l·m_l²)", "params": "O(weights)"}
    stem = next(la for la in mapping["layers"] if la["name"] == "backbone.features.conv1")
    assert {
        "kind": "convolution",
        "in_channels": 3,
        "out_channels": 64,
        "kernel": [7, 7],
        "stride": [2, 2],
        "dilation": [1, 1],
        "groups": 1,
        "output_hw": [32, 32],
        "params": 9408,
        "macs": 9408 * 1024,
        "activations": 65536,
    }.items() <= stem.items()
    assert {"macs", "params", "bytes_read", "intensity"} <= set(mapping["segments"]["heads"])

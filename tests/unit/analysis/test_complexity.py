"""Eq. 3 against torchvision's published figures, PyTorch's own counter, and sums by hand."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ssd_dist.analysis.complexity import count_complexity
from ssd_dist.config import ModelConfig
from ssd_dist.model.ssd import build_model

PUBLISHED = [  # torchvision's documentation: GMACs and parameters with COCO's 90 classes
    ("ssd300_vgg16", 300, 34.858, 35_641_826),
    ("ssdlite320_mobilenet_v3_large", 320, 0.583, 3_440_060),
]


@pytest.mark.parametrize(("architecture", "size", "gmacs", "params"), PUBLISHED)
def test_torchvisions_detectors(architecture, size, gmacs, params):
    model = build_model(ModelConfig(architecture=architecture, image_size=size), num_classes=90)
    complexity = count_complexity(model, size)
    assert round(complexity.total_macs / 1e9, 3) == gmacs
    assert complexity.total_params == params
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.to("meta").eval()(torch.empty(1, 3, size, size, device="meta"))
    assert 2 * complexity.total_macs == counter.get_total_flops()


@pytest.fixture(scope="module")
def model():
    config = ModelConfig(backbone="resnet18", image_size=64, feature_strides=(16, 32))
    return build_model(config, num_classes=3)


def test_segments_and_layers_add_up(model):
    complexity = count_complexity(model, 64)
    assert set(complexity.segments) == {"backbone", "extras", "heads"}
    assert complexity.total_macs == sum(layer.macs for layer in complexity.layers)
    assert complexity.total_macs == sum(s.macs for s in complexity.segments.values())
    assert complexity.total_params == sum(s.params for s in complexity.segments.values())
    assert complexity.total_params == sum(p.numel() for p in model.parameters())


def test_layers_by_hand(model):
    layers = {layer.name: layer for layer in count_complexity(model, 64).layers}
    stem = layers["backbone.features.conv1"]
    assert (stem.kernel, stem.stride, stem.output_hw) == ((7, 7), (2, 2), (32, 32))
    assert stem.macs == 3 * 49 * 64 * 32 * 32
    assert stem.params == 3 * 49 * 64
    neck = layers["backbone.neck.0"]
    assert neck.macs == 256 * 96 * 4 * 4
    assert neck.params == 256 * 96 + 96
    scores = layers["head.classification_head.module_list.1"]
    assert scores.macs == 96 * 9 * (6 * 4) * 2 * 2


def test_depthwise_convolutions_are_divided_by_their_groups():
    config = ModelConfig(architecture="ssdlite", backbone="resnet18", image_size=64)
    layers = count_complexity(build_model(config, num_classes=3), 64).layers
    depthwise = next(
        layer for layer in layers if layer.name.startswith("head") and layer.groups > 1
    )
    assert depthwise.groups == depthwise.in_channels == 96
    assert depthwise.macs == 96 * 9 * depthwise.output_hw[0] * depthwise.output_hw[1]


def test_linear_layers_count_once_a_position():
    config = ModelConfig(backbone="mobilevit_xxs", image_size=64, feature_strides=(16,))
    layers = count_complexity(build_model(config, num_classes=1), 64).layers
    linear = [layer for layer in layers if layer.kind == "linear"]
    assert linear
    for layer in linear:
        rows, columns = layer.output_hw
        assert layer.macs == layer.in_channels * layer.out_channels * rows * columns
        assert layer.params == layer.in_channels * layer.out_channels + layer.out_channels


def test_operations_grow_with_the_area(model):
    small, large = count_complexity(model, 64), count_complexity(model, 128)
    assert large.total_params == small.total_params
    assert large.segments["backbone"].macs == 4 * small.segments["backbone"].macs


def test_the_model_is_left_as_it_was(model):
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count_complexity(model, 64)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_json_has_its_keys(model):
    mapping = json.loads(json.dumps(count_complexity(model, 64).to_json()))
    assert set(mapping) == {"total_macs", "total_params", "layers", "segments"}
    assert mapping["layers"][0]["name"] == "backbone.features.conv1"
    assert set(mapping["segments"]["heads"]) == {"macs", "params"}

"""Batch normalisation as a choice: what stays equal, what is trained, what is refused."""

import copy
import logging

import pytest
import torch
from normed_models import build_with_statistics, norms
from torch import nn

from ssd_dist.config import ModelConfig
from ssd_dist.model.norm import apply_norm, check_single_pictures
from ssd_dist.model.ssd import build_model

MODELS = [
    {"architecture": "ssdlite320_mobilenet_v3_large", "image_size": 160},
    {"backbone": "tf_efficientnet_lite0", "image_size": 96},
    {"backbone": "resnet18", "image_size": 64},
    {"backbone": "mobilenetv3_small_100", "image_size": 64},
    {"backbone": "resnet18", "image_size": 64, "architecture": "ssdlite"},
]


def images(model, batch=2):
    return torch.randint(0, 256, (batch, 3, model.image_size, model.image_size)).float()


@pytest.mark.parametrize("fields", MODELS)
@torch.no_grad()
def test_folding_keeps_the_function(fields):
    model = build_with_statistics(**fields)
    folded = copy.deepcopy(model)
    apply_norm(folded, "none")
    assert norms(model)
    assert not norms(folded)
    pictures = images(model)
    for output, reference in zip(folded(pictures), model(pictures), strict=True):
        torch.testing.assert_close(output, reference, rtol=1e-4, atol=1e-5)
    apply_norm(folded, "none")  # nothing is left to do


def test_a_folded_model_is_rebuilt_for_its_state_dict():
    fields = {"backbone": "tf_efficientnet_lite0", "image_size": 64, "norm": "none"}
    trained = build_model(ModelConfig(**fields), num_classes=2)
    rebuilt = build_model(ModelConfig(**fields), num_classes=2, load_weights=False)
    rebuilt.load_state_dict(trained.state_dict())
    pictures = images(trained)
    assert all(map(torch.equal, trained(pictures), rebuilt(pictures)))


def test_norms_that_no_convolution_precedes_are_not_folded():
    model = build_with_statistics(backbone="densenet121", image_size=64)
    with pytest.raises(ValueError, match=r"right before every batch norm, and backbone.*frozen"):
        apply_norm(model, "none")


def test_a_convolution_that_rescales_its_weights_is_not_folded():
    model = build_with_statistics(backbone="resnet18", image_size=64)

    class Standardised(nn.Conv2d):
        def forward(self, x):
            return nn.functional.conv2d(x, self.weight / self.weight.std(), stride=2, padding=3)

    stem = Standardised(3, 64, 7, stride=2, padding=3, bias=False)
    model.backbone.features.conv1 = stem
    with pytest.raises(ValueError, match="would change what this model computes"):
        apply_norm(model, "none")


@pytest.mark.parametrize("fields", MODELS)
def test_frozen_keeps_statistics_and_trains_the_affine_part(fields):
    model = build_with_statistics(**fields)
    apply_norm(model, "frozen")
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    pictures = images(model)
    with torch.no_grad():
        expected = model.eval()(pictures)
    outputs = copy.deepcopy(model).train()(pictures)
    if "mobilenet" not in str(fields):  # those with dropout or squeeze-and-excitation excepted
        assert all(map(torch.equal, outputs, expected))
    model.train()
    loc, conf = model(pictures)
    (loc.square().sum() + conf.square().sum()).backward()
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name
    assert all(norm.weight.grad.abs().sum() > 0 for norm in norms(model))


def test_batch_norm_uses_and_updates_batch_statistics():
    model = build_with_statistics(backbone="resnet18", image_size=64)
    apply_norm(model, "batch")
    before = [norm.running_mean.clone() for norm in norms(model)]
    model.train()(images(model))
    after = [norm.running_mean for norm in norms(model)]
    assert all(not torch.equal(a, b) for a, b in zip(after, before, strict=True))


@torch.no_grad()
def test_sync_converts_every_layer_and_keeps_the_function():
    model = build_with_statistics(backbone="tf_efficientnet_lite0", image_size=64)
    pictures = images(model)
    expected = model(pictures)
    apply_norm(model, "sync")
    assert norms(model)
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms(model))
    for output, reference in zip(model.eval()(pictures), expected, strict=True):
        torch.testing.assert_close(output, reference)


def test_norm_without_statistics_is_warned_about(caplog):
    with caplog.at_level(logging.WARNING):
        build_model(ModelConfig(backbone="resnet18", image_size=64, norm="frozen"), num_classes=1)
    assert "random weights" in caplog.text


def test_a_single_picture_where_a_map_has_one_cell():
    fields = {"architecture": "ssdlite", "backbone": "resnet18", "image_size": 64}
    fields |= {"feature_strides": (16,), "num_extra_maps": 2}  # 4, 2, 1 cells
    check_single_pictures(build_model(ModelConfig(**fields | {"num_extra_maps": 1}), num_classes=2))
    check_single_pictures(build_model(ModelConfig(**fields, norm="none"), num_classes=2))
    with pytest.raises(ValueError, match="'batch' can't normalise a single picture") as error:
        check_single_pictures(build_model(ModelConfig(**fields), num_classes=2))
    assert "\n" not in str(error.value)

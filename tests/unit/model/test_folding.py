"""Held batch norms computed by the convolutions before them: same function, gradients and names."""

import copy
import pickle

import pytest
import torch
from normed_models import build_with_statistics, norms
from torch import nn

from ssd_dist.config import ModelConfig
from ssd_dist.model.folding import NormedConvolution, fold_held_norms, settle_held_norms
from ssd_dist.model.norm import hold_statistics
from ssd_dist.model.ssd import build_model

MODELS = [
    {"architecture": "ssdlite320_mobilenet_v3_large", "image_size": 160},  # convolution, norm, act
    {"backbone": "tf_efficientnet_lite0", "image_size": 96},  # TensorFlow's padding, timm's norms
    {"backbone": "densenet121", "image_size": 64},  # norms that no convolution precedes
]


def held(model):
    """Those that convolutions compute."""
    return [m.norm_behind for m in model.modules() if "norm_behind" in vars(m)]


def outputs_and_gradients(model):
    generator = torch.Generator().manual_seed(1)
    shape = (2, 3, model.image_size, model.image_size)
    pictures = torch.randint(0, 256, shape, generator=generator).double().requires_grad_()
    outputs = torch.cat([each.flatten() for each in model(pictures)])
    outputs.backward(torch.randn(outputs.shape, generator=generator, dtype=outputs.dtype))
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return outputs.detach(), gradients | {"pictures": pictures.grad}


@pytest.fixture(params=MODELS, ids=lambda fields: fields.get("backbone", "ssdlite320"))
def plain(request):
    """A model in eval mode whose batch norms are all its own work."""
    return build_with_statistics(**request.param).double()


@pytest.fixture
def folded(plain):
    folded = copy.deepcopy(plain)
    fold_held_norms(folded)
    return folded


def test_outputs_and_all_gradients_stay(plain, folded):
    outputs, gradients = outputs_and_gradients(folded)
    expected_outputs, expected = outputs_and_gradients(plain)
    torch.testing.assert_close(outputs, expected_outputs, rtol=1e-5, atol=1e-6)  # of float32 heads
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert gradient is not None, name
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(
            gradient,
            expected[name],
            rtol=1e-5,
            atol=1e-5 * scale,
            msg=lambda m, n=name: f"{n}: {m}",
        )


def test_names_values_and_mode_stay(plain, folded):
    assert list(folded.state_dict()) == list(plain.state_dict())
    assert all(map(torch.equal, folded.state_dict().values(), plain.state_dict().values()))
    assert [name for name, _ in folded.named_modules()] == [n for n, _ in plain.named_modules()]
    assert not folded.training
    assert len(norms(folded)) == len(norms(plain))


def test_every_norm_behind_a_convolution_is_folded(folded):
    count = len(norms(folded))
    if any("norm0" in name for name, _ in folded.named_modules()):  # densenet
        assert 0.4 * count < len(held(folded)) < count
    else:
        assert {id(norm) for norm in held(folded)} == {id(norm) for norm in norms(folded)}


def test_copies_have_norms_of_their_own(folded):
    for other in (copy.deepcopy(folded), pickle.loads(pickle.dumps(folded))):
        own = {id(norm) for norm in norms(other)}
        assert all(id(norm) in own for norm in held(other))


def test_training_leaves_the_statistics(folded):
    before = {name: buffer.clone() for name, buffer in folded.named_buffers()}
    hold_statistics(folded.train())
    outputs_and_gradients(folded)
    assert all(torch.equal(buffer, before[name]) for name, buffer in folded.named_buffers())


@torch.no_grad()
def test_settled_finds_the_same_bit_for_bit(folded):
    images = torch.rand(2, 3, folded.image_size, folded.image_size) * 255
    expected = folded(images.double())
    num_folded = len(held(folded))
    settle_held_norms(folded)
    assert num_folded > 0
    assert not held(folded)
    assert not any(isinstance(module, NormedConvolution) for module in folded.modules())
    assert all(map(torch.equal, folded(images.double()), expected))


def test_under_autocast(folded):
    """Weights are scaled in float32, and only the convolution is in bf16."""
    model, images = folded.float(), torch.rand(1, 3, folded.image_size, folded.image_size) * 255
    with torch.no_grad():
        expected = model(images)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(images)
    for output, reference in zip(outputs, expected, strict=True):
        assert output.dtype == torch.float32
        assert (output - reference).abs().mean() < 0.05 * reference.abs().mean()


def test_compiles_as_one_graph():
    model = build_model(
        ModelConfig(backbone="resnet18", image_size=64, norm="frozen"), num_classes=2
    )
    images = torch.rand(2, 3, 64, 64) * 255
    assert held(model)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert all(map(torch.equal, compiled(images), model(images)))


def test_a_convolution_with_other_readers_keeps_its_norm():
    """Also where the statistics, as they are before training, hardly change anything."""
    model = build_model(ModelConfig(backbone="resnet18", image_size=64), num_classes=2).eval()

    class ReadTwice(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64)

        def forward(self, x):
            features = self.convolution(x)
            return self.norm(features) + features

    model.backbone.features.conv1 = ReadTwice().eval()
    images = torch.rand(1, 3, 64, 64)
    expected = model(images)
    fold_held_norms(model)
    assert not held(model)
    assert all(map(torch.equal, model(images), expected))


def test_a_shared_convolution_keeps_its_norms():
    model = build_model(ModelConfig(backbone="resnet18", image_size=64), num_classes=2).eval()
    block = model.backbone.features.layer1[0]
    block.conv2 = block.conv1
    count = len(norms(model))
    fold_held_norms(model)
    assert len(held(model)) == count - 2
    assert block.bn1 not in held(model)

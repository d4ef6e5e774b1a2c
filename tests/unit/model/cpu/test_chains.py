"""Chains of convolutions beside PyTorch's layers one by one, which take doubles here."""

import copy
import pickle

import pytest
import torch
from beside import (
    ACTIVATIONS,
    assert_same,
    bytes_kept,
    close,
    compared,
    depthwise,
    gate,
    norm,
    pictures,
    product,
    quick,
    set_norms,
    used,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from timm.layers import BatchNormAct2d
from timm.layers.conv2d_same import Conv2dSame
from timm.models._efficientnet_blocks import DepthwiseSeparableConv
from timm.models._efficientnet_blocks import InvertedResidual as TimmInvertedResidual
from torch import nn
from torch.profiler import profile
from torchvision.models.mobilenetv3 import InvertedResidual, InvertedResidualConfig

from ssd_dist.analysis.kinds import percent_by_kind
from ssd_dist.config import Config, ModelConfig
from ssd_dist.engine import place
from ssd_dist.model.cpu.chains import Chain
from ssd_dist.model.norm import apply_norm
from ssd_dist.model.ssd import build_model

pytestmark = pytest.mark.usefixtures("one_thread")
# The same examples each time: of others, rounding may move a value over an activation's kink.
examples = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, derandomize=True
)


def test_a_product_by_hand():
    """Values 1, 2, 3, 6 times 2: mean 6, variance 14; γ = 2 and β = 1."""
    plain = nn.Sequential(*product(1, 1, nn.ReLU(), eps=2, momentum=0.25))
    for values, value in zip(plain.parameters(), (2, 2, 1), strict=True):
        nn.init.constant_(values, value)
    nn.init.constant_(plain[1].running_mean, 10)
    nn.init.constant_(plain[1].running_var, 2)
    ours = quick(plain)
    # 2 (2 x - 6) / 4 + 1
    images = torch.tensor([1.0, 2, 3, 6]).view(1, 1, 2, 2)
    assert ours(images).flatten().tolist() == [0, 0, 1, 4]
    assert ours[1].running_mean.item() == 9  # 10 + (6 - 10) / 4
    assert ours[1].running_var.item() == pytest.approx(2 + (56 / 3 - 2) / 4)  # 56 / 3 unbiased
    assert ours[1].num_batches_tracked == 1


def test_a_depthwise_convolution_by_hand():
    """Ones everywhere, eight channels: sums of 4, 6 and 9 of them, mean 100 / 16."""
    plain = nn.Sequential(*depthwise(8), nn.Conv2d(8, 1, 1, bias=False))
    for values, value in zip(plain.parameters(), (1, 1, 0, 1 / 8), strict=True):
        nn.init.constant_(values, value)
    output = quick(plain)(torch.ones(1, 8, 4, 4))
    sums = torch.tensor([[4.0, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]])
    expected = (sums - sums.mean()) / (sums.var(correction=0) + 1e-5).sqrt()
    assert torch.allclose(output[0, 0], expected)


@examples
@given(
    batch=st.integers(1, 4),
    channels=st.integers(1, 40),
    outputs=st.integers(1, 40),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    activation=st.sampled_from(ACTIVATIONS),
    momentum=st.sampled_from([0.03, 0.1, 1.0]),
    channels_last=st.booleans(),
)
def test_products(batch, channels, outputs, height, width, activation, momentum, channels_last):
    if batch * height * width < 8:  # of few values a variance may be next to nothing
        height, width = 4, 3
    torch.manual_seed(0)
    plain = nn.Sequential(*product(channels, outputs, activation, momentum=momentum, eps=1e-3))
    images = pictures(batch, channels, height, width)
    assert_same(plain, images if channels_last else images.contiguous())


@examples
@given(
    batch=st.integers(1, 3),
    eights=st.integers(1, 4),
    height=st.integers(9, 19),
    width=st.integers(9, 19),
    # Each is compiled once.
    shape=st.sampled_from([(3, 1), (3, 2), (5, 1), (5, 2), (2, 3), (7, 1)]),
    padding=st.integers(0, 1),
    activation=st.sampled_from(ACTIVATIONS),
)
def test_depthwise_convolutions(batch, eights, height, width, shape, padding, activation):
    """Of 9 values or more a channel."""
    size, stride = shape
    torch.manual_seed(0)
    plain = nn.Sequential(*depthwise(8 * eights, size, stride, padding, activation))
    assert_same(plain, pictures(batch, 8 * eights, height, width))


in_chains = {
    "batch": st.integers(1, 3),
    "channels": st.integers(1, 20),
    "eights": st.integers(1, 4),
    "size": st.sampled_from([3, 5]),
    "stride": st.integers(1, 2),
    "gated": st.booleans(),
}


@examples
@given(
    **in_chains,
    outputs=st.integers(1, 20),
    side=st.integers(8, 20),
    activation=st.sampled_from(ACTIVATIONS),
    with_bias=st.booleans(),
)
def test_long_chains(
    batch, channels, eights, outputs, side, size, stride, activation, gated, with_bias
):
    torch.manual_seed(0)
    wide = 8 * eights
    layers = [*product(channels, wide, activation)]
    layers += depthwise(wide, size, stride, activation=activation)
    layers += [gate(wide)] if gated else []
    layers += product(wide, outputs)
    layers += [nn.Conv2d(outputs, 5, 1)] if with_bias else []
    plain = nn.Sequential(*layers)
    (chain,) = vars(quick(plain))["forward"].steps  # both activations are one and the same module
    assert [stage.gate is not None for stage in chain.stages][:3] == [False, gated, False]
    assert_same(plain, pictures(batch, channels, side, side), rounding=1e-4)


@examples
@given(
    **in_chains,
    side=st.integers(1, 20),
    activation=st.sampled_from(ACTIVATIONS[2:]),
    ends=st.sampled_from(["at a product", "with its activation", "at a depthwise convolution"]),
)
def test_chains_of_biases(batch, channels, eights, side, size, stride, activation, gated, ends):
    """Of a single value, too, and of a depthwise convolution without an activation."""
    torch.manual_seed(0)
    wide = 8 * eights
    across = nn.Conv2d(wide, wide, size, stride, size // 2, groups=wide)
    layers = [nn.Conv2d(channels, wide, 1), activation, across]
    if ends != "at a depthwise convolution":
        layers += [activation, *([gate(wide)] if gated else []), nn.Conv2d(wide, 5, 1)]
    layers += [activation] if ends == "with its activation" else []
    plain = nn.Sequential(*layers)
    (chain,) = vars(quick(plain))["forward"].steps
    assert [stage.is_lazy for stage in chain.stages][-1] == (ends != "at a product")
    assert_same(plain, pictures(batch, channels, side, side), rounding=1e-4)


@examples
@given(
    height=st.integers(1, 19),
    width=st.integers(1, 19),
    shape=st.sampled_from([(3, 1), (3, 2), (5, 1), (5, 2)]),
)
def test_padding_as_tensorflow_has_it(height, width, shape):
    """By the size of the map, and not on all sides alike."""
    torch.manual_seed(0)
    convolution = Conv2dSame(8, 8, *shape, groups=8, bias=False)
    assert_same(nn.Sequential(convolution, norm(8), nn.ReLU6()), pictures(9, 8, height, width))


@pytest.mark.parametrize("norm_layer", [nn.BatchNorm2d, nn.Identity])
@pytest.mark.parametrize("pads", ["", "same"])
@pytest.mark.parametrize(("outputs", "stride"), [(16, 1), (24, 1), (24, 2)])
@pytest.mark.parametrize("block", [TimmInvertedResidual, DepthwiseSeparableConv])
def test_blocks_of_timm(block, outputs, stride, pads, norm_layer):
    torch.manual_seed(0)
    expansion = {"exp_ratio": 3.0} if block is TimmInvertedResidual else {}
    options = {"pad_type": pads, "act_layer": nn.ReLU6, "drop_path_rate": 0.3, **expansion}
    plain = nn.Sequential(set_norms(block(16, outputs, 5, stride, **options)), nn.Identity())
    if norm_layer is nn.Identity:
        without_norms(plain[0])
    images = pictures(4, 16, 12, 12)
    compared(plain, images)
    with profile() as profiled:
        quick(plain)(images)
    assert "ConvolutionChain" in {event.name for event in profiled.events()}


def without_norms(block):
    """Biases in place of norms, as `norm: none` leaves them."""
    for name, module in list(block.named_children()):
        if isinstance(module, nn.Conv2d):
            module.bias = nn.Parameter(torch.linspace(-1, 1, module.out_channels))
        elif isinstance(module, BatchNormAct2d):
            setattr(block, name, module.act)


@pytest.mark.parametrize("squeezed", [nn.ReLU, nn.SiLU])
@pytest.mark.parametrize("scale", [nn.Sigmoid, nn.Hardsigmoid])
def test_gates(squeezed, scale):
    torch.manual_seed(0)
    layers = [*depthwise(16, activation=nn.Hardswish()), gate(16, 5, squeezed, scale)]
    assert_same(nn.Sequential(*layers, *product(16, 3)), pictures(3, 16, 9, 7), rounding=1e-4)


def test_a_gate_that_is_shut_or_open():
    """Beyond ±3 a hard sigmoid has no slope."""
    torch.manual_seed(0)
    layers = [*depthwise(16), gate(16), *product(16, 3)]
    with torch.no_grad():
        layers[2].fc2.bias.copy_(torch.linspace(-9, 9, 16))
    assert_same(nn.Sequential(*layers), pictures(2, 16, 9, 7), rounding=1e-4)


def test_in_parts():
    """Of more cells than are computed at a time, and more than a block of sums; odd numbers."""
    torch.manual_seed(0)
    layers = product(48, 304, nn.Hardswish()) + depthwise(304, 5, 2, activation=nn.ReLU())
    layers += [gate(304), *product(304, 41)]
    assert_same(nn.Sequential(*layers), pictures(3, 48, 53, 47), rounding=1e-4)


def test_values_far_from_zero_keep_their_variance():
    images = 1e4 + pictures(4, 8, 20, 20)
    layers = nn.Sequential(*depthwise(8, padding=0))
    nn.init.constant_(layers[0].weight, 1 / 9)
    exact = copy.deepcopy(layers).double()(images.double())
    assert (quick(layers)(images) - exact).abs().max() <= 2e-2  # of values rounded to a thousandth


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(activation, value):
    images = pictures(2, 8, 8, 8)
    images[1, 4, 2, 2] = value
    for layers in (product(8, 6, activation), depthwise(8, activation=activation)):
        plain = nn.Sequential(*layers, nn.Conv2d(layers[1].num_features, 2, 1))
        ours = quick(plain)(images)
        assert torch.equal(ours.isnan(), plain(images).isnan())
        assert ours.isnan().any()


def test_only_the_gradients_that_are_asked_for():
    torch.manual_seed(0)
    layers = [*product(5, 8), *depthwise(8), gate(8), *product(8, 6)]
    plain = nn.Sequential(*layers)
    for frozen in range(len(layers) - 2):
        for each in layers[: frozen + 1]:
            each.requires_grad_(False)
        ours, exact, images = quick(plain), copy.deepcopy(plain).double(), pictures(2, 5, 9, 9)
        output = ours(images)
        assert used(output)
        towards = pictures(*output.shape)
        output.backward(towards)
        exact(images.double()).backward(towards.double())
        assert images.grad is None
        expected = [p.grad for p in exact.parameters()]
        largest = max(gradient.abs().max() for gradient in expected if gradient is not None)
        for p, gradient in zip(ours.parameters(), expected, strict=True):
            assert (p.grad is None) == (gradient is None)
            assert gradient is None or close(p.grad, gradient, largest)
    plain.requires_grad_(False)
    assert not quick(plain)(pictures(2, 5, 9, 9)).requires_grad
    images = pictures(2, 5, 9, 9).requires_grad_()
    quick(plain)(images).square().sum().backward()
    assert images.grad is not None


def test_twice_backward_if_the_graph_is_kept():
    torch.manual_seed(0)
    ours = quick(nn.Sequential(*product(5, 8), *depthwise(8), gate(8), *product(8, 6)))
    images = pictures(2, 5, 9, 9)
    loss = ours(images).square().sum()
    loss.backward(retain_graph=True)
    first = [p.grad.clone() for p in ours.parameters()]
    loss.backward()
    for p, gradient in zip(ours.parameters(), first, strict=True):
        assert torch.equal(p.grad, 2 * gradient)


def test_an_image_changed_in_between_is_noticed():
    ours = quick(nn.Sequential(*product(5, 8)))
    images = pictures(2, 5, 9, 9)
    output = ours(images)
    images.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_where_it_can_not_be_used_it_is_pytorchs_own():
    ours = quick(nn.Sequential(*product(6, 8, nn.ReLU()), *depthwise(8)))
    images = pictures(3, 6, 5, 5)
    assert used(ours(images))
    with torch.autocast("cpu", torch.bfloat16):
        assert not used(ours(images))
    compiled = torch.compile(ours, fullgraph=True, backend="eager")
    assert not used(compiled(images))
    torch.set_num_threads(2)
    assert not used(ours(images))
    torch.set_num_threads(1)
    assert not used(ours.eval()(images))
    ours.train()[4].eval()
    assert not used(ours(images))
    assert not used(copy.deepcopy(ours).double().train()(images.double()))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        ours.train()(images[:1, :, :1, :1])


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(8, 8, 1), norm(8)],
        [nn.Conv2d(8, 8, 1, groups=2, bias=False), norm(8)],
        [nn.Conv2d(8, 8, 1, stride=2, bias=False), norm(8)],
        [nn.Conv2d(8, 8, 1, padding=1, bias=False), norm(8)],
        [nn.Conv2d(8, 8, 3, bias=False), norm(8)],
        [nn.Conv2d(8, 8, 3, groups=8), norm(8)],
        [nn.Conv2d(8, 16, 3, groups=8, bias=False), norm(16)],
        [nn.Conv2d(8, 8, 3, padding="same", groups=8, bias=False), norm(8)],
        [nn.Conv2d(8, 8, 5, padding=(2, 1), groups=8, bias=False), norm(8)],
        [nn.Conv2d(8, 8, (5, 3), padding=1, groups=8, bias=False), norm(8)],
        [nn.Conv2d(8, 8, 5, stride=(1, 2), groups=8, bias=False), norm(8)],
        [nn.Conv2d(8, 8, 3, dilation=2, groups=8, bias=False), norm(8)],
        [nn.Conv2d(8, 8, 3, padding=1, groups=8, padding_mode="reflect", bias=False), norm(8)],
        [nn.Conv2d(8, 8, 1), nn.ReLU()],
        [nn.Conv2d(8, 8, 3, groups=8), nn.ReLU()],
        [*product(8, 8)[:1], nn.GroupNorm(2, 8)],
        [nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)],
        [*product(8, 8)[:1], nn.BatchNorm2d(8, momentum=None)],
    ],
    ids=str,
)
def test_layers_that_make_no_chain(layers):
    plain = nn.Sequential(*layers)
    ours, images = quick(plain), pictures(2, 8, 12, 12)
    steps = getattr(vars(ours).get("forward"), "steps", [])
    assert not any(isinstance(step, Chain) for step in steps)
    assert close(ours(images), plain(images))


def test_a_chain_ends_where_it_must():
    """Before a gate with no product behind it, an unknown activation and what is no convolution."""
    layers = [*depthwise(8), gate(8), nn.Sigmoid(), *product(8, 8), nn.Sigmoid()]
    plain = nn.Sequential(nn.Sequential(*layers[:3]), nn.Sequential(*layers[3:]), nn.Flatten())
    ours = quick(plain)
    steps = vars(ours)["forward"].steps
    assert [type(step).__name__ for step in steps] == [
        "Chain",
        "SqueezeExcitation",
        "Sigmoid",
        "Chain",
        "Sigmoid",
        "Flatten",
    ]
    images = pictures(2, 8, 12, 12)
    assert close(ours(images), plain(images))
    plain = nn.Sequential(*layers[:3], nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
    assert close(quick(plain)(images), plain(images))


def test_a_block_whose_input_is_added_to_its_output():
    torch.manual_seed(0)
    shape = InvertedResidualConfig(16, 5, 48, 16, True, "HS", 1, 1, 1.0)
    plain = nn.Sequential(InvertedResidual(shape, nn.BatchNorm2d), nn.Identity())
    ours, exact, images = quick(plain), copy.deepcopy(plain).double(), pictures(2, 16, 12, 12)
    images.requires_grad_()
    doubles = images.detach().double().requires_grad_()
    output, expected = ours(images), exact(doubles)
    assert close(output, expected)
    (one,) = torch.autograd.grad(output.square().sum(), images)
    (other,) = torch.autograd.grad(expected.square().sum(), doubles)
    assert close(one, other, rounding=1e-4)


def test_one_map_a_convolution_is_kept_where_pytorch_keeps_three():
    torch.manual_seed(0)
    layers = product(32, 32, nn.Hardswish(inplace=True)) + depthwise(32, activation=nn.Hardswish())
    plain = nn.Sequential(*layers, nn.Conv2d(32, 2, 1))
    images = pictures(4, 32, 20, 20)
    # The images and what two convolutions gave. PyTorch's layers keep norms' outputs and their
    # activations, too.
    assert 3 * images.nbytes <= bytes_kept(quick(plain), images) < 3.2 * images.nbytes
    assert bytes_kept(plain, images) > 6.8 * images.nbytes


@pytest.mark.parametrize(
    "config",
    [
        {"architecture": "ssdlite320_mobilenet_v3_large", "image_size": 320},
        {"architecture": "ssdlite", "backbone": "resnet18", "image_size": 320},
        {"architecture": "ssd", "backbone": "tf_efficientnet_lite0", "image_size": 160},
    ],
    ids=lambda config: config.get("backbone", config["architecture"]),
)
@pytest.mark.parametrize("norm", ["batch", "frozen", "none"])
def test_a_placed_model_computes_no_worse(config, norm):
    """Beside the same in doubles; then copies of it."""
    torch.manual_seed(0)
    model = set_norms(build_model(ModelConfig(weights="none", norm="batch", **config), 3))
    apply_norm(model, norm)
    exact = copy.deepcopy(model).double()
    ours = place(copy.deepcopy(model), Config(), torch.device("cpu"))
    assert ours.state_dict().keys() == model.state_dict().keys()
    images = torch.randint(0, 256, (4, 3, model.image_size, model.image_size))

    def results(model):
        outputs = model(images.to(next(model.parameters()).dtype))
        sum(output.square().sum() for output in outputs).backward()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
        return torch.cat([output.flatten() for output in outputs]).double(), gradients.double()

    expected = results(exact)
    theirs = results(model)
    for each in (ours, copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        each.zero_grad()
        with profile() as profiled:
            found = results(each)
        names = {e.name for e in profiled.events()}
        assert "ConvolutionChain" in names
        assert ("NormActivation" in names) == (norm == "batch")
        for one, other, precise in zip(found, theirs, expected, strict=True):
            # Rounding that moves a value over a kink is chance.
            assert (one - precise).norm() <= 4 * (other - precise).norm()


def test_a_profile_knows_it():
    ours = quick(nn.Sequential(*product(64, 96, nn.ReLU()), *depthwise(96)))
    images = pictures(4, 64, 60, 60)
    ours(images).sum().backward()
    with profile() as profiled:
        ours(images).sum().backward()
    percent = percent_by_kind(profiled.events(), on_gpu=False)
    assert percent["convolution_and_norm"] > 80

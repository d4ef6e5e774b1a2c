"""Winograd's convolution beside PyTorch's."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.profiler import profile

from ssd_dist.analysis.kinds import percent_by_kind
from ssd_dist.config import Config, ModelConfig
from ssd_dist.engine import place
from ssd_dist.model.cpu.winograd import WinogradConvolution, convolution, use_winograd
from ssd_dist.model.ssd import build_model


def given_tensors(batch, inputs, outputs, height, width, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = (batch, inputs, height, width), (outputs, inputs, 3, 3), (outputs,)
    return [
        torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes
    ]


def used(output):
    return "Winograd" in type(output.grad_fn).__name__


def test_by_hand():
    ones = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    summed = WinogradConvolution.apply(ones, torch.ones(1, 1, 3, 3, dtype=torch.float64), None)
    assert torch.allclose(
        summed[0, 0],
        torch.tensor([[4, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]]).double(),
    )


@given(
    batch=st.integers(1, 3),
    inputs=st.integers(1, 5),
    outputs=st.integers(1, 5),
    height=st.integers(1, 13),
    width=st.integers(1, 13),
    with_bias=st.booleans(),
)
def test_computes_what_a_convolution_does_and_its_gradients(
    batch, inputs, outputs, height, width, with_bias
):
    arguments = given_tensors(batch, inputs, outputs, height, width)
    if not with_bias:
        arguments[2] = None
    trained = arguments[: 2 + with_bias]
    ours = WinogradConvolution.apply(*arguments)
    theirs = F.conv2d(*arguments, padding=1)
    assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10)
    towards = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(1)).double()
    for one, other in zip(
        torch.autograd.grad(ours, trained, towards),
        torch.autograd.grad(theirs, trained, towards),
        strict=True,
    ):
        assert one.shape == other.shape
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [(19, 23), (75, 75), (38, 200)])
def test_in_parts(size):
    """Of more tiles than are computed at a time: several pictures, and several rows of one."""
    arguments = given_tensors(5, 64, 160, *size, dtype=torch.float32)
    exact = F.conv2d(*(argument.double() for argument in arguments), padding=1)
    ours = convolution(*arguments)
    assert used(ours)
    assert (ours - exact).norm() <= 3e-6 * exact.norm()
    towards = torch.randn_like(ours)
    for one, other in zip(
        torch.autograd.grad(ours, arguments, towards),
        torch.autograd.grad(exact, arguments, towards.double()),
        strict=True,
    ):
        assert (one - other).norm() <= 3e-6 * other.norm()


@pytest.mark.parametrize("trained", [(True, False), (False, True)])
def test_only_the_gradients_that_are_asked_for(trained):
    arguments = given_tensors(2, 3, 4, 9, 9)
    theirs = F.conv2d(*arguments, padding=1).square().sum()
    expected = torch.autograd.grad(theirs, arguments)
    for argument, wanted in zip(arguments, (*trained, False), strict=True):
        argument.requires_grad_(wanted)
    WinogradConvolution.apply(*arguments).square().sum().backward()
    for argument, wanted, gradient in zip(arguments, (*trained, False), expected, strict=True):
        assert (argument.grad is not None) == wanted
        if wanted:
            assert torch.allclose(argument.grad, gradient)


def test_where_it_does_not_pay_it_is_pytorchs_own():
    def of(batch, size):
        return convolution(*given_tensors(batch, 2, 2, size, size, dtype=torch.float32))

    assert used(of(4, 19))
    assert not used(of(2, 19))  # 50 tiles
    assert not used(of(100, 5))  # 64 cells for 25
    arguments = given_tensors(4, 2, 2, 19, 19, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert convolution(*arguments).dtype == torch.bfloat16
    compiled = torch.compile(convolution, fullgraph=True, backend="eager")
    assert not used(compiled(*arguments))


@pytest.mark.parametrize(
    ("layer", "can_be"),
    [
        (nn.Conv2d(64, 128, 3, padding=1), True),
        (nn.Conv2d(256, 512, 3, padding="same", bias=False), True),
        (nn.Conv2d(64, 64, 3, padding=1), False),
        (nn.Conv2d(512, 16, 3, padding=1), False),
        (nn.Conv2d(128, 128, 3), False),
        (nn.Conv2d(128, 128, 3, padding=1, stride=2), False),
        (nn.Conv2d(128, 128, 3, padding=1, groups=2), False),
        (nn.Conv2d(128, 128, 3, padding=2, dilation=2), False),
        (nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect"), False),
        (nn.Conv2d(128, 128, 1), False),
    ],
    ids=str,
)
def test_layers_that_can_be(layer, can_be):
    images = torch.randn(2, layer.in_channels, 25, 25)
    before = layer(images)
    use_winograd(layer)
    after = layer(images)
    assert used(after) == can_be
    assert (after - before).norm() <= 3e-6 * before.norm()


def test_an_activation_behind_it_may_work_in_place():
    plain = nn.Sequential(nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(inplace=True)).double()
    quick = copy.deepcopy(plain)
    use_winograd(quick)
    images = given_tensors(2, 64, 1, 22, 26)[0]
    for one, other in zip(
        torch.autograd.grad(quick(images).square().sum(), [images, *quick.parameters()]),
        torch.autograd.grad(plain(images).square().sum(), [images, *plain.parameters()]),
        strict=True,
    ):
        assert torch.allclose(one, other)


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_a_placed_model_is_the_same_but_quicker(norm):
    torch.manual_seed(0)
    # In double precision: rounding would take a unit's gradient away where it is about to be cut.
    model = build_model(ModelConfig(backbone="resnet18", image_size=128, norm=norm), 3).double()
    quick = place(copy.deepcopy(model), Config(), torch.device("cpu"))
    assert quick.state_dict().keys() == model.state_dict().keys()
    images = torch.randint(0, 256, (4, 3, 128, 128)).double()
    before = model(images)
    sum(output.square().sum() for output in before).backward()
    for each in (quick, copy.deepcopy(quick), pickle.loads(pickle.dumps(quick))):
        with profile() as profiled:
            after = each(images)
        assert "WinogradConvolution" in {event.name for event in profiled.events()}
        for one, other in zip(after, before, strict=True):
            assert torch.allclose(one, other)
        sum(output.square().sum() for output in after).backward()
        for (name, one), other in zip(each.named_parameters(), model.parameters(), strict=True):
            assert (one.grad - other.grad).norm() <= 1e-9 * other.grad.norm(), name


def test_a_profile_calls_it_a_convolution():
    layer = nn.Conv2d(128, 128, 3, padding=1)
    use_winograd(layer)
    images = torch.randn(2, 128, 38, 38, requires_grad=True)
    layer(images).sum().backward()
    with profile() as profiled:
        layer(images).sum().backward()
    assert percent_by_kind(profiled.events(), on_gpu=False)["convolution"] > 80

"""Norms with their activations beside PyTorch's layers, which take doubles here."""

import pytest
import torch
from beside import ACTIVATIONS, assert_same, bytes_kept, close, norm, pictures, quick, used
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from timm.layers import BatchNormAct2d
from torch import nn
from torch.profiler import profile

from ssd_dist.analysis.kinds import percent_by_kind

pytestmark = pytest.mark.usefixtures("one_thread")


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, derandomize=True
)
@given(
    batch=st.integers(1, 4),
    channels=st.integers(1, 40),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    activation=st.sampled_from(ACTIVATIONS),
    momentum=st.sampled_from([0.03, 0.1, 1.0]),
    channels_last=st.booleans(),
)
def test_computes_what_the_layers_do_one_by_one(
    batch, channels, height, width, activation, momentum, channels_last
):
    if batch * height * width < 8:  # of few values a variance may be next to nothing
        height, width = 4, 3
    torch.manual_seed(0)
    layers = [norm(channels, momentum=momentum, eps=1e-3), *([activation] if activation else [])]
    images = pictures(batch, channels, height, width)
    assert_same(nn.Sequential(*layers), images if channels_last else images.contiguous())


def test_values_far_from_zero_keep_their_variance():
    images = 1e4 + pictures(4, 8, 20, 20)
    ours = quick(nn.Sequential(nn.BatchNorm2d(8)))(images)
    exact = nn.BatchNorm2d(8).double()(images.double())
    assert (ours - exact).abs().max() <= 5e-3  # of values rounded to a thousandth


@pytest.mark.parametrize("activation", [nn.Identity, nn.ReLU, nn.Hardswish])
def test_timms_norm_that_activates_by_itself(activation):
    torch.manual_seed(0)
    plain = nn.Sequential(BatchNormAct2d(5, act_layer=activation), nn.Identity())
    assert type(plain[0].act) is activation
    assert_same(plain, pictures(2, 5, 9, 9))
    images = pictures(2, 5, 9, 9)
    sigmoid = nn.Sequential(BatchNormAct2d(5, act_layer=nn.Sigmoid), nn.Identity())
    assert not used(quick(sigmoid)(images))
    assert torch.equal(quick(sigmoid)(images), sigmoid(images))


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(4, affine=False),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.BatchNorm2d(4, momentum=None),
        nn.GroupNorm(2, 4),
    ],
    ids=str,
)
def test_norms_that_it_does_not_know(layer):
    plain = nn.Sequential(layer, nn.ReLU())
    images = pictures(3, 4, 5, 5).requires_grad_()
    ours = quick(plain)
    assert not used(ours(images))
    assert torch.equal(ours(images), plain(images))


def test_where_it_can_not_be_used_it_is_pytorchs_own():
    ours, images = quick(nn.Sequential(norm(6), nn.ReLU())), pictures(3, 6, 5, 5)
    assert used(ours(images))
    torch.set_num_threads(2)
    assert not used(ours(images))
    torch.set_num_threads(1)
    assert not used(ours.eval()(images))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        ours.train()(images[:1, :, :1, :1])


def test_one_map_is_kept_where_pytorch_keeps_two():
    plain = nn.Sequential(norm(32), nn.Hardswish(inplace=True))
    images = pictures(4, 32, 20, 20)
    assert images.nbytes <= bytes_kept(quick(plain), images) < 1.1 * images.nbytes
    assert 2 * images.nbytes <= bytes_kept(plain, images)


def test_a_profile_calls_it_batch_norm():
    ours = quick(nn.Sequential(norm(64), nn.ReLU()))
    images = pictures(4, 64, 60, 60)
    ours(images).sum().backward()
    with profile() as profiled:
        ours(images).sum().backward()
    assert percent_by_kind(profiled.events(), on_gpu=False)["batch_norm"] > 80
    assert close(ours(images), ours(images))

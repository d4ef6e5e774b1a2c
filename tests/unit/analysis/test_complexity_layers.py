"""Single operations, worked by hand."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ssd_dist.analysis.counting import AsOnDevice, OperationCounter
from ssd_dist.analysis.layers import Cost, total


def layers_of(module, shape):
    inputs = torch.zeros(shape)
    with OperationCounter(module, dict(module.named_parameters())) as counter:
        module(inputs)
    return counter.layers


def test_a_convolution():
    (layer,) = layers_of(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)), (1, 3, 10, 20))
    assert (layer.name, layer.kind) == ("0", "convolution")
    assert (layer.in_channels, layer.out_channels, layer.output_hw) == (3, 8, (10, 20))
    assert layer.macs == 3 * 9 * 8 * 10 * 20
    assert layer.params == 3 * 9 * 8 + 8
    assert layer.activations == 8 * 10 * 20
    assert layer.bytes_read == 4 * (3 * 10 * 20 + 3 * 9 * 8 + 8)
    assert layer.bytes_written == 4 * 8 * 10 * 20


@pytest.mark.parametrize(
    ("options", "output_hw", "macs"),
    [
        ({"stride": 2, "padding": 1}, (5, 5), 4 * 9 * 8 * 25),
        ({"stride": (2, 1), "padding": 1}, (5, 10), 4 * 9 * 8 * 50),
        ({"dilation": 3, "padding": 3}, (10, 10), 4 * 9 * 8 * 100),
        ({"groups": 2, "padding": 1}, (10, 10), 2 * 9 * 8 * 100),
        ({"groups": 4, "stride": 3}, (3, 3), 1 * 9 * 8 * 9),
    ],
)
def test_strided_dilated_grouped(options, output_hw, macs):
    convolution = nn.Conv2d(4, 8, 3, **options)
    (layer,) = layers_of(nn.Sequential(convolution), (1, 4, 10, 10))
    assert (layer.output_hw, layer.macs) == (output_hw, macs)
    assert (layer.stride, layer.dilation) == (convolution.stride, convolution.dilation)
    assert layer.groups == convolution.groups


def test_a_transposed_convolution_sums_over_its_input():
    (layer,) = layers_of(nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2)), (1, 4, 5, 5))
    assert layer.output_hw == (11, 11)
    assert layer.macs == 4 * 9 * 6 * 5 * 5


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 5), (2, 7, 5)])
def test_a_linear_layer_counts_once_a_position(bias, shape):
    (layer,) = layers_of(nn.Sequential(nn.Linear(5, 3, bias=bias)), shape)
    positions = torch.Size(shape[:-1]).numel()
    assert (layer.kind, layer.output_hw) == ("linear", (positions, 1))
    assert layer.macs == 5 * 3 * positions
    assert layer.params == 5 * 3 + 3 * bias


def test_a_linear_layer_that_is_run_as_a_batched_product():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(5, 3))

        def forward(self, x):
            return torch.bmm(x, self.weight.expand(len(x), -1, -1))

    (layer,) = layers_of(Tokens(), (2, 7, 5))
    assert (layer.kind, layer.macs, layer.params) == ("linear", 5 * 3 * 14, 15)
    assert layer.bytes_read == 4 * (2 * 7 * 5 + 5 * 3)  # the weights once, not once a picture


@pytest.mark.parametrize(
    ("module", "kind", "other_ops"),
    [
        (nn.ReLU(), "activation", 64),
        (nn.ReLU(inplace=True), "activation", 64),
        (nn.Hardswish(), "activation", 64),
        (nn.BatchNorm2d(4).eval(), "batch_norm", 2 * 64),
        (nn.GroupNorm(2, 4), "other_norm", 5 * 64),
        (nn.Softmax(1), "softmax", 5 * 64),
        (nn.MaxPool2d(2), "pooling", 4 * 16),
        (nn.AvgPool2d(3, stride=1), "pooling", 9 * 16),
        (nn.AdaptiveAvgPool2d(1), "pooling", 64),
        (nn.Upsample(scale_factor=2), "resizing", 4 * 64),
        (nn.ZeroPad2d(1), "copy", 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_other_operations_have_no_macs(module, kind, other_ops):
    (layer,) = layers_of(nn.Sequential(module), (1, 4, 4, 4))
    assert (layer.kind, layer.other_ops, layer.macs) == (kind, other_ops, 0)
    assert layer.bytes_read >= 4 * 64
    assert layer.bytes_written >= 4 * layer.activations


def test_attention_stays_out_of_eq_3():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 24)

        def forward(self, x):
            q, k, v = self.linear(x).view(1, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
            return nn.functional.scaled_dot_product_attention(q, k, v)

    module = Attention().to("meta")
    inputs = torch.zeros(1, 5, 8, device="meta")
    with OperationCounter(module, dict(module.named_parameters())) as counter:
        module(inputs)
    with FlopCounterMode(display=False) as torchs:
        module(inputs)
    macs = sum(layer.macs for layer in counter.layers)
    assert macs == 8 * 24 * 5
    attention = sum(layer.other_ops for layer in counter.layers if layer.kind == "attention")
    assert attention == 2 * 2 * (2 * 5 * 5 * 4)  # two products of 2 heads, 5 tokens, 4 channels
    assert torchs.get_total_flops() == 2 * macs + attention


def test_views_cost_nothing():
    assert layers_of(nn.Sequential(nn.Flatten(), nn.Unflatten(1, (4, 4))), (2, 16)) == []


def test_shared_parameters_count_once():
    convolution = nn.Conv2d(4, 4, 1)
    first, second = layers_of(nn.Sequential(convolution, convolution), (1, 4, 2, 2))
    assert (first.params, second.params) == (20, 0)
    assert first.macs == second.macs


def test_operations_between_modules_are_named_after_themselves():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.ReLU()

        def forward(self, x):
            return self.layer(x) + x

    names = [layer.name for layer in layers_of(nn.Sequential(Block()), (1, 4, 2, 2))]
    assert names == ["0.layer", "0.add"]


def test_a_convolution_without_memory_keeps_the_layout():
    images = torch.empty(2, 3, 8, 8, device="meta").contiguous(memory_format=torch.channels_last)
    convolution = nn.Conv2d(3, 4, 3, device="meta")
    with AsOnDevice():
        output = convolution(images)
        plain = convolution(images.contiguous())
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert plain.is_contiguous()


def test_sums_and_intensity():
    cost = total([Cost(1, 2, 3, 4), Cost(10, 20, 30, 40)])
    assert cost == Cost(11, 22, 33, 44)
    assert cost.intensity == (2 * 11 + 22) / (33 + 44)
    assert total([]).intensity == 0

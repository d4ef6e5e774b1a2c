"""Layers computed in ways of ours beside the same in double precision."""

import copy

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torchvision.ops import SqueezeExcitation

from ssd_dist.model.cpu.layers import use_quick_layers

ACTIVATIONS = [None, nn.Identity(), nn.ReLU(inplace=True), nn.ReLU6(), nn.Hardswish()]


def quick(plain):
    copied = copy.deepcopy(plain)
    use_quick_layers(copied)
    return copied


def norm(channels, **options):
    """Whose parameters and statistics are anything."""
    return set_norms(nn.BatchNorm2d(channels, **options))


def set_norms(model):
    """Parameters and statistics of its norms to anything."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                nn.init.uniform_(values, 0.5, 2)
    return model


def product(inputs, outputs, activation=None, **options):
    convolution = nn.Conv2d(inputs, outputs, 1, bias=False)
    return [convolution, norm(outputs, **options), *([activation] if activation else [])]


def depthwise(channels, size=3, stride=1, padding=None, activation=None):
    padding = size // 2 if padding is None else padding
    convolution = nn.Conv2d(channels, channels, size, stride, padding, groups=channels, bias=False)
    return [convolution, norm(channels), *([activation] if activation else [])]


def gate(channels, squeezed=4, activation=nn.ReLU, scale=nn.Hardsigmoid):
    return SqueezeExcitation(channels, squeezed, activation, scale)


def pictures(*shape, seed=2):
    images = 1 + torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return images.contiguous(memory_format=torch.channels_last)


def used(output):
    return type(output.grad_fn).__name__.startswith(("NormActivation", "ConvolutionChain"))


def close(one, other, scale=None, rounding=2e-5):
    """Whether they differ by no more than rounding in single precision does."""
    scale = other.abs().max() if scale is None else scale
    return (one - other).abs().max() <= rounding * scale


def assert_same(plain, images, *, rounding=2e-5):
    """As below, and that the last layer is one of ours."""
    assert used(compared(plain, images, rounding=rounding))


def compared(plain, images, *, rounding=2e-5):
    """Outputs, gradients and running statistics, in `plain`'s precision and in doubles, are the
    same; with the same layers dropped. The output."""
    ours, theirs = quick(plain), copy.deepcopy(plain).double()
    images.requires_grad_()
    doubles = images.detach().double().requires_grad_()
    torch.manual_seed(1)
    output = ours(images)
    torch.manual_seed(1)
    expected = theirs(doubles)
    assert output.shape == expected.shape
    assert close(output, expected, rounding=rounding)
    towards = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(output, [images, *ours.parameters()], towards)
    wanted = torch.autograd.grad(expected, [doubles, *theirs.parameters()], towards.double())
    names = ["images", *(name for name, _ in ours.named_parameters())]
    for name, one, other in zip(names, gradients, wanted, strict=True):
        assert one.shape == other.shape, name
        # The filters' gradients are differences of sums as large as this: behind a norm their
        # length hardly matters.
        assert close(one, other, max(other.abs().max(), 3), rounding), name
    for one, other in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert close(one.double(), other.double(), rounding=rounding)
    return output


def bytes_kept(model, images):
    """For the backward pass, without what is kept twice."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(images)
    assert output.requires_grad
    return sum(kept.values())

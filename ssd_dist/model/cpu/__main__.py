"""python -m ssd_dist.model.cpu: compiles the loops of this package, which a first training would.

A process that compiles them keeps 100 MiB of the compiler's for as long as it lives; one that finds
them compiled does not.
"""

from __future__ import annotations

import time

import torch
from torch import nn
from torchvision.models import mobilenet_v3_large

from ssd_dist.model.cpu.layers import use_quick_layers


def compile_loops() -> None:
    """Trains a network that has all that the loops are for, with norms and with biases in their
    place, once, on two pictures; where they then lie, see `compiled`."""
    torch.set_num_threads(1)
    # Two, as a norm takes more than one value a channel, and of the last maps a picture has one.
    images = torch.zeros(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    for norm in (nn.BatchNorm2d, nn.Identity):
        network = mobilenet_v3_large(norm_layer=norm).train()
        if norm is nn.Identity:
            for module in network.modules():
                if isinstance(module, nn.Conv2d):
                    module.bias = nn.Parameter(torch.zeros(module.out_channels))
        use_quick_layers(network)
        network(images).sum().backward()


if __name__ == "__main__":
    started = time.perf_counter()
    compile_loops()
    print(f"compiled for this machine's processor: {time.perf_counter() - started:.0f} s")

"""Models whose batch norms do something, for the tests of what becomes of these."""

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from ssd_dist.config import ModelConfig
from ssd_dist.model.ssd import build_model


def build_with_statistics(**fields):
    """A model in eval mode whose batch norms have something to fold."""
    torch.manual_seed(0)
    model = build_model(ModelConfig(**fields), num_classes=3)
    with torch.no_grad():
        for module in norms(model):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2)
            module.weight.uniform_(0.5, 1.5)
            module.bias.uniform_(-0.2, 0.2)
    return model.eval()


def norms(model):
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]

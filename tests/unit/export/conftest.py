import numpy as np
import pytest
import torch

from ssd_dist.checkpoint import Checkpoint, save_checkpoint
from ssd_dist.config import Config, ModelConfig
from ssd_dist.data.synthetic import CLASS_NAMES
from ssd_dist.model.ssd import build_model


def make_config(**model):
    # A low threshold and a wide head: random weights then find something in every picture.
    fields = {"backbone": "resnet10t", "image_size": 64, "neck_channels": 8}
    return Config(model=ModelConfig(**(fields | model)), postprocess={"max_candidates": 60})


@pytest.fixture(scope="session")
def tiny():
    """A detector of random weights that finds something everywhere: model and configuration."""
    torch.manual_seed(0)
    config = make_config()
    model = build_model(config.model, len(CLASS_NAMES)).eval()
    for predictor in model.head.classification_head.module_list:
        torch.nn.init.normal_(predictor.weight, std=0.3)
        torch.nn.init.zeros_(predictor.bias)
    return model, config


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny, tmp_path_factory):
    """The same as a checkpoint's folder, whose data are the synthetic pictures."""
    model, config = tiny
    checkpoint = Checkpoint(
        config=config,
        class_names=CLASS_NAMES,
        data="synthetic",
        data_fingerprint="0123456789abcdef",
        epoch=3,
        metrics={"map_11pt": 0.5, "ap_11pt/circle": 0.25},
        history=(),
        weights=model.state_dict(),
    )
    folder = tmp_path_factory.mktemp("experiment") / "best_checkpoint"
    save_checkpoint(folder, checkpoint)
    return folder


@pytest.fixture
def draw():
    """Draws a picture: (H, W, 3) uint8 noise."""
    rng = np.random.default_rng(0)
    return lambda height, width: rng.integers(0, 256, (height, width, 3), dtype=np.uint8)

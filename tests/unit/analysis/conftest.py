"""A detector and pictures on which a training step takes some milliseconds."""

import pytest
import torch

from ssd_dist.config import Config, ModelConfig
from ssd_dist.data.cache import open_cache
from ssd_dist.data.dataset import DetectionDataset
from ssd_dist.data.synthetic import synthetic_split
from ssd_dist.model.ssd import SSD, build_model


@pytest.fixture(scope="session")
def small_config() -> Config:
    return Config(
        model=ModelConfig(
            backbone="test_resnet.r160_in1k",
            image_size=64,
            feature_strides=(8, 16),
            neck_channels=32,
            num_extra_maps=1,
        )
    )


@pytest.fixture(scope="session")
def small_dataset(small_config, tmp_path_factory) -> DetectionDataset:
    split = synthetic_split("train", num_images=8)
    cache = open_cache(split, 96, tmp_path_factory.mktemp("pictures"))
    return DetectionDataset(split, cache, 64, small_config.data.augmentation, seed=0)


@pytest.fixture
def small_model(small_config, small_dataset) -> SSD:
    torch.manual_seed(0)
    return build_model(small_config.model, len(small_dataset.split.class_names))


@pytest.fixture(
    scope="session",
    params=[
        ModelConfig(architecture="ssd300_vgg16", image_size=300),
        ModelConfig(architecture="ssdlite320_mobilenet_v3_large", image_size=320),
        ModelConfig(image_size=64, num_extra_maps=0),
    ],
    ids=lambda config: config.architecture,
)
def shipped_model(request) -> SSD:
    """A model of each architecture, without memory: shapes and operations, but no arithmetic."""
    with torch.device("meta"):
        return build_model(request.param, num_classes=3)

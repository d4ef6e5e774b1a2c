"""What the timing measures in processes of their own: data-parallel steps, and memory."""

import pytest
import torch

from ssd_dist.analysis.processes import peak_training_memory, time_processes
from ssd_dist.config import load_config, replace_at
from ssd_dist.model.ssd import build_model
from ssd_dist.training import open_dataset


@pytest.fixture
def config(tiny_config):
    return load_config(tiny_config)


@pytest.fixture
def dataset(config, voc_root):
    return open_dataset(config, str(voc_root), "train", training=True)


def test_processes_train_together_and_apart(config, dataset):
    times = time_processes(
        config,
        len(dataset.split.class_names),
        dataset,
        batch_size=4,
        num_processes=2,
        precisions=["fp32", "bf16"],
        num_steps=2,
    )
    assert set(times) == {"fp32", "bf16"}
    for steps in times.values():
        assert len(steps.together) == len(steps.apart) == 2
        assert min(steps.together + steps.apart) > 0


def test_the_peak_holds_weights_gradients_and_momentum(config, dataset):
    config = replace_at(
        config,
        {
            "model.neck_channels": 768,
            "model.num_extra_maps": 1,
            "optimizer.name": "sgd",
            "optimizer.ema_decay": 0.0,
        },
    )
    num_classes = len(dataset.split.class_names)
    with torch.device("meta"):
        model = build_model(config.model, num_classes)
    weights = 4 * sum(p.numel() for p in model.parameters())
    assert weights > 2**24
    measured = peak_training_memory(config, num_classes, dataset, batch_size=2, num_threads=1)
    assert 3 * weights <= measured <= 3 * weights + 2**28

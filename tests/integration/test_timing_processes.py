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
    num_classes = len(dataset.split.class_names)

    def weights_and_peak(neck_channels):
        wide = replace_at(
            config,
            {
                "model.neck_channels": neck_channels,
                "model.num_extra_maps": 1,
                "optimizer.name": "sgd",
                "optimizer.ema_decay": 0.0,
            },
        )
        with torch.device("meta"):
            model = build_model(wide.model, num_classes)
        weights = 4 * sum(p.numel() for p in model.parameters())
        return weights, peak_training_memory(
            wide, num_classes, dataset, batch_size=2, num_threads=1
        )

    # What a training and its libraries take besides differs from machine to machine: the difference
    # of two is looked at.
    (small, with_small), (large, with_large) = weights_and_peak(256), weights_and_peak(1280)
    # Besides these three, convolutions hold weights and gradients in orders of their own.
    assert 3 * (large - small) <= with_large - with_small <= 12 * (large - small)

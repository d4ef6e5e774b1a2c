"""What the integration tests share: a small data set of real files, and a Ray of their own."""

import os
from pathlib import Path

import pytest
import torch
import yaml
from clusters import start_ray
from running import RAY
from voc_files import write_voc

from ssd_dist.checkpoint import Checkpoint, save_checkpoint
from ssd_dist.config import load_config, replace_at
from ssd_dist.model.ssd import build_model


@pytest.fixture(scope="session")
def voc_root(tmp_path_factory) -> Path:
    """A PASCAL VOC folder of 40 synthetic pictures as files."""
    return write_voc(tmp_path_factory.mktemp("data") / "VOC")


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory) -> Path:
    """A configuration whose epoch takes a second."""
    path = tmp_path_factory.mktemp("configs") / "tiny.yaml"
    config = {
        "lr": 1e-3,
        "epochs": 3,
        "global_batch_size": 8,
        "model": {
            "backbone": "test_resnet.r160_in1k",
            "image_size": 64,
            "feature_strides": [8, 16],
            "neck_channels": 16,
            "num_extra_maps": 0,
        },
        "optimizer": {"name": "adamw", "ema_decay": 0.9},
        "search": {
            "trials": 4,
            "grace_epochs": 1,
            "repeats": {"top_k": 0},  # see test_search_repeats.py
            "space": {
                "alpha": {"low": 0.1, "high": 10, "log": True},
                "l2_lambda": {"low": 1e-6, "high": 1e-2, "log": True},
                "lr": {"low": 1e-5, "high": 1e-2, "log": True},
            },
        },
    }
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="session")
def random_checkpoint(tiny_config, tmp_path_factory) -> Path:
    """The folder of a detector with random weights, which finds something everywhere."""
    changes = {"model.weights": "none", "postprocess.score_threshold": 0}
    config = replace_at(load_config(tiny_config), changes)
    torch.manual_seed(0)
    model = build_model(config.model, 2, load_weights=False)
    folder = tmp_path_factory.mktemp("detector") / "checkpoint"
    save_checkpoint(
        folder,
        Checkpoint(
            config=config, class_names=("cat", "dog"), data="synthetic", data_fingerprint="",
            epoch=1, metrics={}, history=(), weights=model.state_dict(),
        ),
    )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict[str, str]:
    """Environment of the tests' processes: no Ray but their own, caches of their own."""
    folder = tmp_path_factory.mktemp("environment")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return {
        **inherited,
        # As an activated virtual environment: a submitted job asks for `python`.
        "PATH": os.pathsep.join([str(RAY.parent), os.environ["PATH"]]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(_token(folder)),
        "SSD_DIST_CACHE": str(folder / "cache"),
    }


@pytest.fixture(scope="session")
def ray_server(environment):
    """A Ray head of two cores; its processes are ended by their ids."""
    with start_ray(environment, num_cpus=2) as server:
        yield server


def _token(folder: Path) -> Path:
    path = folder / "token"
    path.write_text("0123456789abcdef" * 4)
    return path

"""What the integration tests share: a small data set of real files, and a Ray of their own."""

import os
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
import yaml
from clusters import start_ray
from PIL import Image
from running import RAY

from ssd_dist.data.synthetic import synthetic_split

SPLIT_SIZES = {"train": 24, "val": 8, "test": 8}


@pytest.fixture(scope="session")
def voc_root(tmp_path_factory) -> Path:
    """A PASCAL VOC folder of 40 synthetic pictures as files."""
    root = tmp_path_factory.mktemp("data") / "VOC"
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    for name, num_images in SPLIT_SIZES.items():
        split = synthetic_split(name, num_images=num_images)
        ids = []
        for index, annotation in enumerate(split.annotations):
            stem = f"{name}_{index:03d}"
            ids.append(stem)
            Image.fromarray(split.read_image(index)).save(root / "JPEGImages" / f"{stem}.jpg")
            objects = "".join(
                f"<object><name>{escape(split.class_names[label - 1])}</name>"
                "<difficult>0</difficult><bndbox>"
                + "".join(
                    f"<{side}>{value}</{side}>"
                    for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
                )
                + "</bndbox></object>"
                for box, label in zip(annotation.boxes_xyxy, annotation.labels, strict=True)
            )
            (root / "Annotations" / f"{stem}.xml").write_text(
                f"<annotation><filename>{stem}.jpg</filename>{objects}</annotation>"
            )
        (root / "ImageSets/Main" / f"{name}.txt").write_text("\n".join(ids))
    return root


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

"""`model.priors: fitted`, and `python -m ssd_dist.data priors`."""

from __future__ import annotations

import re

import pytest
import torch
import yaml
from formats import SPLITS, WRITE

from ssd_dist.checkpoint import load_checkpoint
from ssd_dist.config import Config, from_mapping, replace_at, to_mapping
from ssd_dist.data.__main__ import run
from ssd_dist.data.fitted_priors import fitted_model, with_fitted_priors
from ssd_dist.data.readers import open_split
from ssd_dist.engine import Worker
from ssd_dist.model.ssd import build_model
from ssd_dist.training import train

SMALL = replace_at(
    Config(),
    {
        "epochs": 1,
        "global_batch_size": 2,
        "model.backbone": "test_resnet.r160_in1k",
        "model.image_size": 64,
        "model.feature_strides": [8, 16],
        "model.neck_channels": 16,
        "model.num_extra_maps": 1,
        "model.priors": "fitted",
    },
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("SSD_DIST_CACHE", str(tmp_path / "cache"))
    WRITE["yolo"](tmp_path / "data", SPLITS)
    return tmp_path / "data"


def test_the_configuration_then_holds_numbers(root):
    fitted = with_fitted_priors(SMALL, str(root))
    assert fitted.model.priors == "given"
    assert len(fitted.model.prior_scales) == 4  # three maps, and what follows the last
    assert len(fitted.model.aspect_ratios) == 2
    assert fitted == with_fitted_priors(SMALL, str(root))
    assert with_fitted_priors(fitted, "nowhere") is fitted
    assert from_mapping(to_mapping(fitted)) == fitted


def test_a_checkpoint_needs_no_data(root, tmp_path):
    config = with_fitted_priors(SMALL, str(root))
    cpu = Worker(torch.device("cpu"))
    train(config, str(root), cpu, lambda epoch: epoch.save(tmp_path / "saved"))
    saved = load_checkpoint(tmp_path / "saved")
    assert saved.config == config
    again = build_model(saved.config.model, 2, load_weights=False)
    assert torch.equal(
        again.priors_cxcywh, build_model(config.model, 2, load_weights=False).priors_cxcywh
    )


def test_without_boxes_no_model_is_built():
    with pytest.raises(ValueError, match=r"model\.priors: fitted takes training boxes"):
        build_model(SMALL.model, 2)


@pytest.mark.parametrize("name", ["ssd300_vgg16", "ssdlite320_mobilenet_v3_large"])
def test_torchvisions_heads_keep_their_ratios(name):
    config = replace_at(SMALL, {"model.architecture": name, "model.image_size": 320})
    annotations = open_split("synthetic", "val").annotations
    fitted = fitted_model(config.model, annotations)
    assert fitted.aspect_ratios == config.model.aspect_ratios
    built = build_model(fitted, 2, load_weights=False)
    assert len(fitted.prior_scales) == len(built.feature_sizes) + 1


def test_no_object_that_counts(root):
    annotations = open_split(root, "train").annotations[2:3]
    with pytest.raises(ValueError, match="there is no object that counts"):
        fitted_model(SMALL.model, annotations)


def test_command(root, tmp_path, capsys):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(to_mapping(SMALL)))
    assert run(["priors", str(root), "--config", str(path)]) == 0
    said = capsys.readouterr().out
    (scales,) = re.findall(r"  prior_scales: (\[.*\])", said)
    (ratios,) = re.findall(r"  aspect_ratios: (\[.*\])", said)
    fitted = with_fitted_priors(SMALL, str(root)).model
    assert tuple(yaml.safe_load(scales)) == fitted.prior_scales
    assert tuple(yaml.safe_load(ratios)) == fitted.aspect_ratios
    assert "no prior before" in said
    assert "val, which had no part in it" in said
    assert run(["check", str(root), "--config", str(path)]) == 0

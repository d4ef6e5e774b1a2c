"""How much of a detector's cost is measured, and on what."""

import dataclasses

import pytest
import torch

from ssd_dist.config import Config, ModelConfig
from ssd_dist.data.synthetic import synthetic_split
from ssd_dist.model.ssd import build_model
from ssd_dist.report import analyse as analyse_module
from ssd_dist.report.analyse import analyse

NUM_PICTURES = 3


@pytest.fixture
def analysed(tmp_path, monkeypatch):
    """Analyses a tiny detector on three pictures."""
    monkeypatch.setenv("SSD_DIST_CACHE", str(tmp_path / "cache"))
    config = Config(
        global_batch_size=8,
        model=ModelConfig(
            backbone="test_resnet.r160_in1k",
            image_size=64,
            feature_strides=(8, 16),
            neck_channels=16,
            num_extra_maps=0,
        ),
    )
    split = synthetic_split("test", num_images=NUM_PICTURES)
    model = build_model(config.model, len(split.class_names), load_weights=False)

    def run(scope):
        return analyse(
            model,
            config,
            split,
            torch.device("cpu"),
            scope=scope,
            out_dir=tmp_path / "report",
            data_name="synthetic, test",
        )

    return run


def test_none_counts_and_times_a_picture_alone(analysed, tmp_path):
    found = analysed("none")
    assert found.complexity["total_macs"] > 0
    assert found.timing.keys() == {
        "device",
        "num_threads",
        "inference_ms_per_image",
        "num_inferences",
    }
    assert found.timing["num_inferences"] == NUM_PICTURES
    assert found.timing["inference_ms_per_image"]["median"] > 0
    assert found.law is None
    assert not (tmp_path / "report").exists()


def test_what_is_counted_is_a_whole_batch(analysed):
    assert analysed("none").complexity["training"]["batch_size"] == 8


@pytest.mark.parametrize(("num_pictures", "accumulation"), [(1, 1), (3, 2)])
def test_pictures_that_batch_norm_would_meet_one_by_one(
    tmp_path, monkeypatch, num_pictures, accumulation
):
    monkeypatch.setenv("SSD_DIST_CACHE", str(tmp_path / "cache"))
    # Its last map has one cell, of which a single picture has no variance.
    model_config = ModelConfig(architecture="ssdlite320_mobilenet_v3_large", image_size=320)
    config = Config(global_batch_size=4, accumulation=accumulation, model=model_config)
    split = synthetic_split("test", num_images=num_pictures)
    model = build_model(config.model, len(split.class_names), load_weights=False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lines = []

    def run(config):
        return analyse(
            model, config, split, torch.device("cpu"), scope="quick", out_dir=tmp_path,
            data_name="synthetic, test", on_progress=lines.append,
        )  # fmt: skip

    found = run(config)
    assert found.timing["inference_ms_per_image"]["median"] > 0
    assert "train_step_ms" not in found.timing
    assert found.timing["left_out"].startswith("the training step was left out: ")
    assert lines == [f"timing: {found.timing['left_out']}"]
    assert found.complexity["training"]["batch_size"] == 4
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    if num_pictures > 1:  # the same pictures, met together
        monkeypatch.setattr(analyse_module, "measure_timing", lambda *a, **k: _Measured())
        assert run(dataclasses.replace(config, accumulation=1)).timing == _Measured().to_json()


class _Measured:
    def to_json(self):
        return {"measured": "timing"}


@pytest.mark.parametrize(("scope", "is_full"), [("quick", False), ("full", True)])
def test_only_full_measures_devices_and_the_law(
    analysed, monkeypatch, tmp_path, make_law, scope, is_full
):
    asked = {}

    def measure_timing(*arguments, **options):
        asked.update(options)
        return _Measured()

    law = make_law(lambda weights, macs, bytes_: 3e-8 * macs)
    monkeypatch.setattr(analyse_module, "measure_timing", measure_timing)
    monkeypatch.setattr(analyse_module, "measure_law", lambda **options: law)
    found = analysed(scope)
    assert found.timing == {"measured": "timing"}
    assert asked["with_devices"] == is_full
    assert asked["trace"] == tmp_path / "report" / "trace.json"
    assert asked["batch_size"] == len(asked["dataset"]) == NUM_PICTURES
    assert asked["predicted_bytes"] is None  # that of a whole batch
    # Real pictures, and in training varied ones.
    assert asked["dataset"][0].image.float().std() > 1
    assert not torch.equal(asked["dataset"][0].image, asked["dataset"][(0, 0)].image)
    assert (found.law == law.to_json()) if is_full else (found.law is None)

"""How much of a detector's cost is measured, and on what."""

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


def test_a_batch_has_no_more_pictures_than_there_are(analysed):
    assert analysed("none").complexity["training"]["batch_size"] == NUM_PICTURES


@pytest.mark.parametrize(("scope", "is_full"), [("quick", False), ("full", True)])
def test_only_full_measures_devices_and_the_law(
    analysed, monkeypatch, tmp_path, make_law, scope, is_full
):
    asked = {}

    class Measured:
        def to_json(self):
            return {"measured": "timing"}

    def measure_timing(*arguments, **options):
        asked.update(options)
        return Measured()

    law = make_law(lambda weights, macs, bytes_: 3e-8 * macs)
    monkeypatch.setattr(analyse_module, "measure_timing", measure_timing)
    monkeypatch.setattr(analyse_module, "measure_law", lambda **options: law)
    found = analysed(scope)
    assert found.timing == {"measured": "timing"}
    assert asked["with_devices"] == is_full
    assert asked["trace"] == tmp_path / "report" / "trace.json"
    assert asked["batch_size"] == len(asked["dataset"]) == NUM_PICTURES
    assert asked["predicted_bytes"] == found.complexity["training"]["memory"]["peak"]
    # Real pictures, and in training varied ones.
    assert asked["dataset"][0].image.float().std() > 1
    assert not torch.equal(asked["dataset"][0].image, asked["dataset"][(0, 0)].image)
    assert (found.law == law.to_json()) if is_full else (found.law is None)

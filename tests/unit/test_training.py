"""Trainings on the edge: hardly any objects, or a learning rate that no training survives."""

import math
import multiprocessing
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from ssd_dist.checkpoint import load_checkpoint
from ssd_dist.config import Config, replace_at
from ssd_dist.divergence import NonFiniteLossError
from ssd_dist.engine import Worker
from ssd_dist.interruption import TrainingInterruptedError
from ssd_dist.training import prepare, train

CPU = Worker(torch.device("cpu"))
TINY = replace_at(
    Config(),
    {
        "lr": 1e-3,
        "epochs": 2,
        "global_batch_size": 4,
        "data.class_names": ["common", "rare"],
        "model.backbone": "test_resnet.r160_in1k",
        "model.image_size": 64,
        "model.feature_strides": [8, 16],
        "model.neck_channels": 16,
        "model.num_extra_maps": 2,
        "optimizer.ema_decay": 0.9,
    },
)


@pytest.fixture
def make_root(tmp_path, monkeypatch):
    """Makes a VOC folder of two splits of 8 pictures; takes the classes of picture 0, 1, … of each,
    the others having no objects."""
    monkeypatch.setenv("SSD_DIST_CACHE", str(tmp_path / "cache"))

    def make(train=(), val=()) -> str:
        root = tmp_path / "VOC"
        for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
            (root / folder).mkdir(parents=True)
        for split, classes in {"train": train, "val": val}.items():
            stems = [f"{split}-{index}" for index in range(8)]
            (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(stems))
            for index, stem in enumerate(stems):
                _write_picture(root, stem, classes[index] if index < len(classes) else None)
        return str(root)

    return make


def _write_picture(root: Path, stem: str, name: str | None) -> None:
    picture = Image.new("RGB", (64, 64), "grey")
    box = "<xmin>16</xmin><ymin>16</ymin><xmax>48</xmax><ymax>48</ymax>"
    found = f"<object><name>{name}</name><bndbox>{box}</bndbox></object>" if name else ""
    if name:
        ImageDraw.Draw(picture).ellipse((15, 15, 47, 47), "red" if name == "common" else "blue")
    picture.save(root / f"JPEGImages/{stem}.jpg")
    text = f"<annotation><filename>{stem}.jpg</filename>{found}</annotation>"
    (root / f"Annotations/{stem}.xml").write_text(text)


def run(config, data, folder, **options):
    """The metrics of the epochs, each of which saved its checkpoint."""
    epochs = []

    def on_epoch(report):
        epochs.append(report.metrics)
        report.save(folder / f"epoch_{len(epochs)}")

    train(config, data, CPU, on_epoch, **options)
    return epochs


def assert_finite(epochs):
    assert len(epochs) == TINY.epochs
    assert all(math.isfinite(value) for epoch in epochs for value in epoch.values())


def test_no_objects_to_learn_from(make_root, tmp_path):
    """N of Eq. 1 is 0 in every batch."""
    root = make_root([], ["common"] * 8)
    prepare(TINY, root)
    epochs = run(TINY, root, tmp_path)
    assert_finite(epochs)
    assert [epoch["loss"] for epoch in epochs] == [0, 0]
    assert [epoch["gradient_norm"] for epoch in epochs] == [0, 0]


def test_no_objects_to_validate_with(make_root):
    with pytest.raises(
        ValueError, match=r"VOC: the split 'val' has no object that counts"
    ) as error:
        prepare(TINY, make_root(["common"] * 8))
    assert "\n" not in str(error.value)


def test_a_batch_without_objects_beside_one_with(make_root, tmp_path):
    epochs = run(TINY, make_root(["common"], ["common"]), tmp_path)
    assert_finite(epochs)
    assert all(epoch["loss"] > 0 for epoch in epochs)


def test_a_class_with_one_object(make_root, tmp_path):
    epochs = run(TINY, make_root(["rare", *["common"] * 7], ["common"] * 8), tmp_path)
    assert_finite(epochs)
    assert "ap_11pt/common" in epochs[0]
    assert "ap_11pt/rare" not in epochs[0]  # the validation has none of it


@pytest.mark.parametrize("norm", ["batch", "frozen", "none"])
def test_one_picture_at_a_time(make_root, tmp_path, norm):
    config = replace_at(TINY, {"global_batch_size": 1, "model.norm": norm})
    assert_finite(run(config, make_root(["common"] * 8, ["common"] * 8), tmp_path))


def test_synchronised_normalisation_is_refused_on_a_cpu(make_root, tmp_path):
    config = replace_at(TINY, {"model.norm": "sync"})
    with pytest.raises(ValueError, match=r"model\.norm: sync needs GPUs; on CPUs use batch"):
        run(config, make_root(["common"] * 8, ["common"] * 8), tmp_path)


NO_CLIP = {"lr": 10.0, "epochs": 20, "optimizer.gradient_clip": None}


def test_a_learning_rate_of_ten_ends_in_words(make_root):
    config = replace_at(TINY, {**NO_CLIP, "optimizer.name": "sgd"})
    reports = []
    with pytest.raises(
        NonFiniteLossError, match=r"^loss (nan|inf) .*\(lr \d.*, pictures train-"
    ) as e:
        train(config, make_root(["common"] * 8, ["common"] * 8), CPU, reports.append)
    assert "\n" not in str(e.value)
    assert all(math.isfinite(v) for report in reports for v in report.metrics.values())


def test_a_learning_rate_of_ten_that_is_survived_leaves_numbers(make_root, tmp_path):
    config = replace_at(TINY, {"lr": 10.0, "optimizer.name": "adamw"})  # clipped, and scaled
    assert_finite(run(config, make_root(["common"] * 8, ["common"] * 8), tmp_path))


@pytest.mark.parametrize(("stop_after", "num_started"), [(math.inf, 4), (1, 2), (5, 4)])
def test_loader_processes_end_with_the_training(make_root, tmp_path, stop_after, num_started):
    """At its end, or where it is asked to stop within an epoch: before the first validation, which
    has two of its own, or after it."""
    root = make_root(["common"] * 8, ["common"] * 8)
    steps, seen = [], []

    def check_in():
        steps.append(1)
        seen.append({process.pid for process in multiprocessing.active_children()})
        return len(steps) > stop_after

    metrics = []
    for num_processes in (0, 2):
        steps.clear()
        config = replace_at(TINY, {"data.num_loader_processes": num_processes})
        folder = tmp_path / str(num_processes)
        try:
            metrics.append(run(config, root, folder, check_in=check_in))
        except TrainingInterruptedError as interrupted:
            interrupted.save(folder / "epoch_2")
    assert len(set.union(*seen)) == num_started
    assert not multiprocessing.active_children()
    inline, loaded = (load_checkpoint(tmp_path / name / "epoch_2").weights for name in "02")
    assert all(torch.equal(loaded[name], weight) for name, weight in inline.items())


def test_another_model_s_checkpoint_is_not_resumed(make_root, tmp_path):
    root = make_root(["common"] * 8, ["common"] * 8)
    run(replace_at(TINY, {"epochs": 1}), root, tmp_path)
    other = replace_at(TINY, {"model.neck_channels": 24})
    with pytest.raises(ValueError, match=r"epoch_1: the weights of another model: of \d+ tensors"):
        run(other, root, tmp_path, resume=tmp_path / "epoch_1")


def test_a_checkpoint_of_other_classes_is_not_resumed(make_root, tmp_path):
    root = make_root(["common", "rare"] * 4, ["common"] * 8)
    names = "data.class_names"
    run(replace_at(TINY, {"epochs": 1, names: None}), root, tmp_path)
    message = "epoch_1: a training of the classes common, rare, and the data now has rare, common:"
    reordered = replace_at(TINY, {names: ["rare", "common"]})
    with pytest.raises(ValueError, match=message):
        run(reordered, root, tmp_path, resume=tmp_path / "epoch_1")
    for file in Path(root, "Annotations").iterdir():
        file.write_text(file.read_text().replace("common", "usual"))
    with pytest.raises(
        ValueError, match=r"of the classes common, rare, and .* now has rare, usual"
    ):
        run(replace_at(TINY, {names: None}), root, tmp_path, resume=tmp_path / "epoch_1")


def test_a_resumed_training_tells_that_its_data_has_changed(make_root, tmp_path):
    root = make_root(["common"] * 8, ["common"] * 8)
    told = []
    run(replace_at(TINY, {"epochs": 1}), root, tmp_path, tell=told.append)
    run(TINY, root, tmp_path / "same", resume=tmp_path / "epoch_1", tell=told.append)
    assert told == []
    _write_picture(Path(root), "train-0", "rare")
    run(TINY, root, tmp_path / "other", resume=tmp_path / "epoch_1", tell=told.append)
    [note] = told
    assert note.startswith("the training data is not what it was")


@pytest.mark.parametrize("changes", [{}, {"optimizer.ema_decay": 0.0, "optimizer.name": "sgd"}])
def test_a_resumed_training_ends_as_the_undisturbed_one(make_root, tmp_path, changes):
    config = replace_at(TINY, changes)
    root = make_root(["common"] * 8, ["common"] * 8)
    run(config, root, tmp_path / "whole")
    run(config, root, tmp_path / "resumed", resume=tmp_path / "whole" / "epoch_1")
    whole = load_checkpoint(tmp_path / "whole" / "epoch_2").weights
    resumed = load_checkpoint(tmp_path / "resumed" / "epoch_1").weights
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())

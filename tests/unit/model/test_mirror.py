import pytest
import torch

from ssd_dist.config import ModelConfig
from ssd_dist.model.mirror import averaged_output, mirrored_order
from ssd_dist.model.ssd import build_model
from ssd_dist.ops.boxes import decode

CONFIG = ModelConfig(
    backbone="test_resnet.r160_in1k", image_size=64, feature_strides=(8, 16), num_extra_maps=1
)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(CONFIG, 3).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(1)).byte()


def boxes_and_probabilities(model, images, mirror):
    with torch.inference_mode():
        loc, conf = averaged_output(model, images, mirror)
    return decode(loc, model.priors_cxcywh), conf.softmax(-1)


def test_none_is_the_network_itself(model, images):
    with torch.inference_mode():
        for ours, plain in zip(averaged_output(model, images, "none"), model(images), strict=True):
            assert torch.equal(ours, plain)


@pytest.mark.parametrize(("mirror", "axis"), [("horizontal", 0), ("both", 0), ("both", 1)])
def test_a_mirrored_picture_gives_mirrored_detections(mirror, axis, model, images):
    boxes, probabilities = boxes_and_probabilities(model, images, mirror)
    turned, turned_probabilities = boxes_and_probabilities(model, images.flip(3 - axis), mirror)
    order = mirrored_order(model, axis)
    back = turned[:, order].clone()
    back[..., [axis, axis + 2]] = 1 - back[..., [axis + 2, axis]]
    assert torch.allclose(back, boxes, atol=1e-5)
    assert torch.allclose(turned_probabilities[:, order], probabilities, atol=1e-6)


def test_it_is_the_mean_of_both_views(model, images):
    _, averaged = boxes_and_probabilities(model, images, "horizontal")
    _, first = boxes_and_probabilities(model, images, "none")
    _, second = boxes_and_probabilities(model, images.flip(3), "none")
    expected = (first + second[:, mirrored_order(model, 0)]) / 2
    assert torch.allclose(averaged, expected, atol=1e-6)


def test_priors_that_are_not_symmetric_are_refused():
    ssd300 = build_model(ModelConfig(architecture="ssd300_vgg16", image_size=300), 2)
    with pytest.raises(ValueError, match="mirror"):
        mirrored_order(ssd300, 0)

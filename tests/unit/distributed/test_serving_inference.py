"""A replica's work: encoded pictures to detections in their pixels, the broken ones told."""

import io

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from ssd_dist.checkpoint import Checkpoint
from ssd_dist.config import from_mapping
from ssd_dist.data.single import network_input
from ssd_dist.distributed.serving_inference import Decoded, PictureDetector, Refusal
from ssd_dist.engine import detect_in
from ssd_dist.model.ssd import build_model

CONFIG = from_mapping(
    {
        "model": {
            "backbone": "test_resnet.r160_in1k",
            "image_size": 64,
            "feature_strides": [8, 16],
            "neck_channels": 16,
            "num_extra_maps": 0,
            "weights": "none",
        },
        "postprocess": {"score_threshold": 0.0, "max_detections": 5},
    },
    source="here",
)


@pytest.fixture(scope="module")
def checkpoint():
    torch.manual_seed(0)
    model = build_model(CONFIG.model, 2, load_weights=False)
    return Checkpoint(
        config=CONFIG, class_names=("a", "b"), data="synthetic", data_fingerprint="",
        epoch=1, metrics={}, history=(), weights=model.state_dict(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def detector(checkpoint):
    threads = torch.get_num_threads()
    yield PictureDetector(checkpoint, "cpu", max_pixels=10_000)
    torch.set_num_threads(threads)


def picture(seed, size=(100, 80)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(image, **options):
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def test_it_is_the_evaluation_s_work_on_each_picture(detector, checkpoint):
    model = build_model(CONFIG.model, 2, load_weights=False)
    model.load_state_dict(checkpoint.weights)
    images = [picture(seed) for seed in range(3)]
    answers = detector.detect([detector.decode(encoded(image)) for image in images])
    for image, answer in zip(images, answers, strict=True):
        call = network_input(np.asarray(image), 64).unsqueeze(0)
        [(boxes, labels, scores)] = detect_in(model.eval(), call, CONFIG)
        assert (answer.width, answer.height, answer.batch_size) == (100, 80, 3)
        np.testing.assert_allclose(answer.scores, scores, atol=1e-5)
        assert np.array_equal(answer.labels, labels)
        sides = np.array([100, 80, 100, 80])
        np.testing.assert_allclose(answer.boxes_xyxy, boxes.numpy() * sides, atol=0.01)
        assert np.all(np.diff(answer.scores) <= 0)


def test_a_picture_s_batch_does_not_change_what_is_found(detector):
    one, other = (detector.decode(encoded(picture(seed))) for seed in range(2))
    [alone] = detector.detect([one])
    together = detector.detect([other, one])[1]
    np.testing.assert_allclose(together.scores, alone.scores, atol=1e-5)
    assert (alone.batch_size, together.batch_size) == (1, 2)


def test_what_is_no_picture_is_refused(detector):
    good, large = encoded(picture(0)), encoded(picture(1, (101, 100)))
    assert isinstance(detector.decode(good), Decoded)
    refusals = [detector.decode(content) for content in (b"none", good[:500], large)]
    assert all(type(one) is Refusal for one in refusals)
    assert all(one.sentence.startswith("the picture: ") for one in refusals)
    assert "101x100 pixels, and at most 10,000" in refusals[2].sentence


def test_boxes_are_of_the_picture_as_it_is_seen(detector):
    """The same picture, stored lying on its side with the orientation to tell."""
    image = picture(0)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    on_its_side = encoded(image.transpose(Image.Transpose.ROTATE_90), exif=exif)
    one, other = detector.detect([detector.decode(one) for one in (encoded(image), on_its_side)])
    assert (other.width, other.height) == (100, 80)
    np.testing.assert_allclose(one.boxes_xyxy, other.boxes_xyxy, atol=0.01)

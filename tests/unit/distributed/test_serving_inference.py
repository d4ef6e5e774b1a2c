"""A replica's work: encoded pictures to detections in their pixels, the broken ones told."""

import io

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from ssd_dist.checkpoint import Checkpoint
from ssd_dist.config import from_mapping
from ssd_dist.data.single import network_input
from ssd_dist.distributed.serving_inference import Answer, PictureDetector, Refusal
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


@pytest.fixture(scope="module", params=[1, 3], ids=["one thread", "three threads"])
def detector(request, checkpoint):
    threads = torch.get_num_threads()
    yield PictureDetector(checkpoint, "cpu", max_pixels=10_000, num_decoders=request.param)
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
    answers = detector.detect([encoded(image) for image in images])
    for image, answer in zip(images, answers, strict=True):
        call = network_input(np.asarray(image), 64).unsqueeze(0)
        [(boxes, labels, scores)] = detect_in(model.eval(), call, CONFIG)
        assert (answer.width, answer.height, answer.batch_size) == (100, 80, 3)
        np.testing.assert_allclose(answer.scores, scores, atol=1e-5)
        assert np.array_equal(answer.labels, labels)
        sides = np.array([100, 80, 100, 80])
        np.testing.assert_allclose(answer.boxes_xyxy, boxes.numpy() * sides, atol=0.01)
        assert np.all(np.diff(answer.scores) <= 0)


def test_a_broken_picture_spoils_no_other(detector):
    good = encoded(picture(0))
    large = encoded(picture(1, (101, 100)))
    [alone] = detector.detect([good])
    answers = detector.detect([b"none", good, good[:500], large, good])
    assert [type(one) for one in answers] == [Refusal, Answer, Refusal, Refusal, Answer]
    assert "101x100 pixels, and at most 10,000" in answers[3].sentence
    assert all(one.sentence.startswith("the picture: ") for one in answers if type(one) is Refusal)
    for one in (answers[1], answers[4]):
        np.testing.assert_allclose(one.scores, alone.scores, atol=1e-5)
        assert one.batch_size == 2
    assert [type(one) for one in detector.detect([b"none"])] == [Refusal]


def test_boxes_are_of_the_picture_as_it_is_seen(detector):
    """The same picture, stored lying on its side with the orientation to tell."""
    image = picture(0)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    on_its_side = encoded(image.transpose(Image.Transpose.ROTATE_90), exif=exif)
    one, other = detector.detect([encoded(image), on_its_side])
    assert (other.width, other.height) == (100, 80)
    np.testing.assert_allclose(one.boxes_xyxy, other.boxes_xyxy, atol=0.01)

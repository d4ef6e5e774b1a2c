import pytest
import torch
from torchvision.ops import batched_nms

from ssd_dist.ops.boxes import cxcywh_to_xyxy, decode, encode
from ssd_dist.ops.postprocess import detect

OPTIONS = {
    "score_threshold": 0.01,
    "nms_iou_threshold": 0.45,
    "max_candidates": 400,
    "max_detections": 200,
}


def logits(probabilities):
    return torch.tensor(probabilities).clamp(min=1e-6).log()


def test_by_hand():
    priors = torch.tensor(
        [[0.3, 0.3, 0.2, 0.2], [0.31, 0.3, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2], [0.5, 0.5, 0.1, 0.1]]
    )
    conf = logits([[[0.1, 0.9, 0.0], [0.2, 0.8, 0.0], [0.4, 0.0, 0.6], [0.995, 0.005, 0.0]]])
    [(boxes, labels, scores)] = detect(torch.zeros(1, 4, 4), conf, priors, **OPTIONS)
    # The second overlaps the first (same class), the fourth is below the threshold.
    assert labels.tolist() == [1, 2]
    assert scores.tolist() == pytest.approx([0.9, 0.6], abs=1e-4)
    assert torch.allclose(boxes, cxcywh_to_xyxy(priors[[0, 2]]), atol=1e-6)


def test_classes_do_not_suppress_each_other():
    priors = torch.tensor([[0.3, 0.3, 0.2, 0.2]])
    conf = logits([[[0.2, 0.5, 0.3]]])
    [(_, labels, _)] = detect(torch.zeros(1, 1, 4), conf, priors, **OPTIONS)
    assert labels.tolist() == [1, 2]


def random_outputs(seed, num_images=5, num_priors=80, num_classes=3):
    generator = torch.Generator().manual_seed(seed)
    priors = torch.rand(num_priors, 4, generator=generator) * 0.4 + 0.2
    loc = torch.randn(num_images, num_priors, 4, generator=generator)
    conf = torch.randn(num_images, num_priors, num_classes + 1, generator=generator) * 2
    return loc, conf, priors


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_torchvision_image_by_image(seed):
    loc, conf, priors = random_outputs(seed)
    found = detect(loc, conf, priors, **OPTIONS)
    for row, (boxes, labels, scores) in enumerate(found):
        probability = conf[row].softmax(-1)[:, 1:]
        all_boxes = decode(loc[row], priors).clamp(0, 1)
        candidates = probability.flatten().topk(min(400, probability.numel()))
        prior, column = candidates.indices // 3, candidates.indices % 3
        keep = candidates.values > 0.01
        sides = all_boxes[prior][:, 2:] - all_boxes[prior][:, :2]
        keep &= (sides > 0).all(1)
        prior, column, value = prior[keep], column[keep], candidates.values[keep]
        kept = batched_nms(all_boxes[prior], value, column, 0.45)[:200]
        assert torch.allclose(boxes, all_boxes[prior][kept], atol=1e-6)
        assert torch.equal(labels, column[kept] + 1)
        assert torch.allclose(scores, value[kept])


def test_result_does_not_depend_on_the_batch():
    loc, conf, priors = random_outputs(7)
    together = detect(loc, conf, priors, **OPTIONS)
    for row in range(len(loc)):
        [alone] = detect(loc[row : row + 1], conf[row : row + 1], priors, **OPTIONS)
        for first, second in zip(alone, together[row], strict=True):
            assert torch.equal(first, second)


@pytest.mark.parametrize("num_candidates", [5, 400])
@pytest.mark.parametrize("candidates_of", ["image", "class"])
def test_equal_scores_do_not_depend_on_the_batch(num_candidates, candidates_of):
    """Of a picture a few hundred pairs are above the threshold, many with the same score; beside it
    come pictures that have more, or nearly all."""
    options = {**OPTIONS, "max_candidates": num_candidates, "candidates_of": candidates_of}
    loc, conf, priors = random_outputs(7, num_priors=2000)
    conf[..., 0] += torch.tensor([30.0, 4.0, 2.0, 12.0, 12.0]).unsqueeze(1)
    conf[0, ::5] = conf[1, :4].repeat(100, 1)
    [alone] = detect(loc[:1], conf[:1], priors, **options)
    assert len(alone[2].unique()) < len(alone[2])
    for others in [1], [2], [3, 4], [1, 2, 3, 4]:
        rows = [*others, 0]
        *_, together = detect(loc[rows], conf[rows], priors, **options)
        for first, second in zip(alone, together, strict=True):
            assert torch.equal(first, second)


def test_of_equal_scores_the_first_are_taken():
    priors = torch.tensor([[0.5, 0.5, 0.01, 0.01]]).repeat(3000, 1)
    priors[:, 0] = torch.linspace(0.02, 0.98, 3000)
    conf = logits([[[0.5, 0.5]] * 3000])
    options = {**OPTIONS, "nms_iou_threshold": 1.0, "max_candidates": 40}
    [(boxes, _, _)] = detect(torch.zeros(1, 3000, 4), conf, priors, **options)
    assert torch.allclose(boxes, cxcywh_to_xyxy(priors[:40]), atol=1e-6)


def test_logits_that_are_no_numbers_are_no_detections():
    loc, conf, priors = random_outputs(3)
    conf[:, ::2] = torch.nan
    some = detect(loc, conf, priors, **OPTIONS)
    rest = detect(loc[:, 1::2], conf[:, 1::2], priors[1::2], **OPTIONS)
    for found, expected in zip(some, rest, strict=True):
        for first, second in zip(found, expected, strict=True):
            assert torch.equal(first, second)


def test_limits():
    loc, conf, priors = random_outputs(3)
    few = detect(loc, conf, priors, **{**OPTIONS, "max_detections": 2})
    assert all(len(scores) <= 2 for _, _, scores in few)
    none = detect(loc, conf, priors, **{**OPTIONS, "score_threshold": 1.0})
    assert all(len(scores) == 0 for _, _, scores in none)


def test_scores_fall_and_boxes_stay_inside():
    loc, conf, priors = random_outputs(4)
    for boxes, _, scores in detect(loc * 5, conf, priors, **OPTIONS):
        assert torch.equal(scores, scores.sort(descending=True).values)
        assert boxes.ge(0).all()
        assert boxes.le(1).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_encoded_truth_is_found_again():
    priors = torch.rand(30, 4) * 0.3 + 0.3
    box = torch.tensor([0.2, 0.3, 0.6, 0.7])
    conf = logits([[[0.999, 0.001]] * 29 + [[0.05, 0.95]]])
    loc = encode(box.expand(1, 30, 4), priors)
    [(boxes, _, _)] = detect(loc, conf, priors, **OPTIONS)
    assert torch.allclose(boxes[0], box, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_candidates_of_each_class_as_in_torchvision(seed):
    loc, conf, priors = random_outputs(seed, num_priors=200)
    loc *= 0.1  # many boxes on one spot: NMS leaves few, and the search for more goes on
    options = {**OPTIONS, "max_candidates": 20, "max_detections": 40, "nms_iou_threshold": 0.2}
    found = detect(loc, conf, priors, candidates_of="class", **options)
    fewer = detect(loc, conf, priors, **options)
    assert any(len(a[2]) > len(b[2]) for a, b in zip(found, fewer, strict=True))
    for row, (boxes, labels, scores) in enumerate(found):
        probability = conf[row].softmax(-1)
        all_boxes = decode(loc[row], priors).clamp(0, 1)
        parts = []
        for label in range(1, 4):
            value, prior = probability[:, label].topk(20)
            prior, value = prior[value > 0.01], value[value > 0.01]
            parts.append((all_boxes[prior], value, torch.full_like(prior, label)))
        every_box, value, label = (torch.cat(part) for part in zip(*parts, strict=True))
        kept = batched_nms(every_box, value, label, 0.2)[:40]
        assert torch.allclose(boxes, every_box[kept], atol=1e-6)
        assert torch.equal(labels, label[kept])
        assert torch.allclose(scores, value[kept])

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from ssd_dist.ops import by_device, matching
from ssd_dist.ops.boxes import cxcywh_to_xyxy, decode, xyxy_to_cxcywh
from ssd_dist.ops.matching import IGNORED, match_priors
from ssd_dist.ops.priors import make_priors


def slow_match(boxes, labels, difficult, priors_cxcywh, threshold):
    """The rule word for word, one image, one pair at a time."""
    priors = cxcywh_to_xyxy(priors_cxcywh)
    present = [i for i in range(len(labels)) if labels[i] > 0]
    owner = [None] * len(priors)
    if present:
        iou = box_iou(boxes, priors)
        for p in range(len(priors)):
            best = max(present, key=lambda i: iou[i, p].item())
            if iou[best, p] >= threshold:
                owner[p] = best
        free = set(range(len(priors)))
        left = list(present)
        while left and free:
            i, p = max(
                ((i, p) for i in left for p in sorted(free)), key=lambda pair: iou[pair].item()
            )
            owner[p] = i
            left.remove(i)
            free.remove(p)
    return [0 if i is None else IGNORED if difficult[i] else int(labels[i]) for i in owner], owner


def random_case(seed, num_priors=40, num_objects=6):
    generator = torch.Generator().manual_seed(seed)
    priors = torch.rand(num_priors, 4, generator=generator) * 0.5 + 0.1
    low = torch.rand(num_objects, 2, generator=generator) * 0.7
    boxes = torch.cat([low, low + 0.05 + torch.rand(num_objects, 2, generator=generator) * 0.4], 1)
    labels = torch.randint(0, 4, (num_objects,), generator=generator)  # 0: padding in the middle
    difficult = torch.rand(num_objects, generator=generator) < 0.2
    return boxes, labels, difficult, priors


@pytest.mark.parametrize("seed", range(40))
def test_agrees_with_the_rule_word_for_word(seed):
    boxes, labels, difficult, priors = random_case(seed)
    expected, owner = slow_match(boxes, labels, difficult, priors, 0.5)
    targets = match_priors(boxes[None], labels[None], difficult[None], priors)
    assert targets.labels[0].tolist() == expected
    for p, i in enumerate(owner):
        if i is not None and not difficult[i]:
            assert torch.allclose(decode(targets.loc[0, p], priors[p]), boxes[i], atol=1e-5)


def test_a_batch_is_its_images():
    cases = [random_case(seed) for seed in range(5)]
    priors = cases[0][3]
    together = match_priors(
        torch.stack([c[0] for c in cases]),
        torch.stack([c[1] for c in cases]),
        torch.stack([c[2] for c in cases]),
        priors,
    )
    for row, (boxes, labels, difficult, _) in enumerate(cases):
        alone = match_priors(boxes[None], labels[None], difficult[None], priors)
        assert torch.equal(together.labels[row], alone.labels[0])
        assert torch.equal(together.loc[row], alone.loc[0])


@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.35, 0.5, 0.7, 1.0]))
@settings(max_examples=60, deadline=None)
def test_a_cpu_finds_what_a_gpu_finds(seed, threshold):
    """Which compares all pairs: objects from hundredths of the picture to all of it, some of which
    are priors themselves."""
    generator = torch.Generator().manual_seed(seed)
    priors = make_priors([(12, 12), (6, 6), (3, 3)], (0.1, 0.3, 0.6, 0.9), ((2.0,),) * 3)
    sides = 10 ** (torch.rand(2, 9, 2, generator=generator) * -2)
    low = torch.rand(2, 9, 2, generator=generator) * (1 - sides)
    boxes = torch.cat([low, low + sides], -1)
    own = torch.randint(len(priors), (2, 2), generator=generator)
    boxes[:, :2] = cxcywh_to_xyxy(priors[own])
    labels = torch.randint(0, 3, (2, 9), generator=generator)
    assert_same_as_on_a_gpu(boxes, labels, labels == 2, priors, threshold)


def assert_same_as_on_a_gpu(*arguments):
    here = match_priors(*arguments)
    with pytest.MonkeyPatch.context() as patch:
        for module in (by_device, matching):
            patch.setattr(module, "waits_for_nobody", lambda tensor: False)
        there = match_priors(*arguments)
    assert torch.equal(here.labels, there.labels)
    assert torch.equal(here.loc, there.loc)


@pytest.mark.parametrize(
    ("num_objects", "num_priors", "apart"),
    [(150, 1000, 0.1), (150, 1000, 0.0), (90, 70, 0.1)],  # the last: some go without
)
def test_a_crowd_in_one_place(num_objects, num_priors, apart):
    """Where a CPU asks for the outdone alone, a GPU for all: two algorithms, one result."""
    generator = torch.Generator().manual_seed(0)
    low = 0.4 + apart * torch.rand(2, num_objects, 2, generator=generator)
    boxes = torch.cat([low, low + 0.2], -1)
    boxes[1, ::2] = boxes[1, :1]
    labels = torch.randint(0, 9, (2, num_objects), generator=generator)
    priors = torch.rand(num_priors, 4, generator=generator) * 0.5 + 0.1
    assert_same_as_on_a_gpu(boxes, labels, labels == 8, priors, 0.5)


@given(st.integers(0, 10_000), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_every_object_gets_a_prior_of_its_own(seed, num_objects):
    boxes, _, _, priors = random_case(seed, num_objects=num_objects)
    labels = torch.arange(1, num_objects + 1)
    targets = match_priors(
        boxes[None], labels[None], torch.zeros(1, num_objects, dtype=torch.bool), priors
    )
    assert set(labels.tolist()) <= set(targets.labels[0].tolist())


def test_two_objects_on_one_spot_take_two_priors():
    priors = torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.8, 0.8, 0.2, 0.2]])
    boxes = cxcywh_to_xyxy(torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.31, 0.3, 0.2, 0.2]]))
    targets = match_priors(
        boxes[None], torch.tensor([[1, 2]]), torch.zeros(1, 2, dtype=torch.bool), priors
    )
    assert targets.labels.tolist() == [[1, 2]]


def test_threshold_is_inclusive():
    priors = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.25]])
    box = cxcywh_to_xyxy(priors[:1])
    labels, difficult = torch.tensor([[1]]), torch.zeros(1, 1, dtype=torch.bool)
    assert match_priors(box[None], labels, difficult, priors, 0.5).labels.tolist() == [[1, 1]]
    assert match_priors(box[None], labels, difficult, priors, 0.501).labels.tolist() == [[1, 0]]


def test_image_without_objects_is_all_background():
    priors = torch.rand(7, 4) * 0.5 + 0.2
    targets = match_priors(
        torch.zeros(1, 3, 4),
        torch.zeros(1, 3, dtype=torch.int64),
        torch.zeros(1, 3, dtype=torch.bool),
        priors,
    )
    assert targets.labels.eq(0).all()
    assert targets.loc.eq(0).all()


def test_more_objects_than_priors():
    priors = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    boxes = torch.rand(1, 4, 4).sort(-1).values[..., [0, 1, 2, 3]]
    labels = torch.tensor([[1, 2, 3, 0]])
    targets = match_priors(boxes, labels, torch.zeros(1, 4, dtype=torch.bool), priors)
    assert targets.labels.item() in (1, 2, 3)
    assert targets.loc.isfinite().all()


def test_loc_targets_are_zero_but_for_positives():
    boxes, labels, difficult, priors = random_case(3)
    targets = match_priors(boxes[None], labels[None], difficult[None], priors)
    assert targets.loc[targets.labels <= 0].eq(0).all()
    assert xyxy_to_cxcywh(boxes).shape == boxes.shape


def test_of_equal_overlaps_the_first_prior_is_the_objects_own():
    # All priors lie inside the object and have one size, so that they overlap it alike.
    priors = torch.tensor([[0.4, 0.4, 0.1, 0.1], [0.5, 0.5, 0.1, 0.1], [0.6, 0.6, 0.1, 0.1]])
    boxes = torch.tensor([[[0.2, 0.2, 0.8, 0.8]]])
    targets = match_priors(boxes, torch.tensor([[2]]), torch.zeros(1, 1, dtype=torch.bool), priors)
    assert targets.labels.tolist() == [[2, 0, 0]]


@pytest.mark.parametrize("seed", range(5))
def test_objects_that_contend_are_served_best_pair_first(seed):
    # A few places with several objects each, some of them equal, as are many IoUs.
    generator = torch.Generator().manual_seed(seed)
    spots = torch.randint(0, 5, (14, 2), generator=generator) / 8
    boxes = torch.cat([spots, spots + 0.25], 1)
    boxes[::3, 2:] += 0.125
    labels = torch.randint(0, 9, (14,), generator=generator)
    priors = make_priors([(8, 8)], (0.25, 0.4), ((2.0,),))
    expected, _ = slow_match(boxes, labels, labels < 0, priors, 0.5)
    targets = match_priors(boxes[None], labels[None], (labels < 0)[None], priors)
    assert targets.labels[0].tolist() == expected


@pytest.mark.parametrize("seed", range(5))
def test_many_priors_are_searched_group_by_group(seed):
    # Objects on top of each other contend for thousands of priors.
    boxes, labels, difficult, priors = random_case(seed, num_priors=3000, num_objects=6)
    boxes[1:3] = boxes[0]
    labels[:3] = torch.tensor([1, 2, 3])
    targets = match_priors(boxes[None], labels[None], difficult[None], priors, 0.6)
    expected, _ = slow_match(boxes, labels, difficult, priors, 0.6)
    assert targets.labels[0].tolist() == expected

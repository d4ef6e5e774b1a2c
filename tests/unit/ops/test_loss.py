import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ssd_dist.ops.loss import l2_term, l2_weights, multibox_loss, multibox_sums
from ssd_dist.structures import Targets


def slow_sums(loc, conf, targets, ratio):
    """The paper's recipe, image by image, with sorted lists."""
    conf_sum = loc_sum = 0.0
    for i in range(len(conf)):
        losses = F.cross_entropy(conf[i], targets.labels[i].clamp(min=0), reduction="none")
        positive = targets.labels[i] > 0
        negatives = sorted(losses[targets.labels[i] == 0].tolist(), reverse=True)
        conf_sum += losses[positive].sum() + sum(negatives[: int(positive.sum() * ratio)])
        loc_sum += F.smooth_l1_loss(loc[i][positive], targets.loc[i][positive], reduction="sum")
    return conf_sum, loc_sum


def random_case(seed, positive_share=0.05):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.where(
        torch.rand(4, 60, generator=generator) < positive_share,
        torch.randint(1, 4, (4, 60), generator=generator),
        0,
    )
    labels[0] = 0  # an image without objects
    labels[1, :5] = -1
    targets = Targets(
        labels=labels, loc=torch.randn(4, 60, 4, generator=generator) * (labels > 0)[..., None]
    )
    loc = torch.randn(4, 60, 4, generator=generator)
    conf = torch.randn(4, 60, 4, generator=generator)
    return loc, conf, targets


@pytest.mark.parametrize("ratio", [3.0, 1.0, 2.5])
@pytest.mark.parametrize("positive_share", [0.0, 0.05, 0.6])
def test_agrees_with_the_recipe_image_by_image(ratio, positive_share):
    for seed in range(5):
        loc, conf, targets = random_case(seed, positive_share)
        sums = multibox_sums(loc, conf, targets, ratio)
        conf_sum, loc_sum = slow_sums(loc, conf, targets, ratio)
        assert sums.conf.item() == pytest.approx(float(conf_sum), rel=1e-5)
        assert sums.loc.item() == pytest.approx(float(loc_sum), rel=1e-5)
        assert sums.num_positives.item() == (targets.labels > 0).sum().item()


def test_by_hand():
    # Two classes and background, uniform scores: every cross entropy is ln 3. One positive, so
    # three of the four negatives count; SmoothL1 of errors 2, 0.5, 0, 0: 1.5 + 0.125.
    labels = torch.tensor([[1, 0, 0, 0, 0]])
    loc = torch.zeros(1, 5, 4)
    loc[0, 0] = torch.tensor([2.0, 0.5, 0.0, 0.0])
    targets = Targets(labels=labels, loc=torch.zeros(1, 5, 4))
    sums = multibox_sums(loc, torch.zeros(1, 5, 3), targets, 3.0)
    assert sums.conf.item() == pytest.approx(4 * math.log(3))
    assert sums.loc.item() == pytest.approx(1.625)
    loss = multibox_loss(sums, alpha=2.0, num_positives=torch.tensor(1))
    assert loss.item() == pytest.approx(4 * math.log(3) + 3.25)


def test_without_any_object_the_loss_is_zero_and_has_a_gradient():
    loc, conf, targets = random_case(0, positive_share=0.0)
    loc.requires_grad_()
    conf.requires_grad_()
    sums = multibox_sums(loc, conf, targets, 3.0)
    loss = multibox_loss(sums, 1.0, sums.num_positives)
    loss.backward()
    assert loss.item() == 0
    assert conf.grad.eq(0).all()
    assert loc.grad.eq(0).all()


def test_ignored_priors_have_no_gradient():
    loc, conf, targets = random_case(1)
    conf.requires_grad_()
    multibox_sums(loc, conf, targets, 3.0).conf.backward()
    assert conf.grad[targets.labels < 0].eq(0).all()
    assert conf.grad[targets.labels > 0].ne(0).any()


@given(st.integers(0, 1000), st.integers(1, 4), st.floats(0, 10))
@settings(max_examples=40, deadline=None)
def test_workers_gradients_sum_to_that_of_the_whole_batch(seed, num_workers, alpha):
    loc, conf, targets = random_case(seed)
    scores = conf.clone().requires_grad_()
    whole = multibox_sums(loc, scores, targets, 3.0)
    multibox_loss(whole, alpha, whole.num_positives).backward()
    parts = torch.zeros_like(conf)
    for rows in torch.arange(4).tensor_split(num_workers):
        share = conf[rows].clone().requires_grad_()
        part = multibox_sums(
            loc[rows], share, Targets(targets.labels[rows], targets.loc[rows]), 3.0
        )
        multibox_loss(part, alpha, whole.num_positives).backward()
        parts[rows] = share.grad
    assert torch.allclose(parts, scores.grad, atol=1e-6)


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))


def test_l2_by_hand():
    network = small_network()
    weights = l2_weights(network)
    assert [w.shape for w in weights] == [network[0].weight.shape, network[3].weight.shape]
    expected = 0.5 * sum(w.square().sum().item() for w in (network[0].weight, network[3].weight))
    assert l2_term(weights, 0.5).item() == pytest.approx(expected, rel=1e-5)


def test_weight_decay_of_two_lambda_is_the_term_in_the_loss():
    l2_lambda, images = 0.01, torch.randn(2, 3, 8, 8)
    decayed, penalised = small_network(), small_network()
    groups = [{"params": l2_weights(decayed), "weight_decay": 2 * l2_lambda}]
    known = {id(w) for w in l2_weights(decayed)}
    groups.append({"params": [p for p in decayed.parameters() if id(p) not in known]})
    first = torch.optim.SGD(groups, lr=1e-3, momentum=0.9)
    second = torch.optim.SGD(penalised.parameters(), lr=1e-3, momentum=0.9)
    for _ in range(5):
        first.zero_grad()
        decayed(images).square().sum().backward()
        first.step()
        second.zero_grad()
        squares = sum(w.square().sum() for w in l2_weights(penalised))
        (penalised(images).square().sum() + l2_lambda * squares).backward()
        second.step()
    for a, b in zip(decayed.parameters(), penalised.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_objective_compiles_without_a_graph_break():
    from ssd_dist.ops.matching import match_priors

    priors = torch.rand(50, 4) * 0.4 + 0.2
    low = torch.rand(2, 8, 2) * 0.5
    boxes = torch.cat([low, low + 0.3], -1)
    labels = torch.randint(0, 3, (2, 8))
    difficult = torch.zeros(2, 8, dtype=torch.bool)
    loc, conf = torch.randn(2, 50, 4), torch.randn(2, 50, 3)

    def objective(boxes, labels, difficult, loc, conf):
        targets = match_priors(boxes, labels, difficult, priors)
        sums = multibox_sums(loc, conf, targets, 3.0)
        return multibox_loss(sums, 1.0, sums.num_positives)

    compiled = torch.compile(objective, fullgraph=True, backend="eager")
    arguments = boxes, labels, difficult, loc, conf
    assert torch.allclose(compiled(*arguments), objective(*arguments))

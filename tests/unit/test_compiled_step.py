"""Between a batch's arrival and the optimizer's step no shape depends on data: no device waits."""

import pytest
import torch

from ssd_dist.config import Config, ModelConfig
from ssd_dist.engine import autocast, laid_out
from ssd_dist.model.ssd import build_model
from ssd_dist.ops.boxes import decode, encode
from ssd_dist.ops.loss import multibox_loss, multibox_sums
from ssd_dist.ops.matching import match_priors

CONFIG = Config(
    precision="bf16",
    model=ModelConfig(
        backbone="test_resnet.r160_in1k",
        image_size=64,
        feature_strides=(8, 16),
        neck_channels=32,
        num_extra_maps=0,
        prior_scales=(0.2, 0.4),
    ),
)
CPU = torch.device("cpu")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(CONFIG.model, 3).train()


@pytest.fixture
def ground_truth():
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(2, 8, 2, generator=generator) * 0.5
    boxes_xyxy = torch.cat([low, low + 0.1 + torch.rand(2, 8, 2, generator=generator) * 0.4], -1)
    labels = torch.randint(1, 4, (2, 8), generator=generator)
    labels[1, 3:] = 0
    return boxes_xyxy, labels, torch.rand(2, 8, generator=generator) < 0.2


def objective(priors_cxcywh, boxes_xyxy, labels, difficult, loc, conf):
    targets = match_priors(boxes_xyxy, labels, difficult, priors_cxcywh)
    sums = multibox_sums(loc, conf, targets, 3.0)
    return multibox_loss(sums, 1.0, sums.num_positives)


def test_network_and_objective_compile_whole(model, ground_truth):
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)

    def step(images, boxes_xyxy, labels, difficult):
        loc, conf = model(laid_out(images, CONFIG))
        return objective(model.priors_cxcywh, boxes_xyxy, labels, difficult, loc, conf)

    compiled = torch.compile(step, fullgraph=True, backend="eager")
    gradients, losses = [], []
    for run in (step, compiled):
        model.zero_grad(set_to_none=True)
        loss = run(images, *ground_truth)
        loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_objective_runs_where_no_value_can_be_read(model, ground_truth):
    # Tensors without data, as a GPU's are to Python until it waits: reading one raises.
    boxes_xyxy, labels, difficult = (x.to("meta") for x in ground_truth)
    priors_cxcywh = model.priors_cxcywh.to("meta")
    shape = (2, len(priors_cxcywh))
    loc = torch.randn(*shape, 4, device="meta", requires_grad=True)
    conf = torch.randn(*shape, 4, device="meta", requires_grad=True)
    objective(priors_cxcywh, boxes_xyxy, labels, difficult, loc, conf).backward()
    assert loc.grad.shape == loc.shape
    assert conf.grad.shape == conf.shape


def test_all_at_once_is_what_the_cpu_works_out_in_parts(monkeypatch, model, ground_truth):
    priors_cxcywh = model.priors_cxcywh
    loc, conf = torch.randn(2, len(priors_cxcywh), 4), torch.randn(2, len(priors_cxcywh), 4)
    results = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
        scores = conf.clone().requires_grad_()
        targets = match_priors(*ground_truth, priors_cxcywh)
        sums = multibox_sums(loc, scores, targets, 3.0)
        multibox_loss(sums, 1.0, sums.num_positives).backward()
        results.append((targets.labels, targets.loc, sums.conf, sums.loc, scores.grad))
    for cpu, whole in zip(*results, strict=True):
        assert torch.allclose(cpu, whole, rtol=1e-5, atol=1e-6)


def test_matching_loss_and_box_coding_stay_in_float32_under_autocast(model, ground_truth):
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    priors_cxcywh = model.priors_cxcywh
    plain = match_priors(*ground_truth, priors_cxcywh)
    with autocast(CONFIG, CPU):
        loc, conf = (output.bfloat16() for output in model(images))
        targets = match_priors(*ground_truth, priors_cxcywh)
        sums = multibox_sums(loc, conf, targets, 3.0)
        boxes_xyxy = decode(encode(ground_truth[0][:, :1], priors_cxcywh[:1]), priors_cxcywh[:1])
    assert torch.equal(targets.labels, plain.labels)
    assert torch.equal(targets.loc, plain.loc)
    outside = multibox_sums(loc.float(), conf.float(), plain, 3.0)
    assert sums.conf.dtype == sums.loc.dtype == boxes_xyxy.dtype == torch.float32
    assert sums.conf.item() == pytest.approx(outside.conf.item(), rel=1e-6)
    assert sums.loc.item() == pytest.approx(outside.loc.item(), rel=1e-6)
    assert torch.allclose(boxes_xyxy, ground_truth[0][:, :1], atol=1e-5)

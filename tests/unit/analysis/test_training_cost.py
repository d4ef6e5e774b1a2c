"""The training step by count: gradients by hand and by torch's counter, the optimizer's state and
autograd's memory as they are on real tensors."""

import dataclasses
import gc

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ssd_dist.analysis.complexity import count_complexity
from ssd_dist.analysis.counting import OperationCounter
from ssd_dist.analysis.layers import Cost, total
from ssd_dist.analysis.memory import LiveMemory, saved_for_backward
from ssd_dist.analysis.training_cost import update_cost
from ssd_dist.config import Config, ModelConfig, OptimizerConfig
from ssd_dist.engine import laid_out
from ssd_dist.model.ssd import SSD, build_model
from ssd_dist.ops import by_device
from ssd_dist.ops.loss import multibox_loss, multibox_sums
from ssd_dist.optimizer import build_average, build_optimizer
from ssd_dist.structures import Targets

SMALL = ModelConfig(
    backbone="test_resnet.r160_in1k",
    image_size=64,
    feature_strides=(8, 16),
    neck_channels=32,
    num_extra_maps=1,
)
BATCH = 2


@pytest.fixture(
    scope="module",
    params=[
        Config(model=SMALL),
        Config(
            model=ModelConfig(image_size=64, num_extra_maps=0, frozen_stride=4, norm="frozen"),
            optimizer=OptimizerConfig(name="adamw", ema_decay=0.9),
        ),
        Config(
            model=ModelConfig(
                architecture="ssdlite", backbone="resnet18", image_size=64, num_extra_maps=0
            ),
            optimizer=OptimizerConfig(momentum=0),
            channels_last=False,
        ),
    ],
    ids=["ssd", "frozen layers", "ssdlite"],
)
def config(request):
    return request.param


@pytest.fixture(scope="module")
def model(config):
    torch.manual_seed(0)
    return build_model(config.model, num_classes=3, load_weights=False)


@pytest.fixture(scope="module")
def cost(model, config):
    return count_complexity(model, 64, config, batch_size=BATCH).training


def batch_for(model: SSD, device: str) -> tuple[torch.Tensor, Targets]:
    shape = (BATCH, model.priors_cxcywh.shape[0])
    labels = torch.zeros(shape, dtype=torch.int64, device=device)
    labels[:, 0] = 1
    images = torch.zeros(BATCH, 3, 64, 64, dtype=torch.uint8, device=device)
    return images, Targets(labels, torch.zeros(*shape, 4, device=device))


def loss_of(model: SSD, config: Config, images: torch.Tensor, targets: Targets) -> torch.Tensor:
    loc, conf = model(laid_out(images, config))
    sums = multibox_sums(loc, conf, targets, config.loss.neg_pos_ratio)
    return multibox_loss(sums, config.alpha, sums.num_positives)


@pytest.mark.parametrize(
    ("frozen", "inputs", "weights"),
    [
        ((), 512, 6912 + 512),
        (("0",), 0, 512),
        (("1",), 512, 6912),
        (("0", "1"), 0, 0),
    ],
)
def test_gradients_of_two_layers_by_hand(frozen, inputs, weights):
    """3 to 4 channels by 3x3 on 8x8 cells, 3·9·4·64 = 6912; 4 to 2 by 1x1, 4·2·64 = 512. The first
    layer's input needs no gradient, whatever trains; the second's only if the first trains."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1))
    for name in frozen:
        network.get_submodule(name).requires_grad_(False)
    with OperationCounter(network, dict(network.named_parameters())) as counter:
        network(torch.zeros(1, 3, 8, 8))
    layers = [layer for layer in counter.layers if layer.kind == "convolution"]
    assert [layer.macs for layer in layers] == [6912, 512]
    assert sum(layer.input_gradient_macs for layer in layers) == inputs
    assert sum(layer.weight_gradient_macs for layer in layers) == weights


def test_gradients_equal_torchs_counter(model, config, cost):
    """Of the whole step, on real tensors.

    torch's counter takes the weight gradient of a grouped convolution for that of an ungrouped one
    and so counts `groups` times too many: each weight belongs to one group, and its gradient is one
    product for each picture and output cell, as in the forward pass.
    """
    model.train().zero_grad()
    images, targets = batch_for(model, "cpu")
    with FlopCounterMode(display=False) as forward:
        loss = loss_of(model, config, images, targets)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    assert 2 * cost.forward.macs == forward.get_total_flops()
    assert cost.backward.macs == cost.input_gradient_macs + cost.weight_gradient_macs
    layers = count_complexity(model, 64, config).layers
    ungrouped = sum(BATCH * layer.weight_gradient_macs * layer.groups for layer in layers)
    assert 2 * (cost.input_gradient_macs + ungrouped) == backward.get_total_flops()
    if all(layer.groups == 1 for layer in layers):
        assert 2 * cost.backward.macs == backward.get_total_flops()


def test_frozen_layers_cost_no_gradients(model, config, cost):
    if config.model.frozen_stride:
        assert cost.weight_gradient_macs < 0.9 * cost.forward.macs
    else:
        assert cost.weight_gradient_macs == cost.forward.macs
    assert cost.input_gradient_macs < cost.forward.macs  # the first layer's is never due


def test_memory_equals_that_of_real_tensors(model, config, cost, monkeypatch):
    """What autograd keeps, byte by byte, and the peak of all that is alive, with the loss worked
    out for all priors at once, as on a GPU."""
    monkeypatch.setattr(by_device, "waits_for_nobody", lambda tensor: False)
    model.train().zero_grad()
    images, targets = batch_for(model, "cpu")
    batch = [images, targets.labels, targets.loc]
    own = [*model.parameters(), *model.buffers(), *batch]
    gc.collect()
    with LiveMemory(own) as live, saved_for_backward(own) as saved:
        loss = loss_of(model, config, images, targets)
        activations = sum(saved.values())
        loss.backward()
    assert cost.memory.activations == activations
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert cost.memory.gradients == sum(g.numel() * 4 for g in gradients)
    there_anyway = cost.memory.total - cost.memory.gradients - cost.memory.activations
    assert cost.memory.peak - there_anyway == pytest.approx(live.peak, rel=0.02)
    model.zero_grad()


def of_pictures(model, cost):
    """Activations but for what a batch has once: the weights that took held batch norms up, with
    the norm's factor and its deviation of each channel."""
    folded = [m.weight for m in model.modules() if "norm_behind" in vars(m)]
    once = sum(w.numel() + 2 * w.shape[0] for w in folded if w.requires_grad)
    return cost.memory.activations - 4 * once


def test_activations_grow_with_the_batch(model, config, cost):
    large = count_complexity(model, 64, config, batch_size=4 * BATCH).training
    assert large.memory.weights == cost.memory.weights
    assert large.memory.batch == 4 * cost.memory.batch
    # All but batch norm's statistics and the like, which a batch has once.
    assert of_pictures(model, large) == pytest.approx(4 * of_pictures(model, cost), rel=0.02)
    assert large.forward.macs == 4 * cost.forward.macs
    assert large.update == cost.update


def test_a_batch_in_parts_costs_the_same_and_holds_one_part(model, config, cost):
    parts = dataclasses.replace(config, accumulation=2)
    split = count_complexity(model, 64, parts, batch_size=2 * BATCH).training
    whole = count_complexity(model, 64, config, batch_size=2 * BATCH).training
    assert split.step.macs == whole.step.macs
    assert split.memory.activations == cost.memory.activations
    assert of_pictures(model, split) < 0.55 * of_pictures(model, whole)


def test_optimizer_state_and_average_are_what_they_are(model, config, cost):
    optimizer = build_optimizer(model, config)
    images, targets = batch_for(model, "cpu")
    loss_of(model.train(), config, images, targets).backward()
    optimizer.step()
    state = [
        tensor
        for of_parameter in optimizer.state.values()
        for name, tensor in of_parameter.items()
        if name != "step" and tensor is not None
    ]
    assert cost.memory.optimizer_state == sum(t.numel() * t.element_size() for t in state)
    average = build_average(model, config.optimizer)
    tensors = [] if average is None else [*average.module.parameters(), *average.module.buffers()]
    assert cost.memory.average == sum(t.numel() * t.element_size() for t in tensors)
    assert cost.optimizer == config.optimizer.name
    model.zero_grad()


@pytest.mark.parametrize(
    ("optimizer", "other_ops", "floats_read", "floats_written"),
    [
        (OptimizerConfig(momentum=0), 3 + 4, 2 + 2, 1 + 1),
        (OptimizerConfig(), 3 + 6, 2 + 3, 1 + 2),
        (OptimizerConfig(ema_decay=0.9), 3 + 6 + 3, 2 + 3 + 2, 1 + 2 + 1),
        (OptimizerConfig(name="adamw"), 3 + 15, 2 + 4, 1 + 3),
    ],
)
def test_update_by_hand(optimizer, other_ops, floats_read, floats_written):
    expected = Cost(0, 10 * other_ops, 40 * floats_read, 40 * floats_written)
    assert update_cost(optimizer, num_trained=10) == expected


def test_the_step_is_the_sum_of_its_parts(cost):
    parts = [cost.forward, cost.loss, cost.backward, cost.update]
    assert cost.step == total(parts)
    assert all(part.bytes_moved > 0 for part in parts)
    json = cost.to_json()
    assert json["step"]["macs"] == sum(json[n]["macs"] for n in ("forward", "backward"))
    memory = json["memory"]
    assert memory.pop("total") == sum(memory.values()) - memory["peak"]


@pytest.mark.parametrize(
    ("activation", "num_kept"),
    [
        (nn.ReLU(), 1),  # its output, which the second layer keeps as well
        (nn.ReLU(inplace=True), 1),
        (nn.SiLU(), 2),  # its input, and the second layer's
        (nn.Sigmoid(), 1),
    ],
)
def test_saved_tensors_by_hand(activation, num_kept):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), activation, nn.Conv2d(4, 2, 1))
    images = torch.zeros(5, 3, 6, 6)
    with saved_for_backward([*network.parameters(), images]) as saved:
        network(images)
    assert sum(saved.values()) == num_kept * 4 * (5 * 4 * 6 * 6)


def test_live_memory_by_hand():
    inputs = torch.zeros(100)
    with LiveMemory([inputs]) as live:
        first = inputs + 1
        second = first * 2
        view = second.view(10, 10)
        assert live.alive == 800
        del first
        assert live.alive == 400
        third = view + inputs.view(10, 10)
        del second
        assert live.alive == 800  # the view keeps its memory
        inputs.add_(third.sum())
        del third, view
    assert live.alive == 0
    assert live.peak == 804  # two of them, and a sum

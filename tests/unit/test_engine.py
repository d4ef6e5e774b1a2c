import copy
import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel
from torch.utils._python_dispatch import TorchDispatchMode

from ssd_dist.config import Config, ModelConfig, OptimizerConfig
from ssd_dist.data.cache import open_cache
from ssd_dist.data.dataset import DetectionDataset, Loader, evaluation_keys, training_batches
from ssd_dist.data.synthetic import synthetic_split
from ssd_dist.divergence import LossWatch, NonFiniteLossError
from ssd_dist.engine import (
    Worker,
    autocast,
    predict,
    train_epoch,
)
from ssd_dist.evaluation.voc_ap import evaluate_voc
from ssd_dist.model.ssd import build_model
from ssd_dist.optimizer import build_average, build_optimizer, learning_rate

CPU = torch.device("cpu")
CONFIG = Config(
    lr=3e-3,
    global_batch_size=8,
    model=ModelConfig(
        backbone="test_resnet.r160_in1k",
        image_size=64,
        feature_strides=(8, 16),
        neck_channels=32,
        num_extra_maps=0,
        prior_scales=(0.2, 0.4),
    ),
    optimizer=OptimizerConfig(name="adamw"),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    split = synthetic_split("train", num_images=16)
    return DetectionDataset(split, open_cache(split, 64, tmp_path_factory.mktemp("c")), 64, None, 0)


@pytest.fixture
def model(dataset):
    torch.manual_seed(0)
    return build_model(CONFIG.model, len(dataset.split.class_names))


def batches(dataset, epoch=0):
    return training_batches(dataset, epoch=epoch, global_batch_size=8, rank=0, world_size=1)


def run_epoch(model, dataset, config=CONFIG, *, epoch=0, lr=None, **options):
    optimizer = options.pop("optimizer", None) or build_optimizer(model, config)
    return train_epoch(
        model,
        model,
        optimizer,
        batches(dataset, epoch),
        config=config,
        rate_at=lambda step: config.lr if lr is None else lr,
        worker=Worker(CPU),
        **options,
    )


def test_learning_rate_by_hand():
    def rate(step, **changes):
        options = {"peak": 1.0, "num_steps": 12, "warmup_steps": 4, "name": "cosine", **changes}
        return learning_rate(step, **options)

    assert [rate(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rate(8) == pytest.approx(0.5)
    assert 0 < rate(11) < 0.04
    assert rate(11, name="constant") == 1.0
    assert rate(0, warmup_steps=0) == 1.0


def test_only_weights_of_convolutions_decay(model):
    decayed, others = build_optimizer(
        model, dataclasses.replace(CONFIG, l2_lambda=0.3)
    ).param_groups
    assert decayed["weight_decay"] == pytest.approx(0.6)
    assert others["weight_decay"] == 0
    assert all(p.ndim == 4 for p in decayed["params"])
    assert all(p.ndim == 1 for p in others["params"])
    count = len(decayed["params"]) + len(others["params"])
    assert count == len(list(model.parameters()))


def test_the_pretrained_layers_learn_more_slowly(model, dataset):
    optimizer_config = OptimizerConfig(name="adamw", backbone_lr_scale=0.25)
    config = dataclasses.replace(CONFIG, optimizer=optimizer_config, l2_lambda=0.3)
    extractor = {id(parameter) for parameter in model.backbone.features.parameters()}
    optimizer = build_optimizer(model, config)
    run_epoch(model, dataset, config, optimizer=optimizer, lr=1e-3)
    seen = []
    for group in optimizer.param_groups:
        inside = [id(parameter) in extractor for parameter in group["params"]]
        assert all(inside) or not any(inside)
        assert group["lr"] == pytest.approx(0.25e-3 if inside[0] else 1e-3)
        seen += group["params"]
    assert {id(p) for p in seen} == {id(p) for p in model.parameters()}
    assert len(seen) == len({id(p) for p in seen})


def test_auto_takes_no_emulated_bf16(monkeypatch):
    def supported(including_emulation=True):
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    # torch's own turns itself off without a GPU, whatever it is told.
    monkeypatch.setattr(torch, "autocast", lambda *_, enabled: enabled)
    assert autocast(CONFIG, torch.device("cuda")) is False


def test_average_by_hand():
    model = torch.nn.Linear(1, 1, bias=False)
    average = build_average(model, OptimizerConfig(ema_decay=0.15))
    expected = None
    for step, value in enumerate([1.0, 2.0, 4.0]):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update_parameters(model)
        # The first update copies; later ones decay by (1 + t) / (10 + t), at most 0.15.
        decay = min(0.15, (1 + step) / (10 + step))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert average.module.weight.item() == pytest.approx(expected)
    assert build_average(model, OptimizerConfig()) is None


def test_average_is_torch_s_own_to_the_last_bit(model):
    def update(averaged, current, num_averaged):
        decay = min(0.3, (1 + int(num_averaged)) / (10 + int(num_averaged)))
        torch._foreach_lerp_(list(averaged), list(current), 1 - decay)

    ours = build_average(model, OptimizerConfig(ema_decay=0.3))
    theirs = AveragedModel(model, multi_avg_fn=update)
    for _ in range(5):
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data += torch.rand_like(tensor.float()).to(tensor.dtype)
        ours.update_parameters(model)
        theirs.update_parameters(model)
        found, expected = ours.state_dict(), theirs.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_average_sends_nothing_to_the_device(model):
    class Moves(TorchDispatchMode):
        """Notes what moves a tensor."""

        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            if operation is torch.ops.aten._to_copy.default:
                moved.append(args)
            return operation(*args, **(kwargs or {}))

    moved = []
    model.to("meta")
    average = build_average(model, OptimizerConfig(ema_decay=0.3))
    with Moves():
        for _ in range(3):
            average.update_parameters(model)
    assert moved == []
    assert average.n_averaged == 3


def test_training_fits_what_it_sees(model, dataset):
    optimizer = build_optimizer(model, CONFIG)
    losses = [
        run_epoch(model, dataset, epoch=epoch, optimizer=optimizer).loss for epoch in range(60)
    ]
    assert losses[-1] < losses[0] / 5
    annotations = dataset.split.annotations
    found = predict(
        model,
        Loader(dataset).batches(evaluation_keys(dataset, batch_size=5, rank=0, world_size=1)),
        annotations,
        CONFIG,
        CPU,
    )
    assert [d.image_id for d in found] == [a.image_id for a in annotations]
    assert evaluate_voc(annotations, found, dataset.split.class_names).map_11pt > 0.8
    for annotation, detections in zip(annotations, found, strict=True):
        size = np.array([annotation.width, annotation.height] * 2)
        assert (detections.boxes_xyxy >= 0).all()
        assert (detections.boxes_xyxy <= size).all()


def test_the_same_seed_trains_to_the_same_weights(dataset):
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        model = build_model(CONFIG.model, len(dataset.split.class_names))
        losses = run_epoch(model, dataset)
        states.append((losses, model.state_dict()))
    assert states[0][0] == states[1][0]
    assert all(torch.equal(t, states[1][1][name]) for name, t in states[0][1].items())


@pytest.mark.parametrize("accumulation", [2, 3, 8, 20])
def test_parts_of_a_batch_train_to_the_same_weights(accumulation, dataset):
    met, states = [], []
    frozen = dataclasses.replace(CONFIG.model, norm="frozen")
    for parts in (1, accumulation):
        # With SGD a difference stays as large as it is.
        config = dataclasses.replace(
            CONFIG, model=frozen, accumulation=parts, lr=0.01, optimizer=OptimizerConfig()
        )
        torch.manual_seed(3)
        model = build_model(config.model, len(dataset.split.class_names))
        start = copy.deepcopy(model.state_dict())
        model.register_forward_pre_hook(lambda _, args: met.append(len(args[0])))
        losses = run_epoch(model, dataset, config)
        states.append((dataclasses.astuple(losses), model.state_dict()))
    parts = min(accumulation, 8)
    assert met[:2] == [8, 8]
    assert len(met) == 2 + 2 * parts
    assert max(met[2:]) == math.ceil(8 / parts)
    assert states[1][0] == pytest.approx(states[0][0], rel=1e-4)
    for name, weight in states[0][1].items():
        assert torch.allclose(states[1][1][name], weight, rtol=1e-4, atol=1e-6), name
    moved = max((states[0][1][name] - t).abs().max() for name, t in start.items())
    assert moved > 1e-3


def test_the_logged_loss_is_eq_1(model, dataset):
    losses = run_epoch(model, dataset, dataclasses.replace(CONFIG, alpha=2.5), lr=0.0)
    assert losses.loss == pytest.approx(losses.loss_conf + 2.5 * losses.loss_loc)


class Spoilt(torch.nn.Module):
    """A network whose output is spoilt from the given step on."""

    def __init__(self, model, first_step, value):
        super().__init__()
        self.model, self.first_step, self.value, self.calls = model, first_step, value, 0

    def forward(self, images):
        loc, conf = self.model(images)
        self.calls += 1
        return loc * (self.value if self.calls > self.first_step else 1.0), conf


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize("first_step", [0, 1])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_at_once_and_names_its_step(
    model, dataset, monkeypatch, lag, first_step, value
):
    """With a GPU's lag, too, where the next step is under way when it is noticed."""
    monkeypatch.setattr("ssd_dist.divergence._LAG", {"cpu": lag})
    network = Spoilt(model, first_step, value)
    twice = [*batches(dataset), *batches(dataset)]  # four steps
    with pytest.raises(NonFiniteLossError) as error:
        train_epoch(
            model,
            network,
            build_optimizer(model, CONFIG),
            twice,
            config=CONFIG,
            rate_at=lambda step: 0.001 * (step + 1),
            worker=Worker(CPU),
            picture_name=lambda index: f"picture-{index}",
        )
    assert network.calls == first_step + 1 + lag
    pictures = ", ".join(f"picture-{i}" for i in twice[first_step].indices.tolist())
    assert str(error.value) == (
        f"loss {value:g} with gradient norm nan at step {first_step} of the epoch "
        f"(lr {0.001 * (first_step + 1):g}, pictures {pictures}): lower the learning rate"
    )
    if lag == 0:
        assert all(p.isfinite().all() for p in model.parameters())


def test_the_last_step_is_looked_at_too(model, dataset, monkeypatch):
    monkeypatch.setattr("ssd_dist.divergence._LAG", {"cpu": 1})
    with pytest.raises(NonFiniteLossError, match="at step 1 of the epoch"):
        train_epoch(
            model,
            Spoilt(model, 1, math.nan),
            build_optimizer(model, CONFIG),
            batches(dataset),
            config=CONFIG,
            rate_at=lambda step: 0.001,
            worker=Worker(CPU),
        )


def test_an_infinite_gradient_of_a_finite_loss_stops_too(model, dataset):
    class Steep(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x.clone()

        @staticmethod
        def backward(context, gradient):
            return gradient * math.inf

    class Network(torch.nn.Module):
        def forward(self, images):
            loc, conf = model(images)
            return Steep.apply(loc), conf

    with pytest.raises(
        NonFiniteLossError, match=r"loss \d.* with gradient norm (nan|inf) at step 0"
    ):
        train_epoch(
            model,
            Network(),
            build_optimizer(model, CONFIG),
            batches(dataset),
            config=CONFIG,
            rate_at=lambda step: 0.001,
            worker=Worker(CPU),
        )


def test_of_many_pictures_the_first_are_named():
    watch = LossWatch(CPU, 1, str)
    nan = torch.tensor(math.nan)
    with pytest.raises(NonFiniteLossError, match=r"pictures 0, 1, .*, 31 and 8 more\)"):
        watch.see(0, nan, nan, 0.1, torch.arange(40))


def test_steps_are_told(model, dataset):
    steps = []
    run_epoch(model, dataset, on_step=steps.append)
    assert steps == [1, 2]


def test_gradient_clipping_bounds_the_step(model, dataset):
    before = [p.detach().clone() for p in model.parameters()]
    clip = dataclasses.replace(CONFIG.optimizer, name="sgd", gradient_clip=1e-3, momentum=0.0)
    config = dataclasses.replace(CONFIG, optimizer=clip, l2_lambda=0.0, lr=1.0)
    run_epoch(model, dataset, config)
    moved = sum((p - b).square().sum() for p, b in zip(model.parameters(), before, strict=True))
    assert 0 < moved.sqrt().item() <= 2e-3 * 1.001  # two steps


def test_pictures_without_objects_train(model):
    split = synthetic_split("train", num_images=8)
    nothing = tuple(
        dataclasses.replace(
            a, boxes_xyxy=a.boxes_xyxy[:0], labels=a.labels[:0], difficult=a.difficult[:0]
        )
        for a in itertools.islice(split.annotations, 8)
    )
    empty = dataclasses.replace(split, annotations=nothing)
    dataset = DetectionDataset(empty, open_cache(split, 64), 64, None, 0)
    losses = run_epoch(model, dataset)
    assert losses.loss == 0

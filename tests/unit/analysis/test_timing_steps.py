"""The training step that is timed is the one that trains."""

import dataclasses
import itertools
import time

import pytest
import torch

from ssd_dist.analysis.clock import StepClock, forward_sections
from ssd_dist.analysis.step_timing import (
    TRAINING_SEGMENTS,
    StepBudget,
    by_segment,
    drawn_dataset,
    set_up_training,
    time_segments,
    time_steps,
)
from ssd_dist.analysis.timing import (
    INFERENCE_SEGMENTS,
    percentiles,
    time_inference,
    time_inference_segments,
)
from ssd_dist.config import OptimizerConfig
from ssd_dist.engine import SECTIONS, Worker, train_epoch

CPU = torch.device("cpu")


@pytest.fixture
def training(small_model, small_config, small_dataset):
    config = dataclasses.replace(small_config, optimizer=OptimizerConfig(ema_decay=0.9))
    return set_up_training(small_model, config, Worker(CPU), small_dataset, batch_size=4)


def test_percentiles_by_hand():
    values = percentiles([5.0, 1.0, 2.0, 4.0, 3.0])
    assert (values.p10, values.median, values.p90) == pytest.approx((1.4, 3.0, 4.6))


def test_segments_add_up_to_the_wall_time_of_their_step(training):
    clock = StepClock(CPU)
    finished = [time.perf_counter()]

    def on_step(count):
        clock.finish_step(count)
        finished.append(time.perf_counter())

    with forward_sections(training.model, clock):
        train_epoch(
            training.model,
            training.network,
            training.optimizer,
            [next(training.batches) for _ in range(4)],
            config=training.config,
            rate_at=lambda step: 0.0,
            worker=training.worker,
            section=clock.section,
            on_step=on_step,
        )
    assert len(clock.steps) == 4
    walls = [1000 * (end - begin) for begin, end in itertools.pairwise(finished)]
    for step, wall in zip(clock.steps, walls, strict=True):
        total = step.pop("total")
        assert sum(step.values()) == pytest.approx(total)
        assert total == pytest.approx(wall, rel=0.05)
        # One process: nothing is communicated.
        expected = {*SECTIONS, "backbone", "extras", "heads", "rest"} - {"communication"}
        assert set(step) == expected
        assert all(value > 0 for value in step.values())


def test_segments_have_their_names_and_order(training):
    steps = time_segments(training, StepBudget(num_warmup=1, least=2, most=2))
    assert [tuple(step) for step in steps] == [TRAINING_SEGMENTS] * 2
    for step in steps:
        assert step.pop("communication") == 0
        total = step.pop("total")
        assert sum(step.values()) == pytest.approx(total)
        assert min(step.values()) > 0
    values = by_segment(steps)["backward"]
    assert values.p10 <= values.median <= values.p90


def test_steps_train_a_copy_that_stays_as_it_is(training, small_model):
    before = {name: tensor.clone() for name, tensor in small_model.state_dict().items()}
    assert len(time_steps(training, StepBudget(num_warmup=1, least=3, most=3))) == 3
    after = small_model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    parameters = dict(training.model.named_parameters())
    assert all(torch.equal(before[name], parameter) for name, parameter in parameters.items())
    # But for the learning rate of 0, all that a step does was done.
    counts = [b for name, b in training.model.named_buffers() if name.endswith("batches_tracked")]
    assert counts
    assert all(count == 4 for count in counts)
    momenta = [training.optimizer.state[p]["momentum_buffer"] for p in parameters.values()]
    assert any(momentum.any() for momentum in momenta)
    assert training.average.n_averaged == 4


def test_budgets(training):
    assert len(time_steps(training, StepBudget(least=2, most=9, seconds=0.0))) == 2
    assert len(time_steps(training, StepBudget(num_warmup=0, least=1, most=4, seconds=60))) == 4
    assert time_steps(training, StepBudget(num_warmup=2, longest_warmup=0.0)) == []


def test_workers_take_their_shares(small_model, small_config, small_dataset):
    batches = [
        next(
            set_up_training(
                small_model, small_config, Worker(CPU, rank), small_dataset, 5, num_shares=2
            ).batches
        )
        for rank in (0, 1)
    ]
    assert [len(batch.images) for batch in batches] == [2, 3]
    assert not set(batches[0].indices.tolist()) & set(batches[1].indices.tolist())


def test_a_batch_is_at_most_the_data(small_model, small_config, small_dataset):
    training = set_up_training(small_model, small_config, Worker(CPU), small_dataset, 99)
    assert len(next(training.batches).images) == len(small_dataset)


@pytest.mark.parametrize("num_classes", [1, 2, 90])
def test_drawn_pictures_have_classes_that_the_model_knows(num_classes, small_config):
    dataset = drawn_dataset(small_config, num_classes, batch_size=70)
    assert len(dataset) == 70
    labels = {int(label) for a in dataset.split.annotations for label in a.labels}
    assert labels == set(range(1, min(num_classes, 5) + 1))
    sample = dataset[(0, 3)]
    assert sample.image.shape == (3, 64, 64)


def test_inference_by_segment(small_model, small_config, small_dataset):
    pictures = [small_dataset[index].image for index in range(2)]
    timed = time_inference_segments(
        small_model, pictures, small_config, CPU, num_warmup=1, least=3, most=4, seconds=60
    )
    assert [tuple(one) for one in timed] == [INFERENCE_SEGMENTS] * 4
    for one in timed:
        total = one.pop("total")
        assert sum(one.values()) == pytest.approx(total, rel=0.05)
        assert min(one.values()) > 0
    assert not small_model.training


def test_inference_needs_a_picture(small_model, small_config):
    for function in (time_inference, time_inference_segments):
        with pytest.raises(ValueError, match="at least one picture"):
            function(small_model, [], small_config, CPU)

"""The stopwatch by hand, and its sections on the networks that are shipped."""

import itertools

import pytest
import torch

from ssd_dist.analysis import clock as clock_module
from ssd_dist.analysis.clock import StepClock, forward_sections

CPU = torch.device("cpu")


@pytest.fixture
def seconds(monkeypatch):
    """The time that the clock reads: what is written here."""
    now = [0.0]
    monkeypatch.setattr(clock_module.time, "perf_counter", lambda: now[0])
    return now


def test_sections_by_hand(seconds):
    clock = StepClock(CPU)
    seconds[0] = 1
    with clock.section("loss"):
        seconds[0] = 3
        with clock.section("communication"):
            seconds[0] = 7
        seconds[0] = 15
    seconds[0] = 31
    clock.finish_step()
    seconds[0] = 63
    clock.finish_step()
    assert clock.steps == [
        {"rest": 17e3, "loss": 10e3, "communication": 4e3, "total": 31e3},
        {"rest": 32e3, "total": 32e3},
    ]


def test_a_section_may_change_its_name_until_it_ends(seconds):
    clock = StepClock(CPU)
    with clock.section("forward"):
        seconds[0] = 1
        clock.enter("backbone")
        seconds[0] = 3
        clock.enter("heads")
        seconds[0] = 7
    seconds[0] = 15
    clock.finish_step()
    expected = {"forward": 1e3, "backbone": 2e3, "heads": 4e3, "rest": 8e3, "total": 15e3}
    assert clock.steps == [expected]


def test_a_section_that_fails_ends_too(seconds):
    clock = StepClock(CPU)

    def fail():
        with clock.section("data"):
            seconds[0] = 1
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    seconds[0] = 3
    clock.finish_step()
    assert clock.steps == [{"rest": 2e3, "data": 1e3, "total": 3e3}]


def test_a_gpu_is_waited_for_at_every_boundary(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    clock = StepClock(torch.device("cuda", 1))
    with clock.section("forward"):
        clock.enter("heads")
    clock.finish_step()
    assert waited == [torch.device("cuda", 1)] * 5  # begin, enter, enter, leave, finish


class Recorder:
    """Takes the names that a clock would be given."""

    def __init__(self):
        self.entered = []

    def enter(self, name):
        self.entered.append(name)


def test_the_forward_pass_is_cut_in_three(shipped_model):
    model = shipped_model.eval()
    images = torch.empty(1, 3, model.image_size, model.image_size, device="meta")
    recorder = Recorder()
    with forward_sections(model, recorder), torch.no_grad():
        model(images)
        model(images)
    assert recorder.entered == ["backbone", "extras", "heads"] * 2
    with forward_sections(model, recorder, behind="postprocessing"), torch.no_grad():
        model(images)
    assert recorder.entered[6:] == ["backbone", "extras", "heads", "postprocessing"]
    hooks = ((module._forward_hooks, module._forward_pre_hooks) for module in model.modules())
    assert not any(itertools.chain.from_iterable(hooks))

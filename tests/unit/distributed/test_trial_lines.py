"""What the terminal shows of a search's trials, from what Ray Tune tells of them."""

import re
from types import SimpleNamespace

import pytest

from ssd_dist.distributed.searcher import StudyScheduler
from ssd_dist.distributed.study import trial_records
from ssd_dist.distributed.trial_lines import TrialLines
from ssd_dist.terminal import Terminal

NODE_DIED = """\
Failure # 1 (occurred at 2026-11-22_22-20-00)
The actor died unexpectedly before finishing this task.
	class_name: ImplicitFunc
	actor_id: 0a0c8153e31589cb2ce3290a02000000
The actor died because its node has died. Node Id: 0002
The actor never ran - it was cancelled before it started running.
"""
UNAVAILABLE = """\
Failure # 1 (occurred at 2026-11-22_22-20-00)
The actor 502715e4d5a3eefaaa1990aa01000000 is unavailable: The actor is temporarily unavailable: \
RpcError: RPC error: Socket closed rpc_code: 14.
"""
RAISED = """\
Failure # 2 (occurred at 2026-11-22_22-21-00)
ray::ImplicitFunc.train() (pid=17)
  File "train.py", line 1, in train
    raise ValueError("no such picture")
ValueError: no such picture
"""


@pytest.fixture
def failed(driver, tmp_path):
    """A trial of Ray Tune's, "a", of which it wrote the text given; shown by `lines`."""
    driver.start("a")

    def make(text):
        (tmp_path / "error.txt").write_text(text)
        return SimpleNamespace(trial_id="a", error_file=str(tmp_path / "error.txt"))

    return make


@pytest.fixture
def recover(driver, failed, capsys):
    """Tells the terminal that a trial failed, and is started again; what it shows."""

    def tell(text):
        lines = TrialLines(driver.searcher, Terminal(), [], 6)
        lines.on_trial_recover(1, [], failed(text))
        return capsys.readouterr().out

    return tell


@pytest.mark.parametrize("text", [NODE_DIED, UNAVAILABLE, RAISED + NODE_DIED])
def test_a_trial_whose_machine_is_lost_is_one_plain_line(recover, text):
    assert recover(text) == "note: trial 0 lost its process or its machine, and begins again\n"


def test_of_several_failures_the_last_counts(driver, recover, tmp_path):
    driver.epoch("a", 1, 0.1, tmp_path / "checkpoint")
    assert recover(NODE_DIED + RAISED) == (
        "note: trial 0 failed (ValueError: no such picture), and goes on from its last checkpoint\n"
    )


def test_a_failure_of_which_nothing_was_written(driver, capsys):
    driver.start("a")
    for error_file in (None, "/nowhere/error.txt"):
        trial = SimpleNamespace(trial_id="a", error_file=error_file)
        TrialLines(driver.searcher, Terminal(), [], 6).on_trial_recover(1, [], trial)
        assert "trial 0 failed (no message), and begins again" in capsys.readouterr().out


def test_a_trial_that_failed_for_good_keeps_its_reason(driver, failed, capsys):
    trial = failed(NODE_DIED + RAISED)
    StudyScheduler(driver.searcher).on_trial_error(None, trial)
    driver.searcher.on_trial_complete("a", error=True)
    TrialLines(driver.searcher, Terminal(), [], 6).on_trial_error(1, [], trial)
    [record] = trial_records(driver.study)
    assert (record.state, record.error) == ("failed", "ValueError: no such picture")
    assert re.match(r"  1/6  trial 0 +mAP - \(best 0\.0000\)  failed ", capsys.readouterr().out)

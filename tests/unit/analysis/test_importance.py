"""What a search says: shares of variance against known ones, and words that fit them."""

import numpy as np
import pytest

from ssd_dist.analysis.importance import LEAST_TRIALS, learn, variance_shares
from ssd_dist.experiment import TrialRecord
from ssd_dist.search_config import Range

SPACE = {
    "alpha": Range(low=0.1, high=10, log=True),
    "lr": Range(low=1e-4, high=1e-1, log=True),
    "model.norm": Range(choices=("batch", "none")),
}


def trials_of(map_of, num_trials=60, **changes):
    rng = np.random.default_rng(0)
    records = []
    for number in range(num_trials):
        parameters = {
            "alpha": 10 ** rng.uniform(-1, 1),
            "lr": 10 ** rng.uniform(-4, -1),
            "model.norm": str(rng.choice(["batch", "none"])),
        }
        fields = {
            "number": number,
            "state": "complete",
            "parameters": parameters,
            "map_11pt": map_of(parameters),
            "epochs": 1,
            "seconds": 1.0,
            "curve": (),
            "checkpoint": None,
        }
        records.append(TrialRecord(**(fields | changes)))
    return records


def from_rate(parameters):
    return 0.8 - 0.1 * (np.log10(parameters["lr"]) + 2.5) ** 2


def test_ishigami_s_function():
    """Its Sobol' indices are known: Ishigami and Homma 1990, with a = 7 and b = 0.1."""

    def ishigami(x):
        x1, x2, x3 = ((2 * x - 1) * np.pi).T
        return np.sin(x1) + 7 * np.sin(x2) ** 2 + 0.1 * x3**4 * np.sin(x1)

    alone, together = variance_shares(ishigami, 3)
    assert alone == pytest.approx([0.3139, 0.4424, 0.0], abs=0.01)
    assert together[0, 2] == pytest.approx(0.2437, abs=0.01)
    assert together[0, 1] == pytest.approx(0, abs=0.01)
    assert together[1, 2] == pytest.approx(0, abs=0.01)


def test_a_constant_has_no_shares():
    alone, together = variance_shares(lambda x: np.ones(len(x)), 2)
    assert alone == [0, 0]
    assert together == {(0, 1): 0}


def test_one_alone_matters():
    learned = learn(trials_of(from_rate), SPACE)
    assert next(iter(learned.importance)) == "lr"
    assert learned.importance["lr"] > 0.9
    assert learned.r2_unseen > 0.8
    first, second = learned.sentences
    assert first.startswith("The learning rate mattered most: by itself it explains ")
    assert "α" in second
    assert "model.norm" in second
    assert second.startswith("Little depends on")


def test_a_forest_that_explains_little_is_told_of_first():
    """Its shares are of its own variation, which says nothing of how well it fits."""
    values = iter(np.random.default_rng(1).random(40))
    learned = learn(trials_of(lambda _: float(next(values)), num_trials=40), SPACE)
    assert learned.r2_unseen < 0.3
    first, second = learned.sentences
    assert first.startswith(
        "These 40 trials say little about what mattered: a model fitted to them explains less than "
        "1 % of how those vary that it has not seen. In this model "
    )
    assert second.startswith("By the same model ")


def test_two_matter_only_together():
    def exclusive_or(parameters):
        return 0.2 + 0.6 * ((parameters["alpha"] > 1) != (parameters["model.norm"] == "none"))

    learned = learn(trials_of(exclusive_or, num_trials=200), SPACE)
    one, two, share = learned.interactions[0]
    assert {one, two} == {"alpha", "model.norm"}
    assert share > 0.5
    assert max(learned.importance.values()) < 0.2
    assert "only together" in learned.sentences[0]


def test_trials_without_a_value_or_a_parameter_do_not_count():
    good = trials_of(from_rate, num_trials=8)
    broken = trials_of(lambda _: None, num_trials=5)
    partial = trials_of(from_rate, num_trials=5, parameters={"alpha": 1.0})
    assert learn([*good, *broken, *partial], SPACE) == learn(good, SPACE)
    assert learn(good, SPACE).sentences[0].startswith("As far as 8 trials can tell")


def test_too_few_or_all_alike_say_nothing():
    assert learn(trials_of(from_rate, num_trials=LEAST_TRIALS - 1), SPACE) is None
    assert learn(trials_of(from_rate, num_trials=LEAST_TRIALS), SPACE) is not None
    assert learn(trials_of(lambda _: 0.5), SPACE) is None
    assert learn([], SPACE) is None


def test_few_trials_have_none_to_be_tested_on():
    assert learn(trials_of(from_rate, num_trials=9), SPACE).r2_unseen is None


def test_a_single_hyperparameter():
    learned = learn(trials_of(from_rate), {"lr": SPACE["lr"]})
    assert learned.importance == pytest.approx({"lr": 1.0}, abs=0.01)
    assert learned.interactions == []
    assert learned.sentences[1] == "Nothing else was searched."

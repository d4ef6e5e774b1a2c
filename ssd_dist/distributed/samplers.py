"""What proposes the next trial."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from ssd_dist.search_config import SearchConfig


def build_sampler(
    search: SearchConfig, seed: int, num_trials: int, source_trials: Sequence[FrozenTrial] = ()
) -> BaseSampler:
    """The sampler that proposes one trial, the next after `num_trials`.

    Each trial has a sampler of its own, seeded by the search's seed and its place: what is proposed
    is then a function of the seed and of the trials so far, and a search that was cut off goes on
    as if it had not been.

    Args:
        search: which sampler, over what.
        seed: the search's.
        num_trials: trials so far, those under way and those of a warm start among them.
        source_trials: those of a warm start. CMA-ES begins from their distribution; the other
            samplers find them in the study, like any trial.
    """
    # Not seed + num_trials: searches of seeds 0 and 1 would draw the same points, one trial apart.
    drawn = int(np.random.SeedSequence((seed, num_trials)).generate_state(1)[0])
    # Ten random trials first, Optuna's default, would be all of a short search.
    num_random = min(10, max(3, search.trials // 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if search.sampler == "tpe":
            return TPESampler(
                seed=drawn,
                n_startup_trials=num_random,
                # Fields that act together, such as lr and l2_lambda, are drawn together. Optuna
                # advises against it for several objectives.
                multivariate=len(search.objectives) == 1,
                # Trials under way count as bad: parallel ones keep their distance.
                constant_liar=True,
            )
        if search.sampler == "gp":
            return GPSampler(
                seed=drawn, n_startup_trials=num_random, warn_independent_sampling=False
            )
        if search.sampler == "cmaes":
            return CmaEsSampler(
                seed=drawn,
                warn_independent_sampling=False,
                # ASHA stops most trials: without them there would be little to adapt to.
                consider_pruned_trials=search.pruner == "asha",
                source_trials=_numeric_part(source_trials) or None,
            )
        # A grid's points are in the study's queue; drawn is what a user's first point leaves out.
        return RandomSampler(seed=drawn)


def sampler_notes(search: SearchConfig) -> list[str]:
    """What the chosen sampler and pruner can't do with this space, a sentence each."""
    notes = []
    categorical = [name for name, values in search.space.items() if values.choices is not None]
    if search.sampler == "cmaes" and categorical:
        notes.append(f"CMA-ES knows no categories: {', '.join(categorical)} is drawn at random")
    if len(search.objectives) > 1:
        notes.append(
            f"the search is for the Pareto front of {' and '.join(search.objectives)}: no trial is "
            "stopped early"
        )
    elif search.sampler == "gp" and search.pruner == "asha":
        notes.append(
            "the Gaussian process learns from complete trials only, and ASHA stops most: pruner "
            "median or none leaves it more"
        )
    return notes


def _numeric_part(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Complete trials without their categorical fields, which CMA-ES does not compare."""
    parts = []
    for trial in trials:
        numeric = {
            name: one
            for name, one in trial.distributions.items()
            if not isinstance(one, CategoricalDistribution)
        }
        if trial.state == TrialState.COMPLETE:
            parameters = {name: trial.params[name] for name in numeric}
            parts.append(
                create_trial(params=parameters, distributions=numeric, values=trial.values)
            )
    return parts

"""What a search says about its hyperparameters: functional ANOVA (Hutter et al. 2014).

A random forest is fitted to the trials, from hyperparameters to validation mAP. Over the search
space (uniformly, or uniformly in the logarithm, as it was searched) its variance falls apart into
what each hyperparameter explains by itself, V_i = Var(E[f | x_i]), what each two explain only
together, V_ij = Var(E[f | x_i, x_j]) - V_i - V_j, and the rest. The shares V_i / V and V_ij / V are
estimated by the pick-freeze method (Sobol' 1993) on quasi-random points.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import qmc
from sklearn.ensemble import RandomForestRegressor

from ssd_dist.experiment import TrialRecord
from ssd_dist.search_config import Range

LEAST_TRIALS = 5
"""Fewer say nothing."""
_LEAST_UNSEEN = 10
"""From so many trials on, those left out of a tree tell how good the forest is."""
_NUM_TREES = 128
_NUM_POINTS = 1 << 12
_TOGETHER = 0.1
"""Two hyperparameters that explain at least this share only together are spoken of."""
_LITTLE = 0.1
"""A hyperparameter that explains less than this, with all its interactions, mattered little."""
_LEAST_R2 = 0.3
"""A forest that explains less of the trials it has not seen is told of before its shares are."""
_SEVERAL_A_PARAMETER = 10
"""Trials for each hyperparameter from which on their number is not held against them."""
NAMES = {"alpha": "α", "l2_lambda": "λ", "lr": "the learning rate"}
"""What a sentence calls the named hyperparameters; the others go by their fields."""
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What a search says about its hyperparameters."""

    num_trials: int
    """Trials that it rests on: all that finished an epoch, also those that were stopped early, each
    with the best validation mAP that it had reached."""
    importance: Mapping[str, float]
    """Hyperparameter → the share of the forest's variance that it explains by itself, 0 to 1,
    largest first."""
    interactions: Sequence[tuple[str, str, float]]
    """Two hyperparameters, and the share that they explain only together; largest first."""
    r2_unseen: float | None
    """R² of the forest on trials that it was not fitted to (out of bag); below 0 it is worse than
    their mean. None where they are too few to say."""
    sentences: tuple[str, str]
    """What mattered, and what did not; where `r2_unseen` is low, that first."""


def learn(trials: Sequence[TrialRecord], space: Mapping[str, Range]) -> Learned | None:
    """What the trials of a search say about the hyperparameters of its space.

    None where fewer than `LEAST_TRIALS` of them finished an epoch, or all reached the same mAP.
    """
    rated = [
        trial
        for trial in trials
        if trial.map_11pt is not None and space.keys() <= trial.parameters.keys()
    ]
    values = np.array([trial.map_11pt for trial in rated])
    if len(rated) < LEAST_TRIALS or not np.ptp(values) or not space:
        return None
    points = np.array(
        [[_position(trial.parameters[name], space[name]) for name in space] for trial in rated]
    )
    has_unseen = len(rated) >= _LEAST_UNSEEN
    forest = RandomForestRegressor(_NUM_TREES, oob_score=has_unseen, random_state=0)
    forest.fit(points, values)
    alone, together = variance_shares(forest.predict, len(space))
    names = list(space)
    importance = dict(sorted(zip(names, alone, strict=True), key=lambda item: -item[1]))
    interactions = sorted(
        ((names[i], names[j], share) for (i, j), share in together.items()),
        key=lambda item: -item[2],
    )
    r2_unseen = float(forest.oob_score_) if has_unseen else None
    return Learned(
        num_trials=len(rated),
        importance=importance,
        interactions=interactions,
        r2_unseen=r2_unseen,
        sentences=_sentences(rated, importance, interactions, r2_unseen),
    )


def variance_shares(
    function: Callable[[np.ndarray], np.ndarray], num_inputs: int
) -> tuple[list[float], dict[tuple[int, int], float]]:
    """Shares of a function's variance over the unit cube: that of each input by itself, and that of
    each two only together; all 0 for a constant.

    Args:
        function: (N, d) → (N,).
        num_inputs: d.

    Two points that agree in some inputs and are independent in the others have the covariance
    Var(E[f | those inputs]).
    """
    drawn = qmc.Sobol(2 * num_inputs, seed=0).random(_NUM_POINTS)
    first, second = drawn[:, :num_inputs], drawn[:, num_inputs:]
    y_first, y_second = function(first), function(second)
    variance = float(np.var(np.concatenate([y_first, y_second])))

    def explained(*inputs: int) -> float:
        """By these inputs, together and each by itself."""
        mixed = second.copy()
        mixed[:, inputs] = first[:, inputs]
        centred = y_first - y_first.mean()
        return float(np.mean(centred * (function(mixed) - y_second))) / (variance or 1.0)

    alone = [max(0.0, explained(i)) for i in range(num_inputs)]
    together = {
        (i, j): max(0.0, explained(i, j) - alone[i] - alone[j])
        for i, j in itertools.combinations(range(num_inputs), 2)
    }
    return alone, together


def _position(value: Any, values: Range) -> float:
    """Where a value lies in its range, 0 to 1; choices take equal parts of it."""
    if values.choices is not None:
        choices = [list(one) if isinstance(one, tuple) else one for one in values.choices]
        given = list(value) if isinstance(value, tuple) else value
        return (choices.index(given) + 0.5) / len(choices)
    low, high = values.bounds
    if values.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _sentences(
    trials: Sequence[TrialRecord],
    importance: Mapping[str, float],
    interactions: Sequence[tuple[str, str, float]],
    r2_unseen: float | None,
) -> tuple[str, str]:
    by_map = sorted(trials, key=lambda trial: -(trial.map_11pt or 0.0))
    best = by_map[: max(3, round(len(trials) / 4))]
    first, *others = importance
    few = len(trials) < _SEVERAL_A_PARAMETER * len(importance)
    weak = r2_unseen is not None and r2_unseen < _LEAST_R2
    name, had = NAMES.get(first, first), f"the best {len(best)} trials had {_span(first, best)}"
    if weak:
        mattered = (
            f"these {len(trials)} trials say little about what mattered: a model fitted to them "
            f"explains {_percent(max(0.0, r2_unseen or 0.0))} of how those vary that it has not "
            f"seen. In this model {name} matters most, with {_percent(importance[first])} of its "
            f"variation by itself, and {had}"
        )
    else:
        mattered = (
            f"{name} mattered most: by itself it explains {_percent(importance[first])} of how "
            f"validation mAP varies over the space, and {had}"
        )
    for one, two, share in interactions[:1]:
        if share >= _TOGETHER:
            mattered += (
                f"; {NAMES.get(one, one)} and {NAMES.get(two, two)} explain another "
                f"{_percent(share)} only together"
            )
    if few and not weak:
        mattered = f"as far as {len(trials)} trials can tell, {mattered}"

    total = {
        name: importance[name]
        + sum(share for one, two, share in interactions if name in (one, two))
        for name in others
    }
    little = [name for name in others if total[name] < _LITTLE]
    if not others:
        rest = "nothing else was searched"
    elif little:
        spans = {name: f"{_span(name, best)} among the best" for name in little}
        parts = [f"{NAMES.get(n, n)} ({_percent(total[n])}; {spans[n]})" for n in little]
        rest = f"little depends on {listed(parts)}, interactions included"
    else:
        parts = [f"{NAMES.get(name, name)} ({_percent(total[name])})" for name in others]
        rest = f"none of the others can be left alone: {listed(parts)}, interactions included"
    if weak:
        rest = f"by the same model {rest}"
    return _sentence(mattered), _sentence(rest)


def _span(name: str, trials: Sequence[TrialRecord]) -> str:
    """`0.2 to 4.3`, or the different values where they are no numbers."""
    values = [trial.parameters[name] for trial in trials]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        low, high = _number(min(values)), _number(max(values))
        return low if low == high else f"{low} to {high}"
    return " or ".join(dict.fromkeys(map(str, values)))


def _number(value: float) -> str:
    """Two digits; small and large ones as 2.5·10⁻⁵."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{float(f'{value:.2g}'):g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}·10{str(int(exponent)).translate(_SUPERSCRIPT)}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"


def listed(parts: Sequence[str]) -> str:
    """`a, b and c`, of at least one part."""
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def _sentence(text: str) -> str:
    # α at the beginning stays small: its capital looks like the letter A.
    return f"{text if text.startswith(('α', 'λ')) else text[0].upper() + text[1:]}."

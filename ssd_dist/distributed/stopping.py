"""What stops weak trials early."""

from __future__ import annotations

from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner

from ssd_dist.search_config import SearchConfig


def build_pruner(search: SearchConfig) -> BasePruner:
    """Optuna's pruner; it is asked after each epoch, counted from 1, with the epoch's mAP.

    With several objectives nothing is stopped: Optuna's pruners compare one value.
    """
    if search.pruner == "none" or len(search.objectives) > 1:
        return NopPruner()
    if search.pruner == "median":
        return MedianPruner(
            # The median of fewer says little; Optuna's default of 5 would be half a short search.
            n_startup_trials=min(5, max(2, search.trials // 4)),
            n_warmup_steps=search.grace_epochs,
        )
    return SuccessiveHalvingPruner(
        min_resource=search.grace_epochs, reduction_factor=search.reduction_factor
    )

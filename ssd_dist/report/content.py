"""What a report is made of; nothing here is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssd_dist.evaluation.voc_ap import VocResult
from ssd_dist.experiment import TrialRecord, ranked
from ssd_dist.structures import Annotation, Detections


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReportContent:
    """Everything that a report says about one checkpoint on one split.

    Raises ValueError where parts don't belong together.
    """

    model_name: str
    config: Mapping[str, Any]
    """As `config.to_mapping` gives it."""
    hyperparameters: Mapping[str, float]
    """`alpha`, `l2_lambda`, `lr` of the checkpoint."""
    checkpoint: str
    """Path of the checkpoint."""
    data_name: str
    data_fingerprint: str
    split: str
    class_names: Sequence[str]
    annotations: Sequence[Annotation]
    detections: Sequence[Detections]
    """In any order; a picture without an entry has none."""
    result: VocResult
    """Of `detections` against `annotations`."""
    read_image: Callable[[int], np.ndarray]
    """Position among the annotations → the picture, (H, W, 3) uint8, RGB."""
    complexity: Mapping[str, Any]
    """`total_macs`, `total_params`, `layers`: [{name, kind, in_channels, out_channels, kernel,
    stride, groups, output_hw, params, macs}], `segments`: {name: {params, macs}}."""
    timing: Mapping[str, Any]
    """`ms_per_image`: {median, p10, p90}; `device`, `num_threads` and whatever else was measured,
    which is shown as it stands."""
    provenance: Mapping[str, Any]
    """`git_commit` (or None), `libraries`: {name: version}, `machine`: {cpu, gpu, cores, ...},
    `python`; shown as it stands."""
    validation_map_11pt: float | None = None
    """What the checkpoint reached when it was chosen."""
    leaderboard: Sequence[TrialRecord] | None = None
    """None: the checkpoint comes from a single training."""
    training_curve: Sequence[Mapping[str, float | None]] = ()
    """One mapping an epoch: epoch, loss, loss_conf, loss_loc, l2_term, lr, map_11pt; what is not
    known may be missing."""

    def __post_init__(self) -> None:
        if tuple(self.result.ap_11pt) != tuple(self.class_names):
            raise ValueError(
                f"the result is about the classes {list(self.result.ap_11pt)}, "
                f"the report about {list(self.class_names)}"
            )
        missing = {"alpha", "l2_lambda", "lr"} - set(self.hyperparameters)
        if missing:
            raise ValueError(f"hyperparameters lack {', '.join(sorted(missing))}")

    def trials_by_map(self) -> list[TrialRecord]:
        """The leaderboard, best first; trials that never validated come last."""
        return ranked(self.leaderboard or ())

"""What a report is made of; nothing here is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssd_dist.analysis.importance import Learned
from ssd_dist.analysis.repeats import Judgement, judge
from ssd_dist.evaluation.summary import Summary
from ssd_dist.evaluation.voc_ap import VocResult
from ssd_dist.experiment import TrialRecord, ranked
from ssd_dist.model.mirror import num_views
from ssd_dist.repeated import Repeated
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
    annotations: Sequence[Annotation]
    detections: Sequence[Detections]
    """In any order; a picture without an entry has none."""
    summary: Summary
    """Of `detections` against `annotations`."""
    read_image: Callable[[int], np.ndarray]
    """Position among the annotations → the picture, (H, W, 3) uint8, RGB."""
    complexity: Mapping[str, Any]
    """As :meth:`ssd_dist.analysis.complexity.Complexity.to_json` gives it: of one view."""
    timing: Mapping[str, Any]
    """As :meth:`ssd_dist.analysis.timing_report.TimingReport.to_json` gives it; at least `device`,
    `num_threads` and `inference_ms_per_image`: {median, p10, p90}. `left_out`, where it is there,
    says why the training step was not timed."""
    law: Mapping[str, Any] | None = None
    """`law` and `law_details` as :meth:`ssd_dist.analysis.law.Law.to_json` gives them; None: not
    measured."""
    provenance: Mapping[str, Any]
    """`git_commit` (or None), `libraries`: {name: version}, `machine`: {cpu, gpu, cores, ...},
    `python`; shown as it stands."""
    validation_map_11pt: float | None = None
    """What the checkpoint reached when it was chosen."""
    leaderboard: Sequence[TrialRecord] | None = None
    """None: the checkpoint comes from a single training."""
    num_seen: int | None = None
    """Pictures that the training or the choice of the checkpoint used; None: not known."""
    learned: Learned | None = None
    """None: there was no search, or too small a one to learn from."""
    repeats: Sequence[Repeated] | None = None
    """What the search trained again with several seeds, best mean first; None: nothing."""
    training_curve: Sequence[Mapping[str, float | None]] = ()
    """One mapping an epoch: epoch, loss, loss_conf, loss_loc, l2_term, lr, map_11pt; what is not
    known may be missing."""

    def __post_init__(self) -> None:
        if self.summary.num_images != len(self.annotations):
            raise ValueError(
                f"the summary is about {self.summary.num_images} pictures, the report about "
                f"{len(self.annotations)}"
            )
        missing = {"alpha", "l2_lambda", "lr"} - set(self.hyperparameters)
        if missing:
            raise ValueError(f"hyperparameters lack {', '.join(sorted(missing))}")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of class i + 1 at position i."""
        return self.summary.class_names

    @property
    def voc(self) -> VocResult:
        """Average precision, curves and ranks."""
        return self.summary.voc

    @property
    def num_views(self) -> int:
        """Mirror images of a picture, itself included, that the network meets to detect in it."""
        return num_views(self.config["postprocess"]["mirror"])

    @property
    def macs_of_a_picture(self) -> int:
        """Multiply-accumulates over all its views."""
        num_macs: int = self.num_views * self.complexity["total_macs"]
        return num_macs

    @property
    def judgement(self) -> Judgement | None:
        """Of the search's best beside the SSD paper's defaults; None where nothing was repeated."""
        return judge(self.repeats, self.split) if self.repeats else None

    def trials_by_map(self) -> list[TrialRecord]:
        """The leaderboard, best first; trials that never validated come last."""
        return ranked(self.leaderboard or ())

"""From a checkpoint's detections to its report: average precision, complexity, timing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ssd_dist.analysis.importance import Learned
from ssd_dist.analysis.repeats import Judgement
from ssd_dist.checkpoint import Checkpoint
from ssd_dist.config import ModelConfig, to_mapping
from ssd_dist.data.signed_urls import publishable
from ssd_dist.engine import place
from ssd_dist.evaluation.summary import summarize
from ssd_dist.evaluation.voc_ap import VocResult
from ssd_dist.experiment import TrialRecord
from ssd_dist.model.ssd import SSD
from ssd_dist.provenance import provenance
from ssd_dist.repeated import Repeated
from ssd_dist.report.analyse import Scope, analyse
from ssd_dist.report.content import ReportContent
from ssd_dist.report.seen import count_seen
from ssd_dist.report.write import write_report
from ssd_dist.structures import Detections, Split


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationOutcome:
    """What an evaluation found."""

    report: Path
    """report.html."""
    result: VocResult
    problems: tuple[str, ...]
    """What the reader dropped or repaired in the data."""
    judgement: Judgement | None
    """Of the search's best beside the SSD paper's defaults; None where nothing was repeated."""


def report_detections(
    checkpoint: Checkpoint,
    model: SSD,
    split: Split,
    detections: Sequence[Detections],
    out_dir: Path,
    *,
    checkpoint_folder: Path,
    data: str,
    data_format: str = "auto",
    scope: Scope = "quick",
    trials: Sequence[TrialRecord] | None = None,
    learned: Learned | None = None,
    repeats: Sequence[Repeated] | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> EvaluationOutcome:
    """Evaluates what a checkpoint found in a split and writes its report.

    The timing is this process's: on its GPU if it has one, else on the cores that it may use.

    Args:
        checkpoint: see checkpoint.py.
        model: the checkpoint's network.
        split: usually `test`, which nothing else opens.
        detections: of every picture of the split.
        out_dir: for what :func:`ssd_dist.report.write.write_report` writes, and the trace.
        checkpoint_folder: where the checkpoint lies, for the report.
        data: what the evaluation was given as `--data`; the checkpoint's own splits are looked for
            there, to say whether it has seen these pictures.
        data_format: of `data`.
        scope: how much of the cost is measured.
        trials: of the search that the checkpoint comes from.
        learned: what that search says about its hyperparameters.
        repeats: what it trained again with several seeds, best mean first.
        on_progress: takes a line before each part.
    """
    config, class_names = checkpoint.config, checkpoint.class_names
    shown = publishable(data)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    place(model, config, device)
    on_progress("average precision, its interval, COCO's measures, mistakes")
    summary = summarize(split.annotations, detections, class_names)
    analysis = analyse(
        model,
        config,
        split,
        device,
        scope=scope,
        out_dir=out_dir,
        data_name=f"{Path(shown).name}, {split.name}",
        on_progress=on_progress,
    )
    content = ReportContent(
        model_name=_model_name(config.model),
        config=to_mapping(config),
        hyperparameters={
            "alpha": config.alpha,
            "l2_lambda": config.l2_lambda,
            "lr": config.lr,
        },
        checkpoint=str(checkpoint_folder),
        data_name=Path(shown).name,
        data_fingerprint=split.fingerprint,
        split=split.name,
        annotations=split.annotations,
        detections=detections,
        summary=summary,
        read_image=split.read_image,
        complexity=analysis.complexity,
        timing=analysis.timing,
        law=analysis.law,
        provenance={**provenance(), "data": shown},
        validation_map_11pt=checkpoint.metrics.get("map_11pt"),
        leaderboard=trials,
        num_seen=count_seen(checkpoint, split, data, data_format),
        learned=learned,
        repeats=repeats or None,
        training_curve=checkpoint.history,
    )
    report = write_report(out_dir, content)
    return EvaluationOutcome(report, summary.voc, split.problems, content.judgement)


def _model_name(model: ModelConfig) -> str:
    parts = [model.architecture, f"{model.image_size} px"]
    if model.architecture in ("ssd", "ssdlite"):
        parts.insert(1, model.backbone)
    return " · ".join(parts)

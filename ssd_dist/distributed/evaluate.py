"""An evaluation on the cluster: read and checked here, predicted by workers, reported here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from ssd_dist.analysis.importance import Learned
from ssd_dist.checkpoint import load_checkpoint
from ssd_dist.data import open_split
from ssd_dist.distributed.cluster import connect, fitting_workers, silence
from ssd_dist.distributed.predict import predict_on_cluster
from ssd_dist.distributed.prediction_stream import told_failures
from ssd_dist.distributed.repeat_values import with_split_values
from ssd_dist.experiment import TrialRecord, anchored
from ssd_dist.model.restored import restored
from ssd_dist.repeated import Repeated
from ssd_dist.report.analyse import Scope
from ssd_dist.report.evaluate import EvaluationOutcome, report_detections
from ssd_dist.terminal import Terminal


def run_evaluation(
    checkpoint_folder: Path,
    data: str,
    split_name: str,
    out_dir: Path,
    terminal: Terminal,
    *,
    num_workers: int | None = None,
    batch_size: int = 16,
    scope: Scope = "quick",
    trials: list[TrialRecord] | None = None,
    learned: Learned | None = None,
    repeats: Sequence[Repeated] | None = None,
    with_repeats: bool = True,
    data_format: str = "auto",
) -> EvaluationOutcome:
    """Evaluates a checkpoint on a split and writes its report.

    Args:
        checkpoint_folder: see checkpoint.py; this process alone reads it.
        data: a root folder that every node sees, or `synthetic`; its classes must be the
            checkpoint's.
        split_name: usually `test`, which nothing else opens.
        out_dir: for report.html, report.md, report.json, detections.json and trace.json.
        terminal: where progress is shown.
        num_workers: None: one a GPU, or one a CPU core where there is no GPU.
        batch_size: pictures that a worker takes at a time. Neither number changes the result.
        scope: how much of the detector's cost is measured, see report/analyse.py.
        trials: of the search that the checkpoint comes from.
        learned: what that search says about its hyperparameters.
        repeats: what it trained again with several seeds, best mean first.
        with_repeats: whether to evaluate on the split, too, every seed of the search's best and of
            the SSD paper's defaults.
        data_format: of `data`, as `data.format` in a configuration.

    Raises:
        ValueError, FileNotFoundError: what was asked for can't be, or a picture can't be read; the
            message names the file.
        JobFailedError: the prediction failed.
    """
    if batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, not {batch_size}")
    checkpoint = load_checkpoint(checkpoint_folder)
    _, data = anchored(checkpoint.config, data)
    split = open_split(data, split_name, checkpoint.class_names, data_format=data_format)
    model = restored(checkpoint, to_detect=False)
    cluster = connect(terminal)
    num_workers = fitting_workers(num_workers, cluster, -(-len(split.annotations) // batch_size))
    count = len(split.annotations)
    terminal.line(f"predicting {count} pictures on {num_workers} {cluster.device} worker(s)")
    started = time.perf_counter()
    with terminal.bar("prediction"), silence(), told_failures():
        detections = predict_on_cluster(
            checkpoint,
            split,
            cluster,
            num_workers=num_workers,
            batch_size=batch_size,
            on_progress=lambda done: terminal.advance(done, count),
        )
    terminal.line(f"predicted in {time.perf_counter() - started:.1f} s")
    if repeats and with_repeats:
        with told_failures():
            repeats = with_split_values(repeats, split, cluster, terminal)
    return report_detections(
        checkpoint,
        model,
        split,
        detections,
        out_dir,
        checkpoint_folder=checkpoint_folder,
        data=data,
        data_format=data_format,
        scope=scope,
        trials=trials,
        learned=learned,
        repeats=repeats,
        on_progress=terminal.line,
    )

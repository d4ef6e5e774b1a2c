"""From a checkpoint to its report: prediction on a split, average precision, complexity, timing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ssd_dist.analysis.complexity import count_complexity
from ssd_dist.analysis.timing import time_inference
from ssd_dist.checkpoint import load_checkpoint
from ssd_dist.config import to_mapping
from ssd_dist.engine import Worker, place
from ssd_dist.evaluation.voc_ap import VocResult, evaluate_voc
from ssd_dist.experiment import TrialRecord
from ssd_dist.model.ssd import build_model
from ssd_dist.provenance import provenance
from ssd_dist.report.content import ReportContent
from ssd_dist.report.write import write_report
from ssd_dist.training import open_dataset, predict_split

NUM_TIMED_PICTURES = 50


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationOutcome:
    """What an evaluation found."""

    report: Path
    """report.html."""
    result: VocResult
    problems: tuple[str, ...]
    """What the reader dropped or repaired in the data."""


def evaluate_checkpoint(
    checkpoint_folder: Path,
    data: str,
    split: str,
    out_dir: Path,
    *,
    trials: list[TrialRecord] | None = None,
) -> EvaluationOutcome:
    """Evaluates a checkpoint on a split and writes its report, on the GPU if there is one.

    Args:
        checkpoint_folder: see checkpoint.py.
        data: a VOC root, or `synthetic`; its classes must be the checkpoint's.
        split: usually `test`, which nothing else opens.
        out_dir: for report.html, report.json and detections.json.
        trials: of the search that the checkpoint comes from.

    Raises ValueError or FileNotFoundError, naming the file, for a checkpoint or data that can't be
    read.
    """
    checkpoint = load_checkpoint(checkpoint_folder)
    config, class_names = checkpoint.config, checkpoint.class_names
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dataset = open_dataset(config, data, split, class_names=class_names)
    model = build_model(config.model, len(class_names), load_weights=False)
    model.load_state_dict(checkpoint.weights)
    place(model, config, device)

    detections = predict_split(model, dataset, config, Worker(device=device))
    result = evaluate_voc(dataset.split.annotations, detections, class_names)
    pictures = [dataset[i].image for i in range(min(len(dataset), NUM_TIMED_PICTURES))]
    timing = {
        "ms_per_image": asdict(time_inference(model, pictures, config, device)),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "num_threads": torch.get_num_threads(),
        "batch_size": 1,
        "num_pictures": len(pictures),
        "mirror": config.postprocess.mirror,
        "measured": "network, decoding and NMS, picture in memory",
    }
    architecture = config.model.architecture
    report = write_report(
        out_dir,
        ReportContent(
            model_name=(
                f"{architecture} · {config.model.backbone} · {config.model.image_size} px"
                if architecture in ("ssd", "ssdlite")
                else f"{architecture} · {config.model.image_size} px"
            ),
            config=to_mapping(config),
            hyperparameters={
                "alpha": config.alpha,
                "l2_lambda": config.l2_lambda,
                "lr": config.lr,
            },
            checkpoint=str(checkpoint_folder),
            data_name=Path(data).name,
            data_fingerprint=dataset.split.fingerprint,
            split=split,
            class_names=class_names,
            annotations=dataset.split.annotations,
            detections=detections,
            result=result,
            read_image=dataset.split.read_image,
            complexity=count_complexity(model, config.model.image_size).to_json(),
            timing=timing,
            provenance={**provenance(), "data": data},
            validation_map_11pt=checkpoint.metrics.get("map_11pt"),
            leaderboard=trials,
            training_curve=checkpoint.history,
        ),
    )
    return EvaluationOutcome(report, result, dataset.split.problems)

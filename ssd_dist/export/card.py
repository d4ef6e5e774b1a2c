"""MODEL_CARD.md: what an exported detector was made from, how good it is, and what it is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ssd_dist.checkpoint import Checkpoint
from ssd_dist.config import to_mapping
from ssd_dist.experiment import read_json
from ssd_dist.export.check import BOX_TOLERANCE, SCORE_TOLERANCE, Agreement
from ssd_dist.export.measure import Variant, variant_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class CardContent:
    """What the card tells."""

    checkpoint: Checkpoint
    file: str
    format: str
    size: tuple[int, int] | None
    """Width and height of the pictures it takes; None: any."""
    num_outputs: int
    """D, the most detections of a picture."""
    least_prior: float
    """Shorter side of the smallest prior, relative to the picture's."""
    checked_on: str
    """Split and data set."""
    agreement: Agreement
    variants: tuple[Variant, ...]
    num_map_pictures: int | None
    """Pictures on which the variants' mAP was measured."""
    report: Mapping[str, Any] | None
    """report.json of an evaluation of this checkpoint."""
    weights_licence: str
    data_licence: str


def matching_report(path: Path, checkpoint: Checkpoint) -> Mapping[str, Any] | None:
    """report.json at `path`, if there is one and it is of this checkpoint; else None.

    Their paths may have changed, so they are told by what they found in the validation split.
    """
    if not path.is_file():
        return None
    report = read_json(path)
    same = (
        isinstance(report, dict)
        and report.get("validation_map_11pt") == checkpoint.metrics.get("map_11pt")
        and report.get("class_names") == list(checkpoint.class_names)
    )
    return report if same else None


def check_report(path: Path, checkpoint: Checkpoint) -> None:
    """Raises FileNotFoundError or ValueError if a report that somebody names can't be quoted: it is
    not there, or not of this checkpoint."""
    if not path.is_file():
        raise FileNotFoundError(f"--report: there is no file {path}")
    if matching_report(path, checkpoint) is None:
        raise ValueError(
            f"--report: {path} is not the report.json of an evaluation of this checkpoint"
        )


def model_card(content: CardContent) -> str:
    """The card as Markdown."""
    sections = [
        f"# {_name(content.checkpoint)}\n\n{_introduction(content)}",
        f"## Classes\n\n{_classes(content.checkpoint)}",
        f"## Data\n\n{_data(content.checkpoint)}",
        f"## Accuracy\n\n{_accuracy(content)}",
        f"## This file beside PyTorch\n\n{_agreement(content)}",
        f"## Limits\n\n{_limits(content)}",
        f"## Licences\n\n{_licences(content)}",
        f"## Configuration\n\n{_configuration(content.checkpoint)}",
    ]
    return "\n\n".join(sections) + "\n"


def _name(checkpoint: Checkpoint) -> str:
    model = checkpoint.config.model
    parts = [model.architecture, f"{model.image_size} pixels"]
    if model.architecture in ("ssd", "ssdlite"):
        parts.insert(1, model.backbone)
    return "Object detector: " + ", ".join(parts)


def _introduction(content: CardContent) -> str:
    size = "of any size, one size a batch"
    if content.size is not None:
        size = f"of {content.size[0]}x{content.size[1]} pixels"
    d = content.num_outputs
    return (
        f"`{content.file}` ({content.format}) takes `pictures`, (B, 3, H, W) uint8, RGB, {size}, "
        "and resizes them itself. It gives\n\n"
        f"- `boxes` (B, {d}, 4) float32: left, top, right, bottom, in pixels of the picture\n"
        f"- `scores` (B, {d}) float32: 0 to 1, highest first\n"
        f"- `labels` (B, {d}) int64: 1 is the first line of `labels.txt`\n"
        f"- `num_detections` (B,) int64: how many are there; what follows is zeros\n\n"
        "Non-maximum suppression is done."
    )


def _classes(checkpoint: Checkpoint) -> str:
    return "\n".join(f"{i}. {_plain(name)}" for i, name in enumerate(checkpoint.class_names, 1))


def _data(checkpoint: Checkpoint) -> str:
    config = checkpoint.config
    return (
        f"Trained on the split `{config.data.train_split}` of `{Path(checkpoint.data).name}` "
        f"(fingerprint {checkpoint.data_fingerprint}), {checkpoint.epoch} epochs; the epoch was "
        f"chosen on the split `{config.data.val_split}`."
    )


def _accuracy(content: CardContent) -> str:
    report = content.report
    if report is None:
        lines = [
            f"Validation 11-point mAP at IoU 0.5: "
            f"**{content.checkpoint.metrics.get('map_11pt', float('nan')):.4f}**. The epoch was "
            "chosen by this number, which makes it a little too good, and it has no interval: "
            "`jobs/evaluate.py` measures both on a split that had no part in it."
        ]
        prefix = "ap_11pt/"
        per_class = {
            name.removeprefix(prefix): value
            for name, value in content.checkpoint.metrics.items()
            if name.startswith(prefix)
        }
    else:
        interval = report.get("map_11pt_interval")
        said = f" (95 % interval {interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
        lines = [
            f"11-point mAP at IoU {report['iou_threshold']} on the split `{report['split']}` "
            f"({report['num_images']} pictures): **{report['map_11pt']:.4f}**{said}."
        ]
        per_class = report["ap_11pt"]
    rows = [
        f"| {_plain(name)} | {'no objects' if ap is None else f'{ap:.4f}'} |"
        for name, ap in per_class.items()
    ]
    return "\n".join([*lines, "", "| class | AP |", "|---|---|", *rows])


def _agreement(content: CardContent) -> str:
    found = content.agreement
    rows = variant_rows(content.variants)
    table = ["| " + " | ".join(row) + " |" for row in rows]
    table.insert(1, "|---" * len(rows[0]) + "|")
    on = f"mAP is on {content.num_map_pictures} pictures. " if content.num_map_pictures else ""
    return (
        f"On {found.num_pictures} pictures ({content.checked_on}) it finds the same "
        f"{found.num_detections} detections as PyTorch: scores differ by "
        f"{found.score_difference:.1e} at most, coordinates by {found.box_difference:.1e} pixels "
        f"(allowed: {SCORE_TOLERANCE:g}, and {BOX_TOLERANCE:g} of the longer side). {on}The time "
        "is of one picture on one thread of the exporting machine, from its decoded pixels to its "
        "detections.\n\n" + "\n".join(table)
    )


def _limits(content: CardContent) -> str:
    config = content.checkpoint.config
    limits = [
        "It knows the classes above and no others, in pictures like those it was trained on.",
        f"Every picture is resized to {config.model.image_size}x{config.model.image_size} pixels, "
        "whatever its shape.",
        f"The shorter side of its smallest prior is {content.least_prior:.3f} of the picture's "
        "side; much smaller objects are hardly found.",
        f"Detections with scores up to {config.postprocess.score_threshold:g} are left out; at "
        f"most {content.num_outputs} a picture.",
        "It computes in float32; a training in bf16 evaluates a little differently."
        if config.precision == "bf16"
        else "Scores are not calibrated probabilities.",
    ]
    if content.report is not None and content.report.get("map_11pt_interval"):
        limits.append(
            "The interval above is what so few test pictures leave open; on other pictures the "
            "accuracy may be another."
        )
    if content.size is None:
        limits.append(
            "Pictures more than twice as high as wide may be resized with grey levels that differ "
            "by one from those of evaluation."
        )
    return "\n".join(f"- {limit}" for limit in limits)


def _licences(content: CardContent) -> str:
    return f"- Weights: {content.weights_licence}.\n- Data: {content.data_licence}."


def _configuration(checkpoint: Checkpoint) -> str:
    mapping = to_mapping(checkpoint.config)
    mapping.pop("search")
    text = yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True)
    return f"```yaml\n{text}```"


def _plain(name: str) -> str:
    """A class name that Markdown takes as it is."""
    return name.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")

"""Renders the report's page: gathers what the template shows and fills it in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ssd_dist.report import formats
from ssd_dist.report.content import ReportContent
from ssd_dist.report.json_files import plain
from ssd_dist.report.pictures import best_f1, make_gallery
from ssd_dist.report.plots import (
    map_against,
    over_epochs,
    precision_recall,
    trial_curves,
)
from ssd_dist.report.svg import NUM_SERIES

_HERE = Path(__file__).parent
_CLASSES_ON_FIRST_PAGE = 12
HYPERPARAMETER_SYMBOLS = {"alpha": "α", "l2_lambda": "λ", "lr": "Learning rate"}


def render_html(content: ReportContent) -> str:
    """The whole page as one text: style, script, plots and pictures inside, nothing fetched.

    Whatever comes from the user (class names, paths, configuration) is escaped.
    """
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        measure=formats.measure,
        hyperparameter=formats.hyperparameter,
        count=formats.count,
        three_digits=formats.three_digits,
        duration=formats.duration,
    )
    classes = _classes(content)
    return environment.get_template("report.html").render(
        content=content,
        result=content.result,
        gallery=make_gallery(content),
        chosen_on=[content.config.get("data", {}).get(key) for key in ("train_split", "val_split")],
        classes=classes,
        shown_classes=_highest_and_lowest(classes),
        hyperparameters=_hyperparameters(content.hyperparameters),
        parameters=formats.magnitude(content.complexity["total_params"]),
        time=_time(content),
        trials=content.trials_by_map(),
        searched=_searched(content),
        trial_curves=trial_curves(content.trials_by_map()),
        curves=_training_curves(content.training_curve),
        layers=content.complexity["layers"],
        segments=_segments(content.complexity),
        percent=formats.percent,
        provenance=_provenance(content),
        config_yaml=yaml.safe_dump(plain(content.config), sort_keys=False, allow_unicode=True),
        symbols=HYPERPARAMETER_SYMBOLS,
    )


def _classes(content: ReportContent) -> list[dict[str, Any]]:
    """One row a class: its AP, its curve, and the score threshold with the best F1."""
    result = content.result
    rows = []
    for index, name in enumerate(content.class_names):
        occurs = result.ap_11pt[name] is not None
        best = best_f1(result.curves[name])
        rows.append(
            {
                "name": name,
                "series": index % NUM_SERIES,
                "ap": result.ap_11pt[name],
                "num_objects": result.num_objects[name],
                "threshold": best[0] if best else None,
                "precision": best[1] if best else None,
                "recall": best[2] if best else None,
                "ranks": result.ranks[name],
                "plot": precision_recall(result.curves[name], result.ranks[name], index)
                if occurs
                else None,
            }
        )
    return rows


def _highest_and_lowest(classes: list[dict[str, Any]]) -> list[dict[str, Any] | None]:
    """The classes that the first page shows: all if they are few, else both ends by AP, with None
    for those between."""
    if len(classes) <= _CLASSES_ON_FIRST_PAGE:
        return list(classes)
    occurring = [row for row in classes if row["ap"] is not None]
    ordered = sorted(occurring, key=lambda row: -row["ap"])
    half = _CLASSES_ON_FIRST_PAGE // 2
    if len(ordered) <= 2 * half:
        return [*ordered, None]
    return [*ordered[:half], None, *ordered[-half:]]


def _hyperparameters(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"symbol": HYPERPARAMETER_SYMBOLS.get(name, name), "name": name, "value": value}
        for name, value in values.items()
    ]


def _time(content: ReportContent) -> dict[str, Any]:
    """Time an image, and what follows from it: images a second, and operations a second."""
    ms = content.timing["ms_per_image"]
    rate = formats.magnitude(content.complexity["total_macs"] / (ms["median"] / 1000))
    rest = {key: value for key, value in content.timing.items() if key != "ms_per_image"}
    return {
        "ms": ms,
        "per_second": 1000 / ms["median"],
        "macs_per_second": f"{rate[0]} {rate[1]}MAC/s",
        "pairs": _pairs(rest),
    }


def _searched(content: ReportContent) -> list[dict[str, Any]]:
    """One entry a searched hyperparameter, the three named ones first, with its scatter plot."""
    trials = content.leaderboard or ()
    found = {name for trial in trials for name in trial.parameters}
    names = [name for name in HYPERPARAMETER_SYMBOLS if name in found]
    names += sorted(found - set(names))
    return [
        {
            "name": name,
            "symbol": HYPERPARAMETER_SYMBOLS.get(name, name),
            "plot": map_against(name, trials),
        }
        for name in names
    ]


def _training_curves(epochs: Sequence[Mapping[str, Any]]) -> list[tuple[str, Markup]]:
    """(caption, plot) of what is known about the epochs."""
    panels = [
        ("Validation mAP", {"map_11pt": "mAP"}, True),
        (
            "Training loss",
            {"loss": "total", "loss_conf": "class", "loss_loc": "box", "l2_term": "L2"},
            False,
        ),
        ("Learning rate", {"lr": "rate"}, False),
    ]
    drawn = [
        (caption, over_epochs(epochs, lines, unit_range=unit_range))
        for caption, lines, unit_range in panels
    ]
    return [(caption, plot) for caption, plot in drawn if plot is not None]


def _segments(complexity: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Parts of the model with their shares of the operations and the parameters."""
    return [
        {"name": name, "macs": part.get("macs", 0), "params": part.get("params", 0)}
        for name, part in complexity.get("segments", {}).items()
    ]


def _provenance(content: ReportContent) -> list[tuple[str, list[tuple[str, str]]]]:
    """(heading, lines): what was evaluated, then one group for each nested mapping."""
    single = {k: v for k, v in content.provenance.items() if not isinstance(v, Mapping)}
    evaluated = {
        "checkpoint": content.checkpoint,
        "data": content.data_name,
        "split": content.split,
        "fingerprint": content.data_fingerprint,
        **single,
    }
    groups = {k: v for k, v in content.provenance.items() if isinstance(v, Mapping)}
    return [("Evaluation", _pairs(evaluated))] + [
        (str(name).replace("_", " ").capitalize(), _pairs(group)) for name, group in groups.items()
    ]


def _pairs(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as (name, text) lines, `libraries · torch`: `2.14.1`."""
    lines: list[tuple[str, str]] = []
    for key, value in mapping.items():
        name = prefix + str(key).replace("_", " ")
        if isinstance(value, Mapping):
            lines += _pairs(value, f"{name} · ")
        elif isinstance(value, float):
            lines.append((name, formats.three_digits(value)))
        else:
            lines.append((name, "none" if value is None else str(value)))
    return lines

"""The report in short for a pull request: report.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ssd_dist.repeated import spread
from ssd_dist.report import formats
from ssd_dist.report.content import ReportContent
from ssd_dist.report.sections.accuracy import class_rows
from ssd_dist.report.sections.answer import SYMBOLS, answer
from ssd_dist.report.sections.timing import timing
from ssd_dist.terminal import format_value


def render_markdown(content: ReportContent) -> str:
    """The answer, average precision by class, the timing, and links to the other files.

    Whatever comes from the user (class names, paths) is escaped.
    """
    blocks = [
        *_answer(content),
        _classes(content),
        *_repeats(content),
        *_timing(content),
        _links(content),
    ]
    return "\n\n".join(blocks) + "\n"


def _answer(content: ReportContent) -> list[str]:
    shown = answer(content, class_rows(content))
    interval = shown["interval"]
    bounds = (
        ""
        if interval is None
        else f" (95 % interval {formats.measure(interval.low)} to {formats.measure(interval.high)})"
    )
    validation = (
        ""
        if content.validation_map_11pt is None
        else f"; {formats.measure(content.validation_map_11pt)} on the validation split"
    )
    values = ", ".join(
        f"{SYMBOLS.get(name, name)} {value:.3g}" for name, value in content.hyperparameters.items()
    )
    trials = "" if shown["num_trials"] is None else f", the best of {shown['num_trials']} trials"
    if shown["repeats"] is not None and shown["repeats"]["paper_won"]:
        trials = f", the SSD paper's defaults, which none of {shown['num_trials']} trials beats"
    facts = [
        f"**{content.split} mAP {formats.measure(content.voc.map_11pt)}**{bounds}, "
        f"{formats.count(len(content.annotations))} pictures{validation}",
        f"{formats.three_digits(shown['ms']['median'])} ms a picture ({_text(shown['device'])})",
        f"{formats.with_prefix(content.complexity['total_params'])} parameters, "
        f"{formats.with_prefix(content.macs_of_a_picture)} multiply-accumulates a picture",
        f"{values}{trials}",
    ]
    if shown["repeats"] is not None:
        facts.append(_text(shown["repeats"]["sentence"]))
    title = f"# {_text(content.model_name)} on {_text(content.data_name)}"
    return [title, "\n".join(f"- {fact}" for fact in facts)]


def _classes(content: ReportContent) -> str:
    rows = [
        (
            _text(row["name"]),
            formats.count(row["num_objects"]),
            formats.measure(row["ap"]),
            formats.measure(row["ap_area"]),
            *(
                formats.measure(None if row["best"] is None else getattr(row["best"], key))
                for key in ("threshold", "precision", "recall")
            ),
        )
        for row in class_rows(content)
    ]
    header = ("class", "objects", "AP", "AP (area)", "best threshold", "precision", "recall")
    mean = (
        "**mean**",
        "",
        f"**{formats.measure(content.voc.map_11pt)}**",
        formats.measure(content.voc.map_area),
        "",
        "",
        "",
    )
    return _table(header, [*rows, mean])


def _repeats(content: ReportContent) -> list[str]:
    if content.repeats is None:
        return []
    rows = [
        (
            _text(one.name),
            spread(one.values),
            spread(one.split_values or ()),
            *(_text(format_value(value)) for value in one.parameters.values()),
        )
        for one in content.repeats
    ]
    names = [_text(SYMBOLS.get(name, name)) for name in content.repeats[0].parameters]
    return [_table(("trained again", "validation mAP", f"{content.split} mAP", *names), rows)]


def _timing(content: ReportContent) -> list[str]:
    shown = timing(content)
    tables = [("training step", shown["step"]), ("inference", shown["inference"])]
    return [
        _table(
            (title, "median ms", "p10", "p90", "share"),
            [
                *(
                    (row["name"], *_percentiles(row), formats.percent(row["share"], 1))
                    for row in segments["rows"]
                ),
                ("**the whole**", *_percentiles(segments["total"]), ""),
            ],
        )
        for title, segments in tables
        if segments is not None
    ]


def _percentiles(values: dict[str, float]) -> tuple[str, ...]:
    return tuple(formats.three_digits(values[key]) for key in ("median", "p10", "p90"))


def _links(content: ReportContent) -> str:
    files = ["report.html", "report.json", "detections.json"]
    if content.timing.get("trace"):
        files.append(content.timing["trace"])
    commit = content.provenance.get("git_commit") or "not known"
    return (
        f"{' · '.join(f'[{name}]({name})' for name in files)}\n\n"
        f"commit {_text(commit)}, data {_text(content.data_fingerprint)}"
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column to the left, the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(text: str) -> str:
    """So that Markdown shows it as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]()<>#+!|~&])", r"\\\1", " ".join(str(text).split()))

"""Renders the report's page: gathers what the templates show and fills them in."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ssd_dist.report import formats
from ssd_dist.report.content import ReportContent
from ssd_dist.report.pictures import make_gallery
from ssd_dist.report.sections.accuracy import MOST_CURVES, accuracy, class_rows
from ssd_dist.report.sections.answer import answer
from ssd_dist.report.sections.complexity import complexity
from ssd_dist.report.sections.law import law
from ssd_dist.report.sections.provenance import provenance
from ssd_dist.report.sections.repeats import repeats
from ssd_dist.report.sections.search import search
from ssd_dist.report.sections.timing import timing
from ssd_dist.report.sections.training import training

_TEMPLATES = Path(__file__).parent / "templates"
_FILTERS = (
    formats.count,
    formats.duration,
    formats.hyperparameter,
    formats.measure,
    formats.num_bytes,
    formats.three_digits,
    formats.with_prefix,
)


def environment() -> Environment:
    """Templates and their filters; what they show is escaped."""
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update({function.__name__: function for function in _FILTERS})
    made.globals["percent"] = formats.percent
    return made


def render_html(content: ReportContent) -> str:
    """The whole page as one text: style, script, plots and pictures inside, nothing fetched.

    Whatever comes from the user (class names, paths, configuration) is escaped.
    """
    classes = class_rows(content)
    return (
        environment()
        .get_template("page.html")
        .render(
            content=content,
            classes=classes,
            most_curves=MOST_CURVES,
            gallery=make_gallery(content),
            answer=answer(content, classes),
            accuracy=accuracy(content),
            search=search(content),
            repeats=repeats(content),
            training=training(content),
            complexity=complexity(content),
            timing=timing(content),
            law=law(content),
            provenance=provenance(content),
        )
    )

"""Writes a report: report.html, report.md, report.json and detections.json."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from ssd_dist.report.content import ReportContent
from ssd_dist.report.json_files import detections_json, report_json
from ssd_dist.report.markdown import render_markdown
from ssd_dist.report.render import render_html


def write_report(out_dir: str | Path, content: ReportContent) -> Path:
    """Writes the four files into `out_dir`, made if need be, and returns that of report.html.

    All are rendered before the first is written, and each is written beside its place and then
    renamed: a failure leaves what was there before.
    """
    out_dir = Path(out_dir)
    texts = {
        "detections.json": detections_json(content.detections, content.class_names),
        "report.json": report_json(content),
        "report.md": render_markdown(content),
        "report.html": render_html(content),
    }
    out_dir.mkdir(parents=True, exist_ok=True)
    beside = {name: out_dir / f".{name}.{uuid.uuid4().hex}" for name in texts}
    try:
        for name, text in texts.items():
            beside[name].write_text(text, encoding="utf-8")
        for name in texts:
            os.replace(beside[name], out_dir / name)  # noqa: PTH105 - atomic, on Windows too
    finally:
        for path in beside.values():
            path.unlink(missing_ok=True)
    return out_dir / "report.html"

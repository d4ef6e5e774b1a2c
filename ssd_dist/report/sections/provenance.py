"""Where the results come from: what it takes to make the report again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from ssd_dist.report import formats
from ssd_dist.report.content import ReportContent
from ssd_dist.report.json_files import plain


def provenance(content: ReportContent) -> dict[str, Any]:
    """`groups`: (heading, lines), what was evaluated and then one for each nested mapping; and the
    configuration as YAML."""
    single = {k: v for k, v in content.provenance.items() if not isinstance(v, Mapping)}
    evaluated = {
        "checkpoint": content.checkpoint,
        "data": content.data_name,
        "split": content.split,
        "fingerprint": content.data_fingerprint,
        **single,
    }
    groups = {k: v for k, v in content.provenance.items() if isinstance(v, Mapping)}
    return {
        "groups": [("Evaluation", _pairs(evaluated))]
        + [(_words(str(name)).capitalize(), _pairs(group)) for name, group in groups.items()],
        "config_yaml": yaml.safe_dump(plain(content.config), sort_keys=False, allow_unicode=True),
    }


def _pairs(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as (name, text) lines, `libraries · torch`: `2.14.1`."""
    lines: list[tuple[str, str]] = []
    for key, value in mapping.items():
        name = prefix + _words(str(key))
        if isinstance(value, Mapping):
            lines += _pairs(value, f"{name} · ")
        elif isinstance(value, float):
            lines.append((name, formats.three_digits(value)))
        else:
            lines.append((name, "none" if value is None else str(value)))
    return lines


def _words(name: str) -> str:
    return name.replace("_", " ")

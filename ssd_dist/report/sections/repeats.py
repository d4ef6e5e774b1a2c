"""What was trained again with several seeds, and whether the search's best beats the paper's."""

from __future__ import annotations

from typing import Any

from ssd_dist.repeated import spread
from ssd_dist.report.content import ReportContent
from ssd_dist.report.repeat_plot import seed_values
from ssd_dist.report.sections.answer import SYMBOLS


def repeats(content: ReportContent) -> dict[str, Any] | None:
    """What the part on the repeats shows; None where nothing was repeated."""
    judgement = content.judgement
    if content.repeats is None or judgement is None:
        return None
    return {
        "sentence": judgement.sentence,
        "split": content.split,
        "on_split": any(one.split_values is not None for one in content.repeats),
        "num_seeds": max(len(one.runs) for one in content.repeats),
        "parameters": [(name, SYMBOLS.get(name, name)) for name in content.repeats[0].parameters],
        "rows": [
            {
                "name": one.name,
                "validation": spread(one.values),
                "on_split": spread(one.split_values or ()),
                "parameters": one.parameters,
                "num_diverged": sum(run.state == "diverged" for run in one.runs),
                "num_left_out": len(one.runs) - len(one.measured),
            }
            for one in content.repeats
        ],
        "plot": seed_values(content.repeats),
    }

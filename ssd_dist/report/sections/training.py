"""How the training of the checkpoint went."""

from __future__ import annotations

from markupsafe import Markup

from ssd_dist.report.content import ReportContent
from ssd_dist.report.training_plots import over_epochs

_PANELS = (
    ("Validation mAP", {"map_11pt": "mAP"}, True),
    ("Training loss", {"loss": "Eq. 1", "loss_conf": "class", "loss_loc": "box"}, False),
    # Not in Eq. 1, and often many times as large.
    ("L2 term", {"l2_term": "λ·ΣW²"}, False),
    ("Learning rate", {"lr": "rate"}, False),
)


def training(content: ReportContent) -> list[tuple[str, Markup]]:
    """(caption, plot) of what is known about the epochs."""
    drawn = [
        (caption, over_epochs(content.training_curve, lines, is_map=is_map))
        for caption, lines, is_map in _PANELS
    ]
    return [(caption, plot) for caption, plot in drawn if plot is not None]

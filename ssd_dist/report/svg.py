"""Matplotlib figures as inline SVG that takes its colours and its font from the page.

Colours are drawn as placeholders and then replaced by the page's CSS variables, so that a plot
follows the page from light to dark; text stays text.
"""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

NUM_SERIES = 7
"""Colours that the page has, `--series-0` … ; classes beyond share them in turn."""

INK, MUTED, RULE, PAPER = "#010203", "#020304", "#030405", "#040506"
SERIES = [f"#0506{i:02x}" for i in range(NUM_SERIES)]
"""Placeholders: draw with these colours and no others."""
_CSS_OF_PLACEHOLDER = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    PAPER: "var(--paper)",
    **{colour: f"var(--series-{i})" for i, colour in enumerate(SERIES)},
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10.5,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10.5,
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
}
"""For `matplotlib.rc_context`."""


def panel(width: float, height: float, *, right: float = 14) -> tuple[Figure, Axes]:
    """A figure of one plot, sizes in CSS pixels; room for the labels left and below."""
    figure = Figure(figsize=(width / 72, height / 72), facecolor="none")
    box = (48 / width, 42 / height, (width - 48 - right) / width, (height - 56) / height)
    axes = figure.add_axes(box)
    axes.set_facecolor("none")
    return figure, axes


def to_svg(figure: Figure, name: str) -> Markup:
    """The figure as an <svg> element for an HTML page: no prologue, no ids of groups, no size of
    its own, colours from the page."""
    buffer = io.StringIO()
    # The salt makes ids that are the same in every run and differ from plot to plot.
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # it would hold for the whole page
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", r'<svg class="plot" \1>', svg, count=1)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    for placeholder, css in _CSS_OF_PLACEHOLDER.items():
        svg = svg.replace(placeholder, css)
    return Markup(svg)

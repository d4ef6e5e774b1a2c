"""How the report writes numbers, for people; report.json has them unrounded."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup, escape

NOTHING = "–"
"""What stands for a number that is not known."""


def measure(value: float | None, digits: int = 3) -> str:
    """A number between 0 and 1, such as an AP, with a fixed number of decimals."""
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def hyperparameter(value: Any) -> Markup:
    """Three digits; below 0.001 and from 10,000 on as a power of ten, 2.5 × 10⁻⁴."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return escape(NOTHING if value is None else value)
    if value == 0 or 1e-3 <= abs(value) < 1e4 or not math.isfinite(value):
        return escape(f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}")
    mantissa, exponent = f"{value:.2e}".split("e")
    power = str(int(exponent)).replace("-", "−")
    mantissa = mantissa.rstrip("0").rstrip(".")
    return Markup(f"{mantissa}&thinsp;×&thinsp;10<sup>{power}</sup>")


def count(value: float | None) -> str:
    """A whole number with thin spaces between its thousands: 4 952."""
    return NOTHING if value is None else f"{int(value):,}".replace(",", "\u202f")


def magnitude(value: float | None) -> tuple[str, str]:
    """Three digits and the prefix that goes with them: 3,440,060 → ("3.44", "M")."""
    if value is None:
        return NOTHING, ""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * factor:
            return three_digits(value / factor), prefix
    return three_digits(value), ""


def three_digits(value: float | None) -> str:
    """0.583, 34.9, 418, 4180: three digits, more only where they stand before the point."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    exponent = int(f"{value:.2e}".split("e")[1])  # after rounding: 0.9999 is 1.00
    decimals = max(0, 2 - exponent)
    return f"{value:.{min(decimals, 6)}f}"


def num_bytes(value: float | None) -> str:
    """A number of bytes in three digits and with its unit: 13.4 MB."""
    digits, prefix = magnitude(value)
    return digits if value is None else f"{digits} {prefix}B"


def with_prefix(value: float | None) -> str:
    """Three digits and the prefix right behind them: 3.44 M; small numbers as they are."""
    digits, prefix = magnitude(value)
    return f"{digits} {prefix}".strip()


def percent(part: float, whole: float) -> str:
    """A share in per cent, to the whole; below 10 to one decimal."""
    if not whole:
        return NOTHING
    share = 100 * part / whole
    return f"{share:.0f}\u202f%" if share >= 9.95 or share == 0 else f"{share:.1f}\u202f%"


def duration(seconds: float | None) -> str:
    """48 s, 12 min, 1 h 05 min."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"

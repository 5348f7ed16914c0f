"""Figures as people read them."""

from __future__ import annotations

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def delta_words(delta: float) -> str:
    """1e-05 as 10⁻⁵, 2.5e-06 as 2.5 × 10⁻⁶."""
    mantissa, _, exponent = f"{delta:.1e}".partition("e")
    power = f"10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    number = mantissa.removesuffix(".0")
    return power if number == "1" else f"{number} × {power}"


def epsilon_words(epsilon: float) -> str:
    """Two decimals, and never 0.00 for something that was spent."""
    return "0" if epsilon == 0 else "< 0.01" if epsilon < 0.01 else f"{epsilon:.2f}"


def many(count: int, noun: str) -> str:
    """1 experiment, 2 experiments; 1 entry, 2 entries."""
    if count == 1:
        return f"{count:,} {noun}"
    several = f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}s"
    return f"{count:,} {several}"


def figure_words(figure: object, decimals: int = 3) -> str:
    """A report's figure, or a dash."""
    value = getattr(figure, "value", None)
    return "–" if value is None else f"{value:.{decimals}f}"


def spread_words(figure: object, decimals: int = 3) -> str:
    """A figure's spread, or why there is no figure."""
    low, high = getattr(figure, "low", None), getattr(figure, "high", None)
    if low is not None and high is not None:
        return f"{low:.{decimals}f} to {high:.{decimals}f}"
    return getattr(figure, "reason", None) or ""

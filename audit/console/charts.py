"""Charts as inline SVG: drawn by classes of the page's stylesheet, each with words for its content.

A chart says nothing that a table on the same page does not say. No script, no style attribute, so
that a strict content security policy holds; the same drawing works in both themes and on paper.
Each is drawn twice, for a page and for a telephone, so that its words have a readable size on both: the
stylesheet shows one of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup, escape

from audit.console.numbers import delta_words

_WIDE = 860.0
_NARROW = 350.0
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Step:
    """One point of a stepped curve."""

    at_ms: int
    value: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar with its spread; ``value`` None draws nothing."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None


def budget_bar(settled: float, total: float, limit: float) -> Markup:
    """A bar of what is spent (solid) and reserved (hatched) of a limit.

    The hatching is the pattern ``hatch``, which every page's frame defines.
    """
    width = 500.0
    scale = width / max(limit, total, 1e-9)
    used, held = settled * scale, max(0.0, total - settled) * scale
    words = f"{total:.2f} of {limit:g} used or reserved"
    return Markup(  # noqa: S704 - numbers alone
        f'<svg class="bar" viewBox="0 0 {width:g} 14" role="img" aria-label="{escape(words)}" '
        'preserveAspectRatio="none">'
        f'<rect class="track" x=".5" y=".5" width="{width - 1:g}" height="13" rx="6.5"/>'
        f'<rect class="fill" y="1" width="{used:.1f}" height="12" rx="6"/>'
        f'<rect class="held" x="{used:.1f}" y="1" width="{held:.1f}" height="12" fill="url(#hatch)"/>'
        "</svg>"
    )


def spend_chart(
    steps: Sequence[Step], limit: float, *, open_end: bool, days: int | None = None
) -> Markup:
    """Epsilon over time as steps below its limit: for a lifetime, or for each period of so many days.

    Args:
        steps: in order of time.
        limit: the promise.
        open_end: whether the last point holds a reservation, drawn as a ring.
        days: of a period, where the promise renews.
    """
    if not steps:
        return Markup("")
    named = "lifetime limit" if days is None else f"limit for each {days} days"
    words = (
        f"Epsilon rises in {len(steps)} steps to {steps[-1].value:.2f} of a {named} of "
        f"{limit:g}; the table below has every use."
    )
    return _drawings(168, words, lambda width: _spend(steps, limit, named, open_end, width))


def _spend(
    steps: Sequence[Step], limit: float, named: str, open_end: bool, width: float
) -> list[str]:
    left, right, top, bottom = 44.0, width - 6.0, 26.0, 140.0
    highest = max(limit, *(s.value for s in steps))

    def y(value: float) -> float:
        return bottom - value / highest * (bottom - top)

    xs = _places([s.at_ms for s in steps], left + width / 12, right - width / 12)
    path = [f"M{left:.1f} {y(0):.1f}"]
    level = 0.0
    for x, step in zip(xs, steps, strict=True):
        path.append(f"L{x:.1f} {y(level):.1f}L{x:.1f} {y(step.value):.1f}")
        level = step.value
    path.append(f"L{right - 20:.1f} {y(level):.1f}")
    parts = [
        f'<text class="axis" x="0" y="{y(limit) + 4:.1f}">ε {limit:g}</text>',
        f'<text class="axis" x="0" y="{y(limit / 2) + 4:.1f}">{limit / 2:g}</text>',
        f'<text class="axis" x="0" y="{y(0) + 4:.1f}">0</text>',
        f'<path class="grid" d="M{left} {y(limit / 2):.1f}H{right}M{left} {y(0):.1f}H{right}"/>',
        f'<path class="limit" d="M{left} {y(limit):.1f}H{right}"/>',
        f'<text class="axis" x="{right - 8:.0f}" y="{y(limit) - 7:.1f}" text-anchor="end">'
        f"{named}</text>",
        f'<path class="line" d="{"".join(path)}"/>',
    ]
    for place, (x, step) in enumerate(zip(xs, steps, strict=True)):
        kind = "ring" if open_end and place == len(steps) - 1 else "dot"
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y(step.value):.1f}" r="4.5"/>')
    return parts + _time_labels(steps, xs, bottom + 20)


def interval_bars(bars: Sequence[Bar], *, unit: str, words: str) -> Markup:
    """Horizontal bars around zero, each with its spread as a thin line.

    Args:
        bars: from the top.
        unit: what the axis counts.
        words: for who does not see it.
    """
    if all(bar.value is None for bar in bars):
        return Markup("")
    wide = _svg("wide", _WIDE, 34.0 * len(bars) + 30, words, _intervals(bars, unit, _WIDE, 180, 34))
    small = _svg(
        "small", _NARROW, 52.0 * len(bars) + 30, words, _intervals(bars, unit, _NARROW, 0, 52)
    )
    return wide + small


def _intervals(bars: Sequence[Bar], unit: str, width: float, left: float, row: float) -> list[str]:
    """Labels stand beside the bars, or above them where ``left`` leaves them no room."""
    edges = [x for b in bars for x in (b.value, b.low, b.high) if x is not None]
    low, high = min(0.0, *edges), max(0.0, *edges)
    span = (high - low) or 1.0
    left, right = left + 4, width - 62.0

    def x(value: float) -> float:
        return left + (value - low) / span * (right - left)

    height = row * len(bars)
    parts = [f'<path class="grid" d="M{x(0):.1f} 0V{height + 8:.0f}"/>']
    for edge, anchor in {x(0): "start" if low == 0 else "middle", x(high): "end"}.items():
        number = "0" if edge == x(0) else f"{high:.2f}"
        parts.append(
            f'<text class="axis" x="{edge:.1f}" y="{height + 22:.0f}" text-anchor="{anchor}">{number}</text>'
        )
    parts.append(
        f'<text class="axis" x="{(x(0) + x(high)) / 2:.1f}" y="{height + 22:.0f}" text-anchor="middle">'
        f"{escape(unit)}</text>"
    )
    for place, bar in enumerate(bars):
        above = 0 if row < 50 else 18
        middle = place * row + above + (row - above) / 2
        beside = middle + 5 if not above else place * row + 16
        parts.append(f'<text class="label" x="0" y="{beside:.1f}">{escape(bar.label)}</text>')
        if bar.value is None:
            parts.append(f'<text class="axis" x="{left}" y="{middle + 5:.1f}">no value</text>')
            continue
        start, end = sorted((x(0), x(bar.value)))
        parts.append(
            f'<rect class="fill" x="{start:.1f}" y="{middle - 7:.1f}" '
            f'width="{max(1.0, end - start):.1f}" height="14" rx="2"/>'
        )
        if bar.low is not None and bar.high is not None:
            parts.append(
                f'<path class="whisker" d="M{x(bar.low):.1f} {middle:.1f}H{x(bar.high):.1f}'
                f'M{x(bar.low):.1f} {middle - 5:.1f}v10M{x(bar.high):.1f} {middle - 5:.1f}v10"/>'
            )
        parts.append(
            f'<text class="label" x="{width:.0f}" y="{middle + 5:.1f}" text-anchor="end">'
            f"{bar.value:.3f}</text>"
        )
    return parts


def epsilon_curve(points: Sequence[tuple[float, float]]) -> Markup:
    """Epsilon over delta, the latter on a logarithmic axis, falling to the right.

    Args:
        points: (delta, epsilon), delta falling.
    """
    words = (
        f"Epsilon rises from {points[0][1]:.2f} at delta {points[0][0]:.0e} to {points[-1][1]:.2f} at "
        f"delta {points[-1][0]:.0e}; the table below has every point."
    )
    return _drawings(168, words, lambda width: _curve(points, width))


def _curve(points: Sequence[tuple[float, float]], width: float) -> list[str]:
    left, right, top, bottom = 50.0, width - 30.0, 16.0, 140.0
    highest = max(epsilon for _, epsilon in points) or 1.0
    step = (right - left) / max(1, len(points) - 1)
    places = [
        (left + step * place, bottom - epsilon / highest * (bottom - top))
        for place, (_, epsilon) in enumerate(points)
    ]
    way = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    parts = [
        f'<text class="axis" x="0" y="{top + 4:.1f}">ε {highest:.1f}</text>',
        f'<text class="axis" x="0" y="{bottom + 4:.1f}">0</text>',
        f'<path class="grid" d="M{left} {top}H{right}M{left} {bottom}H{right}"/>',
        f'<path class="line" d="M{way}"/>',
    ]
    last = -100.0
    for (x, y), (delta, _) in zip(places, points, strict=True):
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>')
        if x - last < 56:
            continue
        parts.append(
            f'<text class="axis" x="{x:.1f}" y="{bottom + 20:.1f}" text-anchor="middle">'
            f"δ {delta_words(delta)}</text>"
        )
        last = x
    return parts


def tree_chart(index: int, size: int, root: str, hashes: Sequence[str]) -> Markup:
    """The way from an entry to the root: the subtrees beside it, as RFC 9162 splits them.

    Args:
        index: the entry.
        size: of the tree.
        root: its root, short.
        hashes: the proof, leaf's sibling first, short.
    """
    levels = _levels(index, size)
    shown = levels[:3] + levels[-1:] if len(levels) > 4 else levels
    words = (
        f"{len(hashes)} hashes beside the way lead from entry {index} to the root at size {size}."
    )
    title = [f"root {root}, size {size:,}"]
    if len(levels) > len(shown):
        title.append(f"{len(levels) - len(shown)} levels are left out below")
    height = 82.0 + 62 * len(shown)
    return _drawings(height, words, lambda width: _way(index, shown, title, width))


def _way(
    index: int, shown: Sequence[tuple[int, int, bool]], title: Sequence[str], width: float
) -> list[str]:
    top, drop, edge = 44.0, 62.0, 60.0
    at = width / 2
    parts: list[str] = []
    if width < _WIDE:
        lines = [(15.0 + 17 * n, line) for n, line in enumerate(title)]
    else:
        lines = [(18.0, " · ".join(title))]
    for y, line in lines:
        parts.append(
            f'<text class="label" x="{width / 2:.0f}" y="{y:.0f}" text-anchor="middle">{escape(line)}</text>'
        )
    places = [(at, top)]
    for depth, (low, high, goes_right) in enumerate(shown):
        spread = width * 0.22 / (1.55**depth)
        side = spread if goes_right else -spread
        ours, other = at + side, at - side
        y = top + drop * (depth + 1)
        words_at = min(max(other, edge), width - edge)
        parts += [
            f'<path class="grid" d="M{at:.0f} {y - drop:.0f}L{other:.0f} {y:.0f}"/>',
            f'<path class="way" d="M{at:.0f} {y - drop:.0f}L{ours:.0f} {y:.0f}"/>',
            f'<circle class="hollow" cx="{other:.0f}" cy="{y:.0f}" r="8"/>',
            f'<text class="axis" x="{words_at:.0f}" y="{y + 25:.0f}" text-anchor="middle">'
            f"{_entries(low, high)}</text>",
        ]
        at = ours
        places.append((at, y))
    parts += [f'<circle class="node" cx="{x:.0f}" cy="{y:.0f}" r="8"/>' for x, y in places]
    x, y = places[-1]
    parts.append(
        f'<text class="axis" x="{x:.0f}" y="{y + 25:.0f}" text-anchor="middle">entry {index:,}</text>'
    )
    return parts


def _drawings(height: float, words: str, draw: Callable[[float], Sequence[str]]) -> Markup:
    wide, small = draw(_WIDE), draw(_NARROW)
    return _svg("wide", _WIDE, height, words, wide) + _svg("small", _NARROW, height, words, small)


def _svg(kind: str, width: float, height: float, words: str, parts: Sequence[str]) -> Markup:
    return Markup(  # noqa: S704 - numbers, and labels that were escaped
        f'<svg class="chart {kind}" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{escape(words)}">{"".join(parts)}</svg>'
    )


def _places(times: Sequence[int], left: float, right: float) -> list[float]:
    """Times along the axis, kept apart so that no two points hide one another."""
    first, last = times[0], times[-1]
    if last == first:
        return [left + (right - left) * (i + 1) / (len(times) + 1) for i in range(len(times))]
    even = [(right - left) * i / max(1, len(times) - 1) for i in range(len(times))]
    true = [(right - left) * (t - first) / (last - first) for t in times]
    return [left + 0.7 * t + 0.3 * e for t, e in zip(true, even, strict=True)]


def _time_labels(steps: Sequence[Step], xs: Sequence[float], y: float) -> list[str]:
    clock = steps[-1].at_ms - steps[0].at_ms < 2 * _DAY_MS
    labels = []
    last = -200.0
    for x, step in zip(xs, steps, strict=True):
        if x - last < 90:
            continue
        when = datetime.fromtimestamp(step.at_ms / 1000, UTC)
        text = f"{when:%H:%M:%S}" if clock else f"{when.day} {when:%b %Y}"
        labels.append(
            f'<text class="axis" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{text}</text>'
        )
        last = x
    return labels


def _levels(index: int, size: int) -> list[tuple[int, int, bool]]:
    """From the root down: the subtree beside the way, and whether the way goes right."""
    low, high = 0, size
    found = []
    while high - low > 1:
        middle = low + (1 << ((high - low - 1).bit_length() - 1))
        if index < middle:
            found.append((middle, high, False))
            high = middle
        else:
            found.append((low, middle, True))
            low = middle
    return found


def _entries(low: int, high: int) -> str:
    return f"entry {low:,}" if high - low == 1 else f"entries {low:,}–{high - 1:,}"

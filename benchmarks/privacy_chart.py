"""The page of privacy numbers as a picture: the ten cases, each by three ways to count.

    python -m benchmarks.privacy_chart docs/privacy-numbers.md

draws the page's first table into the file beside it, same name, ``.svg``. It says nothing that the table does not;
``benchmarks.privacy_numbers --write`` draws it too.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

_LEFT, _WIDTH, _ROW, _TOP = 400.0, 860.0, 30, 48
_INK, _MUTED, _LINE = "#16202e", "#566375", "#dfe4ea"
_MARKS = {
    "filter": ("the promise that admits it, whatever is asked later", "#0b5d6b"),
    "PLD": ("the same events fixed beforehand, by PLD", "#8a5200"),
    "RDP": ("by RDP", "#566375"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw a page's chart."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.privacy_chart")
    parser.add_argument("page", type=Path)
    page: Path = parser.parse_args(arguments).page
    page.with_suffix(".svg").write_text(chart(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def chart(page: str) -> str:
    """The picture of a page's first table, as SVG."""
    cases = _first_table(page)
    values = [float(case[column]) for case in cases for column in _MARKS]
    most = -(-max(values) // 4) * 4
    bottom = _TOP + _ROW * len(cases)

    def x(epsilon: float) -> float:
        return _LEFT + epsilon / most * (_WIDTH - 24 - _LEFT)

    parts = []
    for tick in range(0, int(most) + 1, 4):
        parts.append(
            f'<path d="M{x(tick):.1f} {_TOP - 8}V{bottom}" stroke="{_LINE}"/>'
            f'<text x="{x(tick):.1f}" y="{bottom + 18}" text-anchor="middle" fill="{_MUTED}">'
            f"{'ε ' if tick == 0 else ''}{tick}</text>"
        )
    for place, (column, (label, colour)) in enumerate(_MARKS.items()):
        left, y = (8, 368, 680)[place], 22
        parts.append(_mark(column, left + 6, y - 4, colour))
        parts.append(f'<text x="{left + 20}" y="{y}">{escape(label)}</text>')
    for place, case in enumerate(cases):
        y = _TOP + _ROW * place + 16
        parts.append(f'<text x="8" y="{y + 4}">{escape(case["case"])}</text>')
        found = [float(case[column]) for column in _MARKS]
        parts.append(
            f'<path d="M{x(min(found)):.1f} {y}H{x(max(found)):.1f}" stroke="{_LINE}" stroke-width="6"/>'
        )
        for column in reversed(_MARKS):
            parts.append(_mark(column, x(float(case[column])), y, _MARKS[column][1]))
    said = "; ".join(
        f"{case['case']}: " + ", ".join(f"{column} {case[column]}" for column in _MARKS)
        for case in cases
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {bottom + 28}" role="img" '
            'aria-labelledby="title desc" font-family="system-ui, sans-serif" font-size="13" '
            f'fill="{_INK}">',
            '<title id="title">Epsilon of ten cases, counted in three ways</title>',
            f'<desc id="desc">{escape(said)}</desc>',
            f'<rect width="{_WIDTH:g}" height="{bottom + 28}" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _mark(column: str, x: float, y: float, colour: str) -> str:
    """A shape a column, so that no colour stands alone."""
    if column == "filter":
        return f'<circle cx="{x:.1f}" cy="{y}" r="6" fill="{colour}"/>'
    if column == "PLD":
        return (
            f'<circle cx="{x:.1f}" cy="{y}" r="4.5" fill="#ffffff" stroke="{colour}" '
            'stroke-width="2"/>'
        )
    return f'<rect x="{x - 4:.1f}" y="{y - 4}" width="8" height="8" fill="{colour}"/>'


def _first_table(page: str) -> list[dict[str, str]]:
    lines = page.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("| case |"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    head, _, *body = rows
    return [dict(zip(head, row, strict=True)) for row in body]


if __name__ == "__main__":
    raise SystemExit(main())

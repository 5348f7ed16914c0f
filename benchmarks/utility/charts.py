"""From measured lines to a page: one table and one chart a case.

    python -m benchmarks.utility.charts heart.jsonl ist.jsonl --write docs/utility.md

The chart lies beside the page, same name, ``.svg``: a dot for each line's AUC, a bar of two standard errors each way, and
the same in words for a screen reader. It says nothing that the table does not.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

Line = dict[str, Any]

TITLES = {
    "heart": "Heart disease, four hospitals",
    "ist-countries": "Stroke, 36 countries as nodes",
    "ist-countries, country known": "Stroke, 36 countries as nodes, the country as an input",
    "ist-hospitals, country known": "Stroke, 464 hospitals as nodes, the country as an input (simulated)",
    "ist-hospitals": "Stroke, 464 hospitals as nodes (simulated)",
    "diabetes": "Diabetes, readmission at any time, ten simulated sites",
    "diabetes-30-days": "Diabetes, readmission within 30 days, ten simulated sites",
}
_LEFT, _RIGHT, _ROW, _WIDTH = 400, 60, 22, 860
_INK, _AUTO, _HOUSE, _NONE = "#1b1b1b", "#0b5cad", "#8a5a00", "#5b5b5b"

HEAD = """# How well models predict at an epsilon

Made by `python -m benchmarks.utility.charts`; do not edit. The data are public, so measures are computed from
held-out rows that nobody in a federation sees, and for each hospital: a federation gives no measure of its own to a
site with fewer than 50 declared test patients. [The benchmark](../benchmarks/README.md#how-well-a-model-predicts-at-an-epsilon)
says how it is run and what each case is.

![AUC of every line of the tables below, with two standard errors each way](utility.svg)

Every line is logistic regression. *auto* is what a spec gets that leaves rounds, rate and clip norm open;
*house* is 20 rounds at a rate of 2 and clip norm 0.5. Epsilon is the target; what the plan's events spend, recomputed by closed form
and by PLD, stands beside it. The whole target goes to training: patients kept for evaluation are in cells of their own.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and the chart."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.utility.charts")
    parser.add_argument("results", nargs="+", type=Path, help="files of JSON lines")
    parser.add_argument("--write", type=Path, required=True, help="the page")
    options = parser.parse_args(arguments)
    found = [json.loads(line) for path in options.results for line in path.read_text().splitlines()]
    options.write.write_text(page(found), encoding="utf-8")
    options.write.with_suffix(".svg").write_text(chart(found), encoding="utf-8")
    return 0


def page(found: Sequence[Line]) -> str:
    """The page, a table a case."""
    parts = [HEAD]
    for case in dict.fromkeys(line["case"] for line in found):
        lines = [line for line in found if line["case"] == case]
        parts.append(f"## {TITLES[case]}\n\n{_about(lines[0])}\n\n{_table(lines)}")
    return "\n".join(parts)


def chart(found: Sequence[Line]) -> str:
    """The chart as SVG: rows of a dot and a bar, cases one under another."""
    low = int(min(line["auc"] for line in found) * 50) / 50
    high = (int(max(line["auc"] for line in found) * 50) + 1) / 50

    def x(auc: float) -> float:
        return _LEFT + (auc - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    rows, top = [], 30
    for case in dict.fromkeys(line["case"] for line in found):
        top += _ROW
        rows.append(f'<text x="12" y="{top}" font-weight="bold">{escape(TITLES[case])}</text>')
        for line in (line for line in found if line["case"] == case):
            top += _ROW
            rows.append(_mark(line, x, top))
    axis = []
    for step in range(round(low * 50), round(high * 50) + 1, 2):
        at = x(step / 50)
        axis.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="26" y2="{top + 8}" stroke="#d5d5d5"/>')
        axis.append(f'<text x="{at:.1f}" y="18" text-anchor="middle">{step / 50:.2f}</text>')
    said = "; ".join(
        f"{TITLES[line['case']]}, {_label(line)}: AUC {line['auc']:.3f}" for line in found
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top + 20}" role="img" '
            'aria-labelledby="title desc" font-family="system-ui, sans-serif" font-size="13" '
            f'fill="{_INK}">',
            '<title id="title">AUC at an epsilon, by case and setting</title>',
            f'<desc id="desc">{escape(said)}</desc>',
            f'<rect width="{_WIDTH}" height="{top + 20}" fill="#ffffff"/>',
            *axis,
            *rows,
            "</svg>\n",
        ]
    )


def _mark(line: Line, x: Any, y: int) -> str:
    colour = _NONE if line["epsilon"] is None else _AUTO if line["recipe"] == "auto" else _HOUSE
    middle, spread = y - 4, 2 * (line["auc_se"] or 0.0)
    shape = (
        f'<circle cx="{x(line["auc"]):.1f}" cy="{middle}" r="5" fill="{colour}"/>'
        if line["recipe"] == "auto"
        else f'<rect x="{x(line["auc"]) - 4:.1f}" y="{middle - 4}" width="8" height="8" fill="{colour}"/>'
    )
    return (
        f'<text x="24" y="{y}">{escape(_label(line))}</text>'
        f'<line x1="{x(line["auc"] - spread):.1f}" x2="{x(line["auc"] + spread):.1f}" '
        f'y1="{middle}" y2="{middle}" stroke="{colour}" stroke-width="2"/>{shape}'
        f'<text x="{_WIDTH - 8}" y="{y}" text-anchor="end">{line["auc"]:.3f}</text>'
    )


def _label(line: Line) -> str:
    if line["epsilon"] is None:
        return f"{line['split']}: no noise"
    noise = "secure sum" if "h_min" in line else "own noise"
    return f"{line['split']}: epsilon {line['epsilon']:g}, {noise}, {line['recipe']}"


def _about(line: Line) -> str:
    return (
        f"{line['sites']} sites, {line['train']:,} declared training and {line['test']:,} test patients, "
        f"{line['parameters']} parameters, delta {line['delta']:g}."
    )


def _table(lines: Sequence[Line]) -> str:
    head = [
        "split", "runs", "epsilon: target", "closed form / PLD", "noise", "recipe",
        "rounds x rate, clip", "AUC", "se", "accuracy, records", "accuracy, mean of sites",
    ]  # fmt: skip
    extra = [
        (title, key)
        for title, key in (
            ("trialists' AUC", "auc_trialists"),
            ("fitted without clip", "auc_unclipped"),
        )
        if any(key in line for line in lines)
    ]
    rows = [[*head, *(title for title, _ in extra)], ["---"] * (len(head) + len(extra))]
    for line in lines:
        spent = line["epsilon_recomputed"]
        shares = f" (h {line['h_min']}, t {line['t']}, c {line['c']})" if "h_min" in line else ""
        rows.append([
            line["split"], str(line["runs"]),
            "none" if line["epsilon"] is None else f"{line['epsilon']:g}",
            f"{spent['closed_form']:.4f} / {spent['pld']:.4f}" if spent else "",
            line["noise"] + shares, line["recipe"],
            f"{line['rounds']} x {line['learning_rate']:g}, {line['clip_norm']:g}", f"{line['auc']:.4f}",
            "" if line["auc_se"] is None else f"{line['auc_se']:.4f}",
            f"{line['accuracy_weighted']:.3f}", f"{line['accuracy_mean']:.3f}",
            *(f"{line[key]:.4f}" if key in line else "" for _, key in extra),
        ])  # fmt: skip
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())

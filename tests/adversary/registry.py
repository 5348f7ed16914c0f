"""The register of attacks: what was tried, who exposed it, with what evidence, how soon.

``@attack(...)`` marks a test. The test says when it is exposed (``World.caught``, ``World.exposed``);
the one who exposes it must be the one that the mark names, so that the printed table stays true.
A message is one delivery: an entry handed in, an answer to a follower, a cosignature, a copy handed
to an auditor. They are counted from the first act of the attack to its exposure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest


@dataclass(frozen=True, slots=True)
class Exposure:
    """Who exposed an attack, after how many messages."""

    by: str
    messages: int


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    name: str
    exposed_by: str
    evidence: str
    messages: int


def attack(*, name: str, exposed_by: str, evidence: str) -> pytest.MarkDecorator:
    """Mark a test as an attack.

    Args:
        name: what is tried, and by whom.
        exposed_by: who exposes it first.
        evidence: what they hold in hands then.
    """
    return pytest.mark.attack(name=name, exposed_by=exposed_by, evidence=evidence)


def row_of(mark: pytest.Mark, exposures: Sequence[Exposure]) -> Row:
    """The line of a test that passed.

    Raises:
        ValueError: nobody exposed the attack, or somebody else than the mark says.
    """
    name, by, evidence = (mark.kwargs[key] for key in ("name", "exposed_by", "evidence"))
    if not exposures:
        raise ValueError(f"attack {name!r}: nobody exposed it; call world.caught or world.exposed")
    if exposures[0].by != by:
        raise ValueError(f"attack {name!r}: {exposures[0].by!r} exposed it first, not {by!r}")
    return Row(name, by, evidence, exposures[0].messages)


def table(rows: Sequence[Row]) -> list[str]:
    """The table as lines of text, columns as wide as their longest cell."""
    head = ("attack", "exposed by", "evidence", "messages")
    cells = [(row.name, row.exposed_by, row.evidence, str(row.messages)) for row in rows]
    widths = [max(len(line[at]) for line in (head, *cells)) for at in range(len(head))]
    rule = tuple("-" * width for width in widths)
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (head, rule, *cells)
    ]

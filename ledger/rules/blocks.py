"""Calendar blocks: the year or quarter in which a hospital first registered a patient, or all time.

A block is a date's, never the data's: it opens and closes on its days, whoever comes. Two blocks overlap
when they share a quarter; ``all`` overlaps every other.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Literal

ALL = "all"
PATTERN = r"^(?:all|20[0-9]{2}(?:q[1-4])?)$"

Period = Literal["year", "quarter"]

_LAST_QUARTER = 4 * 10_000 - 1
_BLOCK = re.compile(r"(20[0-9]{2})(?:q([1-4]))?")


def quarters(block: str) -> tuple[int, int] | None:
    """First and last quarter of a block, counted from the year 0; None where the text names no block."""
    if block == ALL:
        return 0, _LAST_QUARTER
    found = _BLOCK.fullmatch(block)
    if found is None:
        return None
    year, quarter = int(found[1]), found[2]
    if quarter is None:
        return 4 * year, 4 * year + 3
    return 4 * year + int(quarter) - 1, 4 * year + int(quarter) - 1


def overlap(a: str, b: str) -> bool:
    """Whether two blocks share a day; what names no block shares none."""
    first, second = quarters(a), quarters(b)
    return (
        first is not None and second is not None and first[0] <= second[1] and second[0] <= first[1]
    )


def block_of(day: date, period: Period) -> str:
    """The block of that length in which a day lies."""
    quarter = (day.month - 1) // 3 + 1
    return f"{day.year}" if period == "year" else f"{day.year}q{quarter}"


def covers(block: str, day: date) -> bool:
    """Whether a day lies in a block."""
    return overlap(block, block_of(day, "quarter"))


def period_of(block: str) -> Period | None:
    """How long a block is; None for ``all``."""
    if block == ALL:
        return None
    return "quarter" if "q" in block else "year"

"""Dates as people type them, as the log's milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime

from consilium.errors import InputError


def parse_time_ms(text: str) -> int:
    """An ISO date (its first instant) or time, as POSIX milliseconds; UTC unless it says otherwise.

    Raises:
        InputError: it is neither.
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"{text!r} is no date; write 2027-12-31 or 2027-12-31T17:00:00Z") from None
    return _ms(when if when.tzinfo else when.replace(tzinfo=UTC))


def _ms(when: datetime) -> int:
    return int(when.timestamp() * 1000)

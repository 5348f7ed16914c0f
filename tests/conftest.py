"""Options of the whole suite, which pytest must know before it looks into the folders."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--attack-table",
        action="store_true",
        default=False,
        help="print, at the end, what tests/adversary tried, who exposed it and with what evidence",
    )

"""Databases for a test: a log by both kinds of them, and an empty store for a copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.copies.store import LogStore


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'log.db'}"
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture
def log(url: str) -> Iterator[LogStore]:
    opened = LogStore.open(url)
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LogStore]:
    opened = LogStore.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield opened
    opened.close()

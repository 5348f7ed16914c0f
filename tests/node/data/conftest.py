"""A private register, fresh for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.register.private import PrivateRegister


@pytest.fixture
def private(tmp_path: Path) -> PrivateRegister:
    return PrivateRegister.open(tmp_path / "private.db")

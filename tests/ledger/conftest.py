"""Where the published test vectors are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shared_data import shared


@pytest.fixture(scope="session")
def vectors() -> Path:
    return shared("vectors", "SOURCES.json").parent

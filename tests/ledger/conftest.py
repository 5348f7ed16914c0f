"""Where the published test vectors are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def vectors() -> Path:
    shared = Path(os.environ.get("CONSILIUM_SHARED", REPOSITORY.parent / "shared"))
    if not (shared / "vectors" / "SOURCES.json").is_file():
        pytest.skip(f"no published vectors under {shared}; set CONSILIUM_SHARED to their folder")
    return shared / "vectors"

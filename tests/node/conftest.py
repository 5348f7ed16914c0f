"""A town of hospitals with real nodes, fresh for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.town import Town


@pytest.fixture
def town(tmp_path: Path, quick_keys: None) -> Iterator[Town]:
    with Town(tmp_path) as built:
        yield built

"""Published test vectors beside the repository, for tests in every folder."""

from __future__ import annotations

from pathlib import Path

from tests.shared_data import shared


def shared_vectors(*parts: str) -> Path:
    """Give a path below the published vectors, or skip the test where there are none."""
    return shared("vectors", *parts)

"""Where real data sets lie beside the repository, and a skip with a reason where they do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.checkers import absent

_REPOSITORY = Path(__file__).resolve().parent.parent
HEART_FILES = {
    "cleveland-heart": ("processed.cleveland.data", 300),
    "budapest-heart": ("processed.hungarian.data", 300),
    "zurich-basel-heart": ("processed.switzerland.data", 120),
    "longbeach-heart": ("processed.va.data", 200),
}
"""Dataset name to file and declared rows."""


def shared(*parts: str) -> Path:
    """Give a path below the shared folder, or skip the test.

    The folder is ``CONSILIUM_SHARED``, by default ``shared`` beside the repository.
    """
    root = Path(os.environ.get("CONSILIUM_SHARED", _REPOSITORY.parent / "shared"))
    path = root.joinpath(*parts)
    if not path.exists():
        reason = f"{path} is absent; set CONSILIUM_SHARED to the folder that holds it"
        if "CONSILIUM_SHARED" in os.environ:
            absent(reason)
        pytest.skip(reason)
    return path


def example(*parts: str) -> Path:
    """Give a path below the repository's examples."""
    return _REPOSITORY.joinpath("examples", *parts)

"""A federation of three and its coordinator's home; a running coordinator, and a copy that follows it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from tests.coordinator.serving import Serving
from tests.federation import Federation


@pytest.fixture
def federation() -> Federation:
    return Federation.found(("basel", "bern", "chur"))


@pytest.fixture
def home(federation: Federation, tmp_path: Path) -> Path:
    federation.persist(tmp_path).close()
    return tmp_path


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    federation = Federation.found(
        ("basel", "bern", "chur"), now_ms=time.time_ns() // 1_000_000 - 120_000
    )
    federation.start(("basel", "bern"), rounds=1)
    federation.play(next(iter(federation.state.experiments)))
    with Serving(federation, tmp_path / "hub") as serving:
        yield serving


@pytest.fixture
def replica(serving: Serving, tmp_path: Path) -> Iterator[Replica]:
    store = LogStore.open(f"sqlite:///{tmp_path / 'copy.db'}")
    yield Replica.create(store, serving.federation.leaves[0], serving.federation.id)
    store.close()

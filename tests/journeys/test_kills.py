"""A run survives the sudden death of its coordinator and of a node; nobody is charged too little."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ledger.exchange.home import MemberHome
from ledger.rules.state import State
from tests.journeys.federation import RealFederation

pytestmark = pytest.mark.process
HOSPITALS = ("aarau", "basel", "chur", "davos")
ROUNDS = 240
"""So many that the kills fall into the run, however slowly this test itself looks on."""


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[RealFederation]:
    made = RealFederation(tmp_path / "f", HOSPITALS)
    with made.services:
        yield made


def test_a_run_survives_the_death_of_its_coordinator_and_of_a_node(
    federation: RealFederation,
) -> None:
    federation.found()
    coordinator = federation.start_coordinator()
    nodes = {}
    for hospital in HOSPITALS:
        federation.join(hospital)
        nodes[hospital] = federation.start_node(hospital)
    federation.join_researcher()
    experiment = federation.propose(rounds=ROUNDS, quorum=4)
    for hospital in HOSPITALS:
        federation.approve(hospital)

    _until(lambda: _round(federation) >= 5)
    federation.kill(coordinator)
    coordinator = federation.start_coordinator()
    reached = _round(federation)
    _until(lambda: _round(federation) >= reached + 5)
    assert federation.show()["status"] == "running"
    federation.kill(nodes["basel"])
    time.sleep(0.5)
    federation.start_node("basel")

    _until(lambda: federation.show()["status"] == "released")
    _until(lambda: _all_settled(federation, experiment))
    federation.services.stop()

    for copy in ("coordinator", *HOSPITALS):
        federation.run("audit", "verify", copy, "--trust=coordinator/genesis.leaf")
    state = _state(federation)
    for hospital in HOSPITALS:
        used = dict(state.experiments[experiment].reservations[f"{hospital}-ward"].used)
        assert _intended(federation.folder / hospital, experiment) == used
        assert ROUNDS <= used["train"] <= ROUNDS + 1


def _round(federation: RealFederation) -> int:
    number: int = federation.show()["round"]
    return number


def _all_settled(federation: RealFederation, experiment: str) -> bool:
    federation.show()
    held = _state(federation).experiments[experiment].reservations
    return len(held) == len(HOSPITALS) and all(r.settled_at is not None for r in held.values())


def _state(federation: RealFederation) -> State:
    replica = MemberHome(federation.folder / "researcher").open_replica()
    try:
        return replica.state
    finally:
        replica.store.close()


def _intended(home: Path, experiment: str) -> dict[str, int]:
    """Steps whose noise the node recorded an intent for, from its own private register."""
    (file,) = home.rglob("private.db")
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as register:
        rows = register.execute(
            "SELECT purpose, SUM(steps) FROM intents WHERE experiment = ? GROUP BY purpose",
            (experiment,),
        ).fetchall()
    return dict(rows)


def _until(holds: Callable[[], bool], timeout_s: float = 240.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen in time")
        time.sleep(0.3)

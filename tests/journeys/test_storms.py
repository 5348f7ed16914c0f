"""The storms, a few kills long; the long ones are commands (CONTRIBUTING.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import postgres
from tests.journeys import kill_storm, masked_storm, node_storm

pytestmark = pytest.mark.process


def test_sigkill_of_the_coordinator_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    told = kill_storm.storm(tmp_path, 10, seed=1)
    assert not told.faults
    assert told.counts["kills"] == 10
    assert told.counts["acknowledged"] > 50
    assert told.counts["lost"] > 0, "no kill met a request"


def test_a_coordinator_that_answers_before_it_writes_does_not_survive_a_storm(
    tmp_path: Path,
) -> None:
    told = kill_storm.storm(tmp_path, 10, seed=3, program="hasty_coordinator")
    assert told.faults


@pytest.mark.postgresql
def test_the_same_holds_on_postgresql(tmp_path: Path) -> None:
    reason = postgres.lacking()
    if reason is not None:
        pytest.skip(reason)
    with postgres.running() as server:
        told = kill_storm.storm(tmp_path, 5, seed=2, server=server)
    assert not told.faults
    assert told.counts["acknowledged"] > 20


def test_sigkill_of_a_node_lets_no_vector_leave_uncharged(tmp_path: Path) -> None:
    told = node_storm.storm(tmp_path, 5, seed=1, rounds=15)
    assert not told.faults
    assert told.counts["left"] > 10
    assert told.counts["charged"] >= told.counts["left"]
    assert len(told.over) == 5


def test_deaths_that_cost_more_than_a_round_each_are_noticed() -> None:
    assert node_storm.faults_of_charges([1, 1, 2, 3, 3]) == []
    assert node_storm.faults_of_charges([0, 2, 3]) == []  # one for the death before them
    (two_at_once,) = node_storm.faults_of_charges([0, 0, 3])
    assert two_at_once == "3 rounds are charged that did not leave, after 3 deaths"
    assert node_storm.faults_of_charges([2])
    assert node_storm.faults_of_charges([0, 0, 0, 2, 4])


def test_sigkill_of_a_node_in_masked_rounds_leaves_every_sum_whole(tmp_path: Path) -> None:
    told = masked_storm.storm(tmp_path, 2, seed=1, rounds=6, round_timeout_s=60)
    assert not told.faults
    assert told.counts["kills"] == 2
    assert told.counts["sums"] >= 6


def test_a_log_with_a_fault_is_not_taken_for_a_good_one() -> None:
    from tests.federation_log import FederationLog

    leaves = FederationLog.found(("basel",)).leaves
    assert kill_storm.faults_of(leaves, {leaves[2]: 2}) == []
    (lost,) = kill_storm.faults_of(leaves, {b"never": 2})
    assert lost == "an entry acknowledged at 2 is not there"
    doubled = kill_storm.faults_of([*leaves, leaves[-1]], {})
    assert "is there twice" in doubled[0]
    assert f"entry {len(leaves)} does not go on with the chain" in doubled[1]

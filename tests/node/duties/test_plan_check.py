from __future__ import annotations

from pathlib import Path

import pytest

from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.entries.operations.datasets import DatasetWithdrawn
from ledger.entries.operations.experiments import ExperimentProposed
from ledger.entries.operations.values import BlobRef
from ledger.formats.value import replace
from node.duties.plan_check import CheckedPlan, check
from tests.federation import RESEARCHER, Federation, steward_of


def checked(federation: Federation, experiment: str, directory: Path) -> CheckedPlan:
    store = LogStore.open(f"sqlite:///{directory / 'copy.db'}")
    replica = Replica.create(store, federation.leaves[0], federation.id)
    replica.extend(federation.leaves[1:], federation.checkpoint())

    def fetch(ref: BlobRef) -> bytes:
        return federation.blobs[ref.sha256]

    return check(replica, replica.state.experiments[experiment], fetch)


@pytest.fixture
def federation() -> Federation:
    federation = Federation.found(("basel", "bern"))
    for name in ("basel", "bern"):
        federation.register_dataset(name)
    return federation


def proposal(federation: Federation) -> ExperimentProposed:
    return federation.proposal(federation.spec(["basel-heart", "bern-heart"]))


def test_an_honest_plan_is_what_its_spec_implies(federation: Federation, tmp_path: Path) -> None:
    experiment = federation.say(RESEARCHER, proposal(federation)).entry.hash
    assert checked(federation, experiment, tmp_path).refused is None


def test_another_hospitals_change_does_not_matter(federation: Federation, tmp_path: Path) -> None:
    experiment = federation.say(RESEARCHER, proposal(federation)).entry.hash
    federation.register_dataset("bern", declared_rows=200)
    op = DatasetWithdrawn(type="dataset.withdrawn", dataset="bern-heart", reason="other")
    federation.say(steward_of("bern"), op)
    assert checked(federation, experiment, tmp_path).refused is None


def test_a_looser_bound_is_named(federation: Federation, tmp_path: Path) -> None:
    op = proposal(federation)
    sites = tuple(replace(s, update_bound=2**50) for s in op.plan.sites)
    changed = replace(op, plan=replace(op.plan, sites=sites))
    experiment = federation.say(RESEARCHER, changed).entry.hash
    refused = checked(federation, experiment, tmp_path).refused
    assert refused is not None
    assert refused.where == "plan.sites.basel-heart"


def test_another_initial_model_is_named(federation: Federation, tmp_path: Path) -> None:
    op = proposal(federation)
    plan = replace(op.plan, initial_model=federation.put(b"another model"))
    experiment = federation.say(RESEARCHER, replace(op, plan=plan)).entry.hash
    refused = checked(federation, experiment, tmp_path).refused
    assert refused is not None
    assert refused.where == "plan.initial_model"


def test_a_spec_for_other_datasets_is_named(federation: Federation, tmp_path: Path) -> None:
    op = proposal(federation)
    other = federation.proposal(federation.spec(["basel-heart"]))
    experiment = federation.say(RESEARCHER, replace(op, spec=other.spec)).entry.hash
    refused = checked(federation, experiment, tmp_path).refused
    assert refused is not None
    assert refused.where == "plan.sites"


def test_a_spec_that_is_no_spec_is_named(federation: Federation, tmp_path: Path) -> None:
    op = replace(proposal(federation), spec=federation.put(b"{}"))
    experiment = federation.say(RESEARCHER, op).entry.hash
    refused = checked(federation, experiment, tmp_path).refused
    assert refused is not None
    assert refused.where == "ExperimentSpec"

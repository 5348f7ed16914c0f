"""Whether a proposed plan is what its spec implies, judged from this node's own copy of the log.

The sites are rebuilt from the registrations that the plan names, as they stand in the log, so that a
hospital that registers anew or withdraws later changes nothing for the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ledger.copies.blobs import blob_ref
from ledger.copies.replica import Replica
from ledger.entries.entry import parse_entry
from ledger.entries.operations.datasets import DatasetRegistered
from ledger.entries.operations.succession import FederationCarried
from ledger.entries.operations.values import BlobRef
from ledger.entries.operations.vocabulary import Operation
from ledger.errors import MalformedInput, PlanRefused
from ledger.experiment.adaptive_clip import round_shapes
from ledger.experiment.average import initial_model
from ledger.experiment.plan.check import check_plan
from ledger.experiment.plan.shape import network_of
from ledger.experiment.plan.sites import Site
from ledger.experiment.schema import Schema
from ledger.experiment.spec import ExperimentSpec
from ledger.experiment.tensors import pack_model
from ledger.formats.documents import parse_document
from ledger.rules.experiment_state import Experiment


@dataclass(frozen=True, slots=True)
class CheckedPlan:
    """The outcome.

    Attributes:
        spec: the experiment's document, canonical.
        refused: why the plan is not the spec's, or None.
    """

    spec: bytes
    refused: PlanRefused | MalformedInput | None


def check(
    replica: Replica, experiment: Experiment, fetch: Callable[[BlobRef], bytes]
) -> CheckedPlan:
    """Compare a plan with its spec.

    Args:
        replica: holds the proposal and every registration that it names.
        experiment: as folded.
        fetch: gets a blob and checks it.

    Raises:
        LedgerError: a blob cannot be fetched now.
    """
    document = fetch(experiment.spec)
    plan = experiment.plan
    named = {site.dataset: site.registration for site in plan.sites}
    try:
        spec = parse_document(document, ExperimentSpec)
        if sorted(named) != sorted(spec.federation.datasets):
            raise PlanRefused("plan.sites", "its datasets are not those of the spec")
        sites = [_site(replica, named[name], fetch) for name in spec.federation.datasets]
        check_plan(spec, sites, plan)
        tree = network_of(spec, sites[0].schema)
        first = blob_ref(pack_model(round_shapes(spec, tree), initial_model(spec, tree)))
        if first != plan.initial_model:
            raise PlanRefused("plan.initial_model", "it is not the one that the spec implies")
    except (PlanRefused, MalformedInput) as error:
        return CheckedPlan(document, error)
    return CheckedPlan(document, None)


def _site(replica: Replica, registration: str, fetch: Callable[[BlobRef], bytes]) -> Site:
    op = _registered(replica, registration)
    cells = {use.cell: replica.state.cells[use.cell].terms for use in op.cells}
    schema = parse_document(fetch(op.schema_), Schema)
    return Site(registration, op, cells, schema)


def _registered(replica: Replica, registration: str) -> DatasetRegistered:
    """A dataset's version by the entry that registered it, here or in the log before this one."""
    index = replica.store.find_leaf(bytes.fromhex(registration))
    if index is None:
        succession = replica.state.succession
        for at in range(1, 1 + (0 if succession is None else succession.taken)):
            op = _operation(replica, at)
            for dataset in op.datasets if isinstance(op, FederationCarried) else ():
                if dataset.registration == registration:
                    return dataset.terms
        raise PlanRefused("plan.sites", f"no registration {registration[:12]} is in the log")
    op = _operation(replica, index)
    if not isinstance(op, DatasetRegistered):
        raise PlanRefused("plan.sites", f"entry {index} registers no dataset")
    return op


def _operation(replica: Replica, index: int) -> Operation:
    row = replica.store.row(index)
    return parse_entry(row.body, row.signature).body.op

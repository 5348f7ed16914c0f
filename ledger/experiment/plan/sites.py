"""Datasets as a plan sees them: registration, cells and public schema, narrowed to what the spec reads.

Declared sizes only; nothing here knows how many rows there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from msgspec import structs

from ledger.entries.operations.datasets import CellRegistered, CellUse, DatasetRegistered
from ledger.entries.operations.plans import Purpose
from ledger.errors import PlanRefused
from ledger.experiment.fast_clip import ROWS_EACH, Limits
from ledger.experiment.schema import Schema
from ledger.experiment.spec import ExperimentSpec
from ledger.rules.experiments import TRAINING
from ledger.rules.state import State

ACTUAL_OVER_DECLARED = 2


@dataclass(frozen=True, slots=True)
class Site:
    """A dataset as a plan sees it: its registration, cells and public schema."""

    registration: str
    terms: DatasetRegistered
    cells: Mapping[str, CellRegistered]
    schema: Schema


def sites_from(
    state: State, schemas: Mapping[str, Schema], datasets: Sequence[str]
) -> tuple[Site, ...]:
    """The sites that a spec asks for, from the state and the schemas' blobs.

    Raises:
        PlanRefused: a dataset is not registered, or was withdrawn.
    """
    sites = []
    for name in datasets:
        dataset = state.datasets.get(name)
        if dataset is None:
            known = ", ".join(sorted(state.datasets)) or "none"
            raise PlanRefused("federation.datasets", f"{name} is not registered; known: {known}")
        if dataset.withdrawn_at is not None:
            raise PlanRefused("federation.datasets", f"{name} was withdrawn by its hospital")
        cells = {use.cell: state.cells[use.cell].terms for use in dataset.terms.cells}
        sites.append(Site(dataset.registration, dataset.terms, cells, schemas[name]))
    return tuple(sites)


def narrowed(spec: ExperimentSpec, site: Site) -> Site:
    """A site with the cells that the spec reads of it, and no more declared than those hold.

    Raises:
        PlanRefused: it has none of the blocks that the spec names.
    """
    wanted = spec.federation.blocks
    if not wanted:
        return site
    uses = tuple(use for use in site.terms.cells if site.cells[use.cell].block in wanted)
    if not any(use.use in ("train", "both") for use in uses):
        there = ", ".join(sorted({cell.block for cell in site.cells.values()}))
        raise PlanRefused(
            "federation.blocks",
            f"{site.terms.dataset} has no patients for training of {', '.join(wanted)}; "
            f"it has: {there}",
        )
    terms = structs.replace(
        site.terms,
        cells=uses,
        declared_train=min(site.terms.declared_train, _declared_in(site, uses, "train")),
        declared_test=min(site.terms.declared_test, _declared_in(site, uses, "test")),
    )
    return replace(site, terms=terms)


def cells_of(site: Site, purpose: Purpose) -> tuple[str, ...]:
    """The cells that a release of that purpose reads, sorted."""
    use = "train" if purpose in TRAINING else "test"
    return tuple(sorted(c.cell for c in site.terms.cells if c.use in (use, "both")))


def site_limits(declared_train: int, declared_rows: int, each: int) -> Limits:
    """The most training units of a dataset of that declared size, and the most rows that are read of them.

    Args:
        declared_train: units for training.
        declared_rows: units in all, views of a row included.
        each: most rows of a unit (``rows_each``).
    """
    units = ACTUAL_OVER_DECLARED * declared_rows
    return Limits(ACTUAL_OVER_DECLARED * declared_train, units * each)


def rows_each(schema: Schema) -> int:
    """The most rows of a unit that the fast engine reads: a record is one row, a patient has several."""
    return 1 if schema.patient_column is None else schema.rows_per_patient or ROWS_EACH


def _declared_in(site: Site, uses: Sequence[CellUse], half: str) -> int:
    return sum(site.cells[u.cell].declared_patients for u in uses if u.use in (half, "both"))

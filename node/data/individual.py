"""Registering a dataset whose training patients are accounted for one by one.

It is decided with a hospital's first dataset and holds for all its later ones: a promise that was made
in one way is not changed into the other. It needs patient ids, or nobody could be told from anybody.
"""

from __future__ import annotations

from collections.abc import Mapping

from ledger.entries.operations.datasets import CellRegistered
from ledger.experiment.schema import Schema
from ledger.formats.value import replace
from ledger.rules.individual import is_individual
from node.errors import RegistrationRefused
from node.register.accounts import PrivateCell


def counts_one_by_one(schema: Schema, known: Mapping[str, PrivateCell], asked: bool) -> bool:
    """Whether the hospital's new cells for training are of that kind.

    Args:
        schema: of the dataset.
        known: the hospital's cells.
        asked: ``--individual``.

    Raises:
        RegistrationRefused: it is asked for, and the cells that are there or the schema forbid it.
    """
    if any(is_individual(cell.terms) for cell in known.values()):
        return True
    if not asked:
        return False
    if known:
        raise RegistrationRefused(
            schema.dataset,
            "this hospital's patients have a promise that is charged for all of them alike, for ever; "
            "leave --individual out",
        )
    if schema.patient_column is None:
        raise RegistrationRefused(
            schema.dataset,
            "accounts for each patient need patient ids; declare a column of type patient_id, or leave "
            "--individual out",
        )
    return True


def one_by_one(terms: CellRegistered) -> CellRegistered:
    """The promise to a cell for training, as one to each of its patients; other cells as they are."""
    return replace(terms, half="individual") if terms.half == "train" else terms

"""A dataset that the log registered, put into a hospital's private register as its node would have."""

from __future__ import annotations

from ledger.experiment.schema import Schema
from ledger.formats.documents import encode_document
from ledger.rules.state import State
from node.duties.renewing import periods_in
from node.register.accounts import DatasetRecord
from node.register.private import PrivateRegister


def own(register: PrivateRegister, state: State, schema: Schema, dataset: str) -> None:
    """Note a dataset and its cells; the table itself is nowhere."""
    registered = state.datasets[dataset]
    for use in registered.terms.cells:
        periods = periods_in(state, use.cell, register.now_ms())
        register.add_cell(state.cells[use.cell].terms, None, periods=periods)
    register.datasets.note(
        DatasetRecord(
            name=dataset,
            path="/nowhere/table.csv",
            sha256="0" * 64,
            schema_document=encode_document(schema),
            rows=schema.declared_rows,
            train_units=schema.declared_train,
            test_units=schema.declared_test,
            snapshot=registered.terms.snapshot,
            salt=bytes(32),
        )
    )
    register.datasets.finish(registered.terms.snapshot, registered.registration)

"""A table of one hospital, its schema, and a log that takes what is said of it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from ledger.entries.operations.vocabulary import Operation
from ledger.experiment.purpose_parts import Parts
from ledger.experiment.schema import CategoryColumn, NumberColumn, PatientColumn, Schema
from node.data.registration import Prepared, prepare, register
from node.register.private import PrivateRegister
from tests.federation import Federation, node_of

KEY = bytes(range(32))


def schema(name: str = "basel-heart", declared: int = 100, *, ids: bool = False) -> Schema:
    columns: tuple[object, ...] = (
        NumberColumn(type="number", name="age", low=Decimal(20), high=Decimal(90)),
        CategoryColumn(type="category", name="sick", values=("0", "1")),
    )
    if ids:
        columns = (PatientColumn(type="patient_id", name="who"), *columns)
    return Schema.model_validate(
        {"consilium": 1, "dataset": name, "declared_rows": declared, "columns": columns}
    )


def table(directory: Path, rows: int = 100) -> Path:
    path = directory / "table.csv"
    lines = [f"p{row},{20 + row % 70},{row % 2}" for row in range(rows)]
    path.write_text("\n".join(["who,age,sick", *lines]) + "\n")
    return path


def prepared(
    private: PrivateRegister,
    path: Path,
    given: Schema,
    epsilon: float | None = 5.0,
    delta: float | None = None,
    purposes: Parts | None = None,
) -> Prepared:
    return prepare(
        path,
        given,
        organisation="basel",
        hospital_key=KEY,
        cells=private.view.cells,
        epsilon=epsilon,
        delta=delta,
        purposes=purposes,
    )


class Saying:
    """The federation in memory as the place where a registration is said."""

    def __init__(self, *, fail_at: type | None = None) -> None:
        self.federation = Federation.found(("basel", "bern"))
        self.said: list[str] = []
        self.fail_at = fail_at
        self.last: str | None = None

    def cut_off_after(self, operation: str | None) -> None:
        """Lose the line after the next entry of a kind; None for a line that holds again."""
        self.fail_at, self.last = None, operation

    def say(self, op: Operation) -> str | None:
        if self.fail_at is not None and isinstance(op, self.fail_at):
            raise ConnectionError
        self.said.append(op.type)
        if op.type == self.last:
            self.fail_at = object
        taken = self.federation.take(self.federation.entry(node_of("basel"), op))
        return taken.outcome.void

    def register(self, given: Prepared, private: PrivateRegister) -> None:
        register(
            given,
            private,
            state=lambda: self.federation.state,
            publish=self.federation.put,
            say=self.say,
        )

"""A hospital whose patients' budget is spent, with its own software, files and register."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

from ledger.entries.operations.vocabulary import Operation
from ledger.experiment.schema import CategoryColumn, NumberColumn, PatientColumn, Schema
from ledger.rules.experiments import site_of, totals
from node.data import registration
from node.duties.duty import Refuse
from privacy.errors import BudgetExceeded
from privacy.filters import Spend
from tests.adversary.hospital import Hospital
from tests.adversary.world import World
from tests.federation import RESEARCHER, node_of

NODE = "the node's own software"
DOOR = "the door"
KEY = bytes(range(32))
TABLE = "basel-heart"
COLUMNS = ("who", "age", "chol", "weight", "sick")
Row = tuple[str, int, int, int, int]


def patients(first: int, past: int, *, seed: int = 1) -> list[Row]:
    """One row for each patient of a range of ids."""
    draw = random.Random(seed)
    return [
        (f"p{n}", draw.randint(20, 90), draw.randint(100, 600), draw.randint(40, 120), n % 2)
        for n in range(first, past)
    ]


@dataclass(frozen=True)
class Table:
    """A file that the hospital may register: its rows, what it is called, what it shows."""

    rows: Sequence[Row]
    name: str = TABLE
    columns: tuple[str, ...] = COLUMNS

    @property
    def schema(self) -> Schema:
        """Its declaration, with an honest number of patients."""
        known = {
            "who": PatientColumn(type="patient_id", name="who"),
            "age": NumberColumn(type="number", name="age", low=Decimal(20), high=Decimal(90)),
            "chol": NumberColumn(type="number", name="chol", low=Decimal(100), high=Decimal(600)),
            "weight": NumberColumn(
                type="number", name="weight", low=Decimal(40), high=Decimal(120)
            ),
            "sick": CategoryColumn(type="category", name="sick", values=("0", "1")),
        }
        return Schema(
            consilium=1,
            dataset=self.name,
            declared_rows=min(300, len({row[0] for row in self.rows})),
            columns=tuple(known[name] for name in self.columns),
        )

    def write(self, directory: Path) -> Path:
        """The file."""
        path = directory / f"{self.name}.csv"
        places = [COLUMNS.index(name) for name in self.columns]
        lines = [",".join(str(row[place]) for place in places) for row in self.rows]
        path.write_text("\n".join([",".join(self.columns), *lines]) + "\n")
        return path


class Ward:
    """Basel has registered 300 patients, promised them epsilon 5, and reserved 4 of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rows = patients(0, 300)
        self.register(Table(self.rows), epsilon=5.0)
        self.world.federation.register_dataset("bern")
        self.first = self.ask(TABLE, name="first")
        self.basel.reserve(self.first, TABLE)
        world.federation.reserve(self.first, TABLE)
        world.settle()
        self.cells = frozenset(self.basel.register.view.cells)
        self.spend = self.spends()
        assert all(spend.g > 0 for spend in self.spend.values())
        world.attack_begins()

    @property
    def basel(self) -> Hospital:
        """The hospital whose patients they are."""
        return self.world.hospital("basel")

    def spends(self) -> dict[str, Spend]:
        """What basel's cells have paid, by its register; the log says the same."""
        view = self.basel.register.view
        here = {name: cell.spend for name, cell in view.cells.items()}
        log = self.world.federation.state.cells
        assert here == {name: log[name].spend for name in here}
        return here

    def register(self, table: Table, *, epsilon: float | None = None) -> registration.Prepared:
        """What ``consilium dataset register`` does with a file."""
        federation, private = self.world.federation, self.basel.register

        def say(op: Operation) -> str | None:
            return federation.take(federation.entry(node_of("basel"), op)).outcome.void

        prepared = registration.prepare(
            table.write(self.world.directory),
            table.schema,
            organisation="basel",
            hospital_key=KEY,
            cells=private.view.cells,
            epsilon=epsilon,
        )
        registration.register(
            prepared, private, state=lambda: federation.state, publish=federation.put, say=say
        )
        return prepared

    def ask(self, dataset: str, name: str = "second", researcher: str = RESEARCHER) -> str:
        """Somebody asks 4 of this dataset's patients' budget; stewards approve, a round is opened."""
        federation = self.world.federation
        names = [dataset, "bern-heart"]
        spec = federation.spec(names, name=name, epsilon="4")
        experiment = federation.say(researcher, federation.proposal(spec)).entry.hash
        for one in names:
            federation.approve(experiment, one)
        self.world.settle()
        self.world.open_round(experiment, *names)
        self.world.settle()
        self.basel.check_plan(experiment)
        return experiment

    def refuses(self, experiment: str, dataset: str) -> None:
        """Nothing more of the cells' budget is to be had: by the node, its register, everybody."""
        federation, basel = self.world.federation, self.basel
        before = self.spends()
        asked = [d for d in basel.duties() if getattr(d, "experiment", "") == experiment]
        assert asked == [Refuse(experiment, dataset, "budget_exhausted")]
        site = site_of(federation.experiment(experiment).plan, dataset)
        assert site is not None
        charges = totals(site.releases)
        assert self.cells <= {charge.cell for charge in charges}  # whoever had paid pays
        with pytest.raises(BudgetExceeded, match="privacy budget exceeded") as caught:
            basel.register.reserve(federation.id, experiment, dataset, charges)
        assert caught.value.spend in before.values()
        self.world.exposed(NODE)
        federation.reserve(experiment, dataset, void="budget_exhausted")
        self.world.settle()
        assert self.spends() == before

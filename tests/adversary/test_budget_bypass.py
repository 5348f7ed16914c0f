"""A hospital whose patients' budget is spent looks for a second one: by another table, another name, another
person who asks, another federation, an older register, or a number that is none. Each inherits the spend
or is refused.

The hospital's own software runs for real: files on disk are judged and registered by ``node.data``, the
private register is SQLite, the node's duties come from its own copy. The log is everybody's fold.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest
from immutables import Map

from ledger.entries.entry import frame_leaf
from ledger.entries.operations.budgets import BudgetReserved, BudgetSettled
from ledger.entries.operations.datasets import CellCharge
from ledger.entries.operations.experiments import ExperimentStopped
from ledger.entries.operations.federation import (
    ChangeEndorsed,
    ChangeProposed,
    Invitation,
    InviteChange,
    Seat,
)
from ledger.entries.operations.statistics import StatisticsReleased, StatisticsReserved
from ledger.entries.operations.values import PublicKey
from ledger.entries.operations.vocabulary import Operation
from ledger.errors import MalformedInput
from ledger.experiment.purpose_parts import part_for
from ledger.experiment.schema import CategoryColumn, NumberColumn, PatientColumn, Schema
from ledger.experiment.statistics import charges_of
from ledger.formats.value import replace
from ledger.rules.experiments import site_of, totals
from ledger.rules.purposes import gate
from node.data import registration
from node.data.intake import read_table
from node.data.snapshot import split_table
from node.duties.duty import Adopt, Refuse
from node.duties.told import account_for_told
from node.errors import PromiseExceeded, RegistrationRefused
from node.register.private import PrivateRegister
from node.register.promises import PromiseBook
from privacy.errors import BudgetExceeded, InvalidEvent, InvalidParameter
from privacy.events import Gaussian
from privacy.filters import Charge, Spend, limit_for, reserve
from tests.adversary.hospital import Hospital
from tests.adversary.registry import attack
from tests.adversary.test_succession import Heir
from tests.adversary.world import World
from tests.federation import RESEARCHER, Federation, node_of, one_time_key, steward_of

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


@pytest.fixture
def ward(world: World) -> Ward:
    return Ward(world)


pytestmark = pytest.mark.usefixtures("quick_keys")


# --- another table --------------------------------------------------------------------------------


def renamed(rows: list[Row]) -> Table:
    return Table(rows, "basel-ward")


def shuffled(rows: list[Row]) -> Table:
    return Table(random.Random(2).sample(rows, len(rows)))


def subset(rows: list[Row]) -> Table:
    return Table(rows[:150], "basel-half")


def edited(rows: list[Row]) -> Table:
    who, age, *rest = rows[0]
    return Table([(who, 90 if age < 90 else 89, *rest), *rows[1:]])  # type: ignore[list-item]


def viewed(rows: list[Row]) -> Table:
    return Table(rows, "basel-view", ("who", "sick", "chol", "age"))


def second_table(rows: list[Row]) -> Table:
    return Table([*patients(0, 300, seed=5), *patients(0, 300, seed=6)], "basel-lab")


def returning(rows: list[Row]) -> Table:
    return Table(patients(150, 400, seed=7), "basel-next-year")


TABLES = {
    "registers its table under another name": renamed,
    "registers its table with its rows in another order": shuffled,
    "registers a part of its patients as a table of their own": subset,
    "registers its table with one value changed": edited,
    "registers a view of its table with other columns": viewed,
    "registers a second table of the same patients, with several rows each": second_table,
    "registers next year's table, with patients who came back": returning,
}


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            make,
            marks=attack(
                name=f"a hospital whose budget is spent {what}",
                exposed_by=NODE,
                evidence="the cells that the new table names, with what they have paid",
            ),
            id=make.__name__,
        )
        for what, make in TABLES.items()
    ],
)
def test_another_table_of_the_same_patients_inherits_their_spend(
    ward: Ward, make: Callable[[list[Row]], Table]
) -> None:
    table = make(ward.rows)
    prepared = ward.register(table)  # the lie
    assert not {terms.cell for terms, _ in prepared.cells} & ward.cells  # no promise made anew
    assert ward.spends() == ward.spend
    ward.refuses(ward.ask(table.name), table.name)


def test_a_patient_who_comes_back_stays_in_the_half_and_cell_of_the_first_time(
    tmp_path: Path,
) -> None:
    def halves(table: Table) -> dict[str, bool]:
        read = read_table(table.write(tmp_path), table.schema)
        assert read.patients is not None
        test = split_table(read, table.schema, KEY)
        return {str(who): bool(kept) for who, kept in zip(read.patients, test, strict=True)}

    before = halves(Table(patients(0, 300)))
    after = halves(Table(patients(150, 400, seed=7), "basel-next-year"))
    both = before.keys() & after.keys()
    assert len(both) == 150
    assert {who: before[who] for who in both} == {who: after[who] for who in both}


@attack(
    name="a hospital leaves the patients' ids out of its next table, to have a cell without spend",
    exposed_by=NODE,
    evidence="its patients are told apart by id already",
)
def test_a_table_without_ids_does_not_start_anew(ward: Ward) -> None:
    table = Table(ward.rows, "basel-nameless", COLUMNS[1:])
    with ward.world.caught(
        RegistrationRefused, by=NODE, match="declare a column of type patient_id"
    ):
        ward.register(table, epsilon=5.0)  # the lie
    assert frozenset(ward.basel.register.view.cells) == ward.cells


@attack(
    name="a hospital promises its patients a larger epsilon with its next table",
    exposed_by=NODE,
    evidence="the promise in the register, which is for ever",
)
def test_a_promise_does_not_grow_with_a_second_table(ward: Ward) -> None:
    with ward.world.caught(RegistrationRefused, by=NODE, match="were promised epsilon 5 for ever"):
        ward.register(renamed(ward.rows), epsilon=50.0)  # the lie
    assert ward.spends() == ward.spend


# --- another purpose ------------------------------------------------------------------------------


@attack(
    name="researchers split one purpose over many experiments, to use more than its part of the promise",
    exposed_by=NODE,
    evidence="the purpose's own filter in its copy of the log; void: purpose_exhausted",
)
def test_a_purpose_has_one_part_over_all_experiments(world: World) -> None:
    federation, basel = world.federation, world.hospital("basel")
    federation.register_dataset("basel", epsilon=8.0)
    federation.register_dataset("bern", epsilon=8.0)
    terms = federation.state.cells["basel-all"].terms
    federation.say(steward_of("basel"), part_for(terms, "development", 1_200_000))
    world.attack_begins()
    asked = []
    for number in range(2):
        spec = federation.spec([TABLE, "bern-heart"], name=f"part-{number}")
        spec = spec.model_copy(update={"purpose_code": "development"})
        experiment = federation.propose(spec)
        for dataset in (TABLE, "bern-heart"):
            federation.approve(experiment, dataset)
        asked.append(experiment)
    first, second = asked
    world.settle()
    basel.own(TABLE)
    basel.reserve(first, TABLE)
    federation.reserve(first, TABLE)
    world.settle()
    world.open_round(second, TABLE, "bern-heart")
    world.settle()
    basel.check_plan(second)
    duties = [d for d in basel.duties() if getattr(d, "experiment", "") == second]
    assert duties == [Refuse(second, TABLE, "purpose_exhausted")]
    world.exposed(NODE)
    before = federation.state.cells["basel-all"]
    federation.reserve(second, TABLE, void="purpose_exhausted")  # the lie, with the node's help
    assert federation.state.cells["basel-all"] == before
    raised = part_for(terms, "development", 3_000_000)
    federation.say(node_of("basel"), raised, void="purpose_raised")


# --- another person who asks ----------------------------------------------------------------------


@attack(
    name="another researcher asks for a budget that the first one spent",
    exposed_by=NODE,
    evidence="the cells, whose spend names no reader",
)
def test_a_new_researcher_has_no_budget_of_his_own(ward: Ward) -> None:
    federation = ward.world.federation
    invitation = Invitation(
        organisation="academy",
        key=PublicKey(alg="ed25519", public=one_time_key("academy").public.hex()),
        seats=(Seat(handle="academy-eve", role="researcher"),),
    )
    change = ChangeProposed(type="change.proposed", change=InviteChange(invitation=invitation))
    said = federation.say(steward_of("basel"), change).entry
    federation.say(steward_of("bern"), ChangeEndorsed(type="change.endorsed", change=said.hash))
    federation.join("academy", "academy-eve", "researcher")
    ward.refuses(ward.ask(TABLE, researcher="academy-eve"), TABLE)


@attack(
    name="another coordinator goes on with the log, to start with fresh budgets",
    exposed_by="every steward and every node",
    evidence="the cells' spend in the part of genesis that the old log gives",
)
def test_a_new_coordinator_carries_the_spend(ward: Ward) -> None:
    heir = Heir(ward.world, ward.basel)
    heir.found("bern", "chur")
    new = heir.replica(ward.world.directory / "copy")
    carried = {name: new.state.cells[name] for name in ward.cells}
    new.store.close()
    assert {name: cell.spend for name, cell in carried.items()} == ward.spend
    site = site_of(ward.world.federation.experiment(ward.first).plan, TABLE)
    assert site is not None
    (train,) = (charge for charge in totals(site.releases) if charge.cell == "basel-train")
    cell = carried["basel-train"]
    with pytest.raises(BudgetExceeded):
        reserve(cell.spend, Charge(train.g, train.r), gate(cell))
    ward.world.exposed("every steward and every node")


@attack(
    name="a hospital joins a second federation, to promise its patients' budget again",
    exposed_by=NODE,
    evidence="its book of promises, which both homes name",
)
def test_a_second_federation_has_no_budget_of_its_own(world: World, tmp_path: Path) -> None:
    book = PromiseBook(tmp_path / "promises.db")
    book.promise(5_000_000, 10**10)
    first, second = world.federation, Federation.found(("basel", "bern"), now_ms=1_800_000_000_000)
    table = Table(patients(0, 300))

    def offer(federation: Federation, private: PrivateRegister, epsilon: float) -> None:
        def say(op: Operation) -> str | None:
            return federation.take(federation.entry(node_of("basel"), op)).outcome.void

        prepared = registration.prepare(
            table.write(tmp_path),
            table.schema,
            organisation="basel",
            hospital_key=KEY,
            cells=private.view.cells,
            epsilon=epsilon,
            delta=1e-5 * epsilon / 5,
        )
        registration.register(
            prepared,
            private,
            state=lambda: federation.state,
            publish=federation.put,
            say=say,
            book=book,
        )

    offer(first, world.hospital("basel").register, 4.0)
    other = PrivateRegister.open(tmp_path / "other.db")  # its second home
    size = second.log.size
    with world.caught(PromiseExceeded, by=NODE, match="asks for epsilon 4") as caught:
        offer(second, other, 4.0)  # the lie
    assert f"{first.id[:12]} has epsilon 4" in caught.value.reason
    assert second.log.size == size  # nothing was said there
    assert not other.view.cells
    offer(second, other, 1.0)  # what is left of the lifetime
    promised = [
        max(cell.terms.epsilon_micro for cell in federation.state.cells.values())
        for federation in (first, second)
    ]
    assert promised == [4_000_000, 1_000_000]


# --- an older register, an older entry ------------------------------------------------------------


@attack(
    name="a hospital restores the register of before its spend, and asks again",
    exposed_by=NODE,
    evidence="the reservation in the log, which the register adopts before anything else",
)
def test_a_restored_backup_does_not_refund(world: World) -> None:
    empty = world.hospital("basel").back_up(world.directory / "backup")
    ward = Ward(world)
    dataset = ward.basel.register.view.datasets[TABLE]
    ward.basel.restore(empty)  # the lie: not even the cells are known
    ward.basel.follow()
    state = world.federation.state
    assert not ward.basel.register.view.cells
    (adopt,) = (d for d in ward.basel.duties() if getattr(d, "experiment", "") == ward.first)
    assert isinstance(adopt, Adopt)
    ward.basel.register.adopt(state.federation, ward.first, TABLE, adopt.charges)
    ward.register(Table(ward.rows), epsilon=5.0)  # nor can it promise them anew
    assert ward.spends() == ward.spend
    assert ward.basel.register.view.datasets[TABLE].registration != dataset.registration
    ward.refuses(ward.ask(TABLE), TABLE)


@attack(
    name="a hospital restores the register of before the statistics that it told, to tell more",
    exposed_by=NODE,
    evidence="the release in the log, which the register adopts before anything else",
)
def test_a_restored_backup_does_not_refund_statistics(ward: Ward) -> None:
    federation, basel = ward.world.federation, ward.basel
    backup = basel.back_up(ward.world.directory / "backup")
    cells = {"basel-train": federation.state.cells["basel-train"].terms}
    op = StatisticsReserved(
        type="statistics.reserved",
        dataset=TABLE,
        registration=federation.state.datasets[TABLE].registration,
        question=federation.put(b"{}"),
        size=4,
        sensitivity=2**20,
        noise_sd=2**23,
        pure=(),
        charges=charges_of(cells, 2**20, 2**23),
    )
    identity = federation.say(steward_of("basel"), op).entry.hash
    basel.register.reserve(federation.id, identity, TABLE, op.charges)
    told = StatisticsReleased(
        type="statistics.released", reservation=identity, result=federation.put(b"numbers")
    )
    federation.say(node_of("basel"), told)
    ward.world.settle()
    spent = ward.spends()
    assert spent["basel-train"].g > ward.spend["basel-train"].g
    basel.restore(backup)  # the lie
    basel.follow()
    first = basel.duties()[0]
    assert first == Adopt(identity, TABLE, op.charges, Map())
    ward.world.exposed(NODE)
    account_for_told(federation.state, node_of("basel"), basel.register)
    assert ward.spends() == spent
    assert not any(isinstance(duty, Adopt) for duty in basel.duties())


@attack(
    name="a hospital says its reservation or its settlement twice",
    exposed_by="everybody's fold",
    evidence="void: already_reserved, settled; the register does each once",
)
def test_a_charge_counts_once_and_is_given_back_once(ward: Ward) -> None:
    federation, basel = ward.world.federation, ward.basel
    basel.reserve(ward.first, TABLE)  # the lie: the same charge again
    assert ward.spends() == ward.spend
    federation.reserve(ward.first, TABLE, void="already_reserved")
    ward.world.exposed("everybody's fold")
    basel.follow()
    held = basel.replica.state.experiments[ward.first].reservations[TABLE]
    basel.register.adopt(federation.id, ward.first, TABLE, held.charges)
    assert ward.spends() == ward.spend
    stop = ExperimentStopped(type="experiment.stopped", experiment=ward.first, reason="researcher")
    federation.say(RESEARCHER, stop)
    back = BudgetSettled(
        type="budget.settled", experiment=ward.first, dataset=TABLE, used=(), intents="0" * 64
    )
    federation.say(node_of("basel"), back)
    basel.register.settle(ward.first, TABLE, held.charges)
    assert {spend.g for spend in ward.spends().values()} == {0}
    federation.say(node_of("basel"), back, void="settled")  # the lie: the refund again
    basel.register.settle(ward.first, TABLE, held.charges)
    assert {(spend.g, spend.r) for spend in ward.spends().values()} == {(0, 0)}


# --- numbers that are none ------------------------------------------------------------------------

LITERALS = (
    "NaN", "Infinity", "-Infinity", "-1", "-0", "0.0", "1.0", "0.5", "4.9e-324", "1e-400", "1e400",
    "1e3", "9007199254740993", "true", "null", '"7"', "[7]",
)  # fmt: skip
"""What JSON readers here and there would take for a small charge, or for none."""


@attack(
    name="a hospital signs a reservation whose charge is no natural number",
    exposed_by=DOOR,
    evidence="its signed bytes, which are no entry",
)
def test_a_charge_that_is_no_natural_number_never_enters_the_log(world: World) -> None:
    experiment = world.experiment()
    (charge,) = totals(world.federation.experiment(experiment).plan.sites[0].releases)
    op = BudgetReserved(
        type="budget.reserved", experiment=experiment, dataset=TABLE, charges=(charge,)
    )
    honest = world.federation.entry(node_of("basel"), op)
    ring = world.federation.rings[node_of("basel")]
    size = world.federation.log.size
    for literal in LITERALS:
        false = honest.raw.replace(b'"g":%d' % charge.g, b'"g":' + literal.encode())
        assert false != honest.raw
        leaf = frame_leaf(false, ring.entry.sign("entry", false))
        with world.caught(MalformedInput, by=DOOR):
            world.coordinator.submit(leaf)  # the lie
        assert world.federation.log.size == size
        world.coordinator.lie([*world.federation.leaves, leaf])  # nor with the coordinator's help
        with world.caught(MalformedInput, by="every follower"):
            world.hospital("bern").follow()


@attack(
    name="a hospital reserves nothing for a plan that costs something",
    exposed_by="everybody's fold",
    evidence="void: charges_mismatch; the plan's own charges",
)
def test_a_charge_of_zero_is_not_the_plans(world: World) -> None:
    experiment = world.experiment()
    (charge,) = totals(world.federation.experiment(experiment).plan.sites[0].releases)
    for none in (replace(charge, g=0), replace(charge, g=0, r=0)):
        op = BudgetReserved(
            type="budget.reserved", experiment=experiment, dataset=TABLE, charges=(none,)
        )
        world.federation.say(node_of("basel"), op, void="charges_mismatch")  # the lie
    assert world.hospital("bern").follow()[-1].outcome.void == "charges_mismatch"
    world.exposed("everybody's fold")
    assert world.federation.state.cells["basel-all"].spend == Spend()


@attack(
    name="researcher proposes a plan that charges next to nothing for its noise",
    exposed_by="everybody's fold",
    evidence="void: plan_invalid; the charge that the noise implies, in integers",
)
def test_a_plan_that_charges_too_little_is_void(world: World) -> None:
    federation = world.federation
    world.experiment()
    said = federation.proposal(federation.spec([TABLE, "bern-heart"], name="cheap"))
    first, *others = said.plan.sites
    cheap = tuple(
        replace(release, charges=tuple(replace(c, g=1, r=1) for c in release.charges))
        for release in first.releases
    )
    plan = replace(said.plan, sites=(replace(first, releases=cheap), *others))
    cheaper = replace(said, plan=plan)
    federation.say(RESEARCHER, cheaper, void="plan_invalid")  # the lie
    assert world.hospital("bern").follow()[-1].outcome.void == "plan_invalid"
    world.exposed("everybody's fold")


NUMBERS = (math.nan, math.inf, -math.inf, -1.0, -0.0, 0.0, 5e-324, 1e-300)


@pytest.mark.parametrize("number", NUMBERS)
def test_no_number_of_that_kind_is_a_charge_a_noise_or_a_promise(
    number: float, tmp_path: Path
) -> None:
    for make in (
        lambda: Charge(number, 0),  # type: ignore[arg-type]
        lambda: Charge(0, number),  # type: ignore[arg-type]
        lambda: Spend(number, 0),  # type: ignore[arg-type]
        lambda: Gaussian(number, 1),  # type: ignore[arg-type]
        lambda: Gaussian(1, number),  # type: ignore[arg-type]
        lambda: Gaussian(1, 1, number),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidEvent, match="an integer in"):
            make()
    with pytest.raises(InvalidEvent, match="an integer in"):
        Charge(True, 0)
    with pytest.raises(InvalidParameter):
        limit_for(number, 1e-5)
    with pytest.raises(InvalidParameter):
        limit_for(1.0, number)
    table = Table(patients(0, 300))
    for given in ({"epsilon": number}, {"epsilon": 5.0, "delta": number}):
        with pytest.raises(RegistrationRefused, match=re.escape(TABLE)):
            registration.prepare(
                table.write(tmp_path),
                table.schema,
                organisation="basel",
                hospital_key=KEY,
                cells=PrivateRegister.open(tmp_path / "private.db").view.cells,
                **given,
            )


def test_the_register_charges_no_such_number_either(ward: Ward) -> None:
    register, cell = ward.basel.register, min(ward.cells)
    for number in (*NUMBERS, -7, 2**300 + 1):
        false = [replace(CellCharge(cell=cell, g=0, r=0), g=number)]  # type: ignore[arg-type]
        with pytest.raises(InvalidEvent, match="an integer in"):
            register.reserve("f", "e" * 64, TABLE, false)
        with pytest.raises(InvalidEvent, match="an integer in"):
            register.adopt("f", "d" * 64, TABLE, false)
        with pytest.raises(InvalidEvent, match="an integer in"):
            register.settle(ward.first, TABLE, false)
        assert ward.spends() == ward.spend

"""A spent budget is asked for by somebody else: a purpose, a researcher, a coordinator, a second federation."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.entries.operations.federation import (
    ChangeEndorsed,
    ChangeProposed,
    Invitation,
    InviteChange,
    Seat,
)
from ledger.entries.operations.values import PublicKey
from ledger.entries.operations.vocabulary import Operation
from ledger.experiment.purpose_parts import part_for
from ledger.rules.experiments import site_of, totals
from ledger.rules.purposes import gate
from node.data import registration
from node.duties.duty import Refuse
from node.errors import PromiseExceeded
from node.register.private import PrivateRegister
from node.register.promises import PromiseBook
from privacy.errors import BudgetExceeded
from privacy.filters import Charge, reserve
from tests.adversary.registry import attack
from tests.adversary.test_succession import Heir
from tests.adversary.ward import KEY, NODE, TABLE, Table, Ward, patients
from tests.adversary.world import World
from tests.federation import Federation, node_of, one_time_key, steward_of

pytestmark = pytest.mark.usefixtures("quick_keys")


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

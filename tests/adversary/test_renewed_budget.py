"""A hospital's promise renews each month. Somebody wants the next month's budget early, or a month's twice: by the
coordinator's clock, the hospital's own, a shorter month, another federation, an older register.

The log is everybody's fold by the coordinator's time; the register sums by the hospital's clock; what both
admit is spent, so each promise holds by either clock.
"""

from __future__ import annotations

import hashlib

import pytest
from immutables import Map

from ledger.entries.operations.budgets import BudgetSettled, Used
from ledger.entries.operations.experiments import ExperimentStopped
from ledger.entries.operations.log import TimeNoted
from ledger.entries.operations.refreshes import RefreshDeclared
from ledger.rules.budget import refunds
from ledger.rules.experiments import site_of, totals
from ledger.rules.purposes import cell_now
from node.duties.duty import Adopt, CloseAccount, Refuse, Reserve, Wait
from node.duties.recovery import counted_in, spend_in
from node.duties.renewing import periods_in
from privacy.errors import BudgetExceeded
from privacy.filters import Spend
from privacy.periods import DAY_MS
from tests.adversary.hospital import Hospital
from tests.adversary.registry import attack
from tests.adversary.world import World
from tests.federation import COORDINATOR, node_of
from tests.ledger.facts import cell_of

NODE = "the node's own software"
FOLD = "everybody's fold"
TABLE = "basel-heart"
CELL = "basel-all"
MONTH = 30 * DAY_MS

pytestmark = pytest.mark.usefixtures("quick_keys")


class Month:
    """Basel promised its patients epsilon 5 for each month, and this month's is spent but for a little."""

    def __init__(self, world: World) -> None:
        self.world = world
        federation = world.federation
        federation.register_dataset("basel", refresh_days=30)
        federation.register_dataset("bern")
        self.empty = world.hospital("basel").back_up(world.directory / "empty")
        world.settle()
        self.basel.own(TABLE)
        self.first = self.ask("first")
        assert self.mine(self.first) == [Reserve(self.first, TABLE, self.charges(self.first))]
        self.basel.reserve(self.first, TABLE)
        federation.reserve(self.first, TABLE)
        world.settle()
        world.attack_begins()

    @property
    def basel(self) -> Hospital:
        return self.world.hospital("basel")

    def ask(self, name: str) -> str:
        """Somebody asks 4 of this month's 5; stewards approve, a round is opened."""
        federation = self.world.federation
        names = [TABLE, "bern-heart"]
        spec = federation.spec(names, name=name, epsilon="4")
        experiment = federation.propose(spec)
        for one in names:
            federation.approve(experiment, one)
        self.world.settle()
        self.world.open_round(experiment, *names)
        self.world.settle()
        self.basel.check_plan(experiment)
        return experiment

    def charges(self, experiment: str) -> tuple:  # type: ignore[type-arg]
        site = site_of(self.world.federation.experiment(experiment).plan, TABLE)
        assert site is not None
        return totals(site.releases)

    def mine(self, experiment: str) -> list[object]:
        """What the node would do about an experiment."""
        return [d for d in self.basel.duties() if getattr(d, "experiment", "") == experiment]

    def settle(self, experiment: str, steps: int | None, *, here: bool = True) -> None:
        """The log, and then the register, give back all but so many steps of training; None for nothing."""
        federation = self.world.federation
        stop = ExperimentStopped(
            type="experiment.stopped", experiment=experiment, reason="no_approval"
        )
        federation.say(COORDINATOR, stop)
        site = site_of(federation.experiment(experiment).plan, TABLE)
        assert site is not None
        used = {r.purpose: r.steps for r in site.releases} if steps is None else {"train": steps}
        op = BudgetSettled(
            type="budget.settled",
            experiment=experiment,
            dataset=TABLE,
            used=tuple(Used(purpose=p, steps=n) for p, n in sorted(used.items())),  # type: ignore[arg-type]
            intents=hashlib.sha256(b"").hexdigest(),
        )
        federation.say(node_of("basel"), op)
        self.world.settle()
        if here:
            self.settle_here(experiment, steps)

    def settle_here(self, experiment: str, steps: int | None) -> None:
        """The register alone gives back what the log gave back."""
        site = site_of(self.world.federation.experiment(experiment).plan, TABLE)
        assert site is not None
        used = {r.purpose: r.steps for r in site.releases} if steps is None else {"train": steps}
        self.basel.register.settle(experiment, TABLE, refunds(site, Map(used)))

    def register_spend(self) -> Spend:
        """What the register holds in the period of the hospital's clock."""
        return self.basel.register.view.cells[CELL].now(self.basel.now_ms).spend

    def pass_time(self, ms: int) -> None:
        """Everybody's clock moves, and the log's with it."""
        self.world.let_time_pass(ms)
        self.world.settle()


@pytest.fixture
def month(world: World) -> Month:
    return Month(world)


def test_an_honest_month_later_the_whole_promise_is_there_again(month: Month) -> None:
    federation, basel = month.world.federation, month.basel
    second = month.ask("second")
    assert month.mine(second) == [Refuse(second, TABLE, "budget_exhausted")]
    month.settle(month.first, 2)
    month.pass_time(MONTH)
    third = month.ask("third")
    assert month.mine(third) == [Reserve(third, TABLE, month.charges(third))]
    basel.reserve(third, TABLE)
    federation.reserve(third, TABLE)
    fourth = month.ask("fourth")
    assert month.mine(fourth) == [Refuse(fourth, TABLE, "budget_exhausted")]


def test_what_is_open_over_the_boundary_counts_in_both_months(month: Month) -> None:
    before = month.register_spend()
    month.pass_time(MONTH)
    assert month.register_spend() == before
    assert cell_now(month.world.federation.state, CELL).spend == before
    second = month.ask("second")
    assert month.mine(second) == [Refuse(second, TABLE, "budget_exhausted")]
    with pytest.raises(BudgetExceeded):
        month.basel.reserve(second, TABLE)
    month.world.federation.reserve(second, TABLE, void="budget_exhausted")
    month.settle(month.first, 1, here=False)
    assert [type(d) for d in month.mine(month.first)] == [CloseAccount]
    assert month.register_spend() == before
    month.settle_here(month.first, 1)
    state = month.world.federation.state
    assert Spend() != month.register_spend() == cell_now(state, CELL).spend


@attack(
    name="coordinator's clock runs ahead, so that the log's next period begins early",
    exposed_by=NODE,
    evidence="its own clock; its register, which sums by that",
)
def test_a_fast_coordinator_refreshes_nothing(month: Month) -> None:
    world, federation = month.world, month.world.federation
    month.settle(month.first, 2)
    steps = month.register_spend()
    month.basel.register.settle(month.first, TABLE, ())  # all of it was used
    assert month.register_spend() == steps
    federation.say(COORDINATOR, TimeNoted(type="time.noted"))  # an honest word before the lie
    ahead = federation.entry(
        COORDINATOR, TimeNoted(type="time.noted"), at_ms=federation.now_ms + MONTH
    )
    federation.take(ahead)  # the lie
    assert cell_now(federation.state, CELL).spend == Spend()
    for hospital in world.hospitals.values():
        hospital.follow()
    spec = federation.spec([TABLE, "bern-heart"], name="early", epsilon="4")
    early = federation.propose(spec)
    for one in (TABLE, "bern-heart"):
        federation.approve(early, one)
    with pytest.raises(BudgetExceeded):
        month.basel.register.reserve(federation.id, early, TABLE, month.charges(early))
    world.exposed(NODE)
    why = month.basel.replica.state.cells[CELL].periods
    assert why is not None
    assert why.at(month.basel.replica.state.log_time) == 1 != why.at(month.basel.now_ms)
    assert month.register_spend() == steps


@attack(
    name="hospital's clock jumps ahead, by mistake or by somebody's doing",
    exposed_by=NODE,
    evidence="the log's time; void: budget_exhausted",
)
def test_a_hospitals_clock_that_jumped_refreshes_nothing(month: Month) -> None:
    second = month.ask("second")
    late = [
        d
        for d in month.basel.duties(late_ms=MONTH)  # the lie
        if getattr(d, "experiment", "") == second
    ]
    assert [type(d) for d in late] == [Wait]
    assert "it is not the same period of cell basel-all" in late[0].why  # type: ignore[union-attr]
    month.world.exposed(NODE)
    month.world.federation.reserve(second, TABLE, void="budget_exhausted")


@attack(
    name="coordinator says nothing for a month, so that a spent period seems to last and is spent again",
    exposed_by=NODE,
    evidence="its own clock, by which another period has begun",
)
def test_a_log_that_stands_still_lends_nothing_from_the_last_period(month: Month) -> None:
    world, federation = month.world, month.world.federation
    month.settle(month.first, 0)
    second = month.ask("second")
    assert month.mine(second) == [Reserve(second, TABLE, month.charges(second))]
    federation.now_ms += MONTH  # the lie: nobody notes the time
    for hospital in world.hospitals.values():
        hospital.follow()
    duties = month.mine(second)
    assert [type(d) for d in duties] == [Wait]
    world.exposed(NODE)


@attack(
    name="hospital declares a first period that is long over, to begin with a second one",
    exposed_by=FOLD,
    evidence="void: cell_terms, by the log's time",
)
def test_a_backdated_period_is_void(world: World) -> None:
    federation = world.federation
    federation.register_dataset("bern")
    federation.say(node_of("basel"), cell_of("basel"))
    old = RefreshDeclared(
        type="refresh.declared", cell=CELL, days=30, from_ms=federation.now_ms - MONTH - 10_000
    )
    federation.say(node_of("basel"), old, void="cell_terms")  # the lie
    assert world.hospital("bern").follow()[-1].outcome.void == "cell_terms"
    world.exposed(FOLD)


@attack(
    name="hospital declares a shorter period for patients whose promise is spent",
    exposed_by=FOLD,
    evidence="void: repeated; void: cell_exists",
)
def test_a_period_is_never_declared_again(month: Month) -> None:
    federation = month.world.federation
    for cell, void in ((CELL, "repeated"), ("bern-all", "cell_exists")):
        op = RefreshDeclared(type="refresh.declared", cell=cell, days=30, from_ms=federation.now_ms)
        federation.say(node_of(cell.partition("-")[0]), op, void=void)  # type: ignore[arg-type]
    assert month.world.hospital("bern").follow()[-1].outcome.void == "cell_exists"
    month.world.exposed(FOLD)


@attack(
    name="hospital restores the register of before a month's spend, in the month after",
    exposed_by=NODE,
    evidence="the reservation in the log, which the register adopts before anything else",
)
def test_a_backup_restored_over_a_boundary_refunds_nothing(month: Month) -> None:
    world, federation = month.world, month.world.federation
    backup = month.basel.back_up(
        world.directory / "backup"
    )  # the first month's, its reservation open
    month.settle(month.first, 1)
    used = federation.state.cells[CELL].spend
    month.pass_time(MONTH)
    second = month.ask("second")
    month.basel.reserve(second, TABLE)
    federation.reserve(second, TABLE)
    world.settle()
    spent = month.register_spend()
    month.basel.restore(backup)  # the lie
    month.basel.follow()
    duties = month.basel.duties()
    assert [type(d) for d in duties] == [Adopt]
    world.exposed(NODE)
    month.basel.register.adopt(federation.id, second, TABLE, month.charges(second))
    now = month.register_spend()
    assert now.g >= spent.g  # and the first one's, which is still open here, in full
    assert now.r >= spent.r
    third = month.ask("third")
    with pytest.raises(BudgetExceeded):
        month.basel.register.reserve(federation.id, third, TABLE, month.charges(third))
    month.pass_time(MONTH)
    assert month.register_spend().g >= spent.g  # both are open here until they are settled
    assert federation.state.cells[CELL].periods.total_g >= used.g  # type: ignore[union-attr]


@attack(
    name="hospital restores a register that does not know the cell, to begin a period anew",
    exposed_by=NODE,
    evidence="all that the log ever charged to the cell, which counts in the period under way",
)
def test_a_lost_register_begins_with_everything_spent(month: Month) -> None:
    world, federation = month.world, month.world.federation
    month.settle(month.first, None)
    month.pass_time(MONTH)
    month.basel.restore(month.empty)  # the lie
    month.basel.follow()
    assert not month.basel.register.view.cells
    state = month.basel.replica.state
    month.basel.register.add_cell(
        state.cells[CELL].terms,
        None,
        spend_in(state, CELL),
        counted_in(state, CELL),
        periods_in(state, CELL, month.basel.now_ms),
    )
    total = state.cells[CELL].periods
    assert total is not None
    assert month.register_spend() == Spend(total.total_g, total.total_r)
    (adopt,) = [d for d in month.basel.duties() if isinstance(d, Adopt)]
    month.basel.register.adopt(federation.id, month.first, TABLE, adopt.charges, ())
    assert month.register_spend() == Spend(total.total_g, total.total_r)  # once
    world.exposed(NODE)
    month.pass_time(MONTH)
    assert month.register_spend() == Spend()

"""One hospital, one cell of patients, eight experiments, and everything that can go wrong in between.

What is real: the fold's rules for budgets and rounds, the filter, the duties of a node, the steps of its
register, and how it accounts for earlier lives. What is played: the coordinator, which opens and ends
rounds, withholds the newest entries, and answers or not; the other hospitals, who vouch for the one true
log; and the machine, which loses what is not durable between any two steps and is restored from a backup
of the register alone or of the whole home, as often as it pleases.

What a schedule must keep, at every moment:

* a cell never releases more than its promise: one lane holds the sum of what left (`OverAdmitted`);
* no reservation is charged less than what left for it, in the log and in the register (`UnderCharged`).

What left is counted when a vector is uploaded: different vectors of one round are different releases.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from immutables import Map

from ledger.entries.operations.budgets import BudgetReserved, BudgetSettled
from ledger.entries.operations.log import NodeResumed
from ledger.entries.operations.rounds import (
    UpdateSubmitted,
)
from ledger.entries.operations.values import BlobRef
from ledger.rules import budget, experiments, rounds
from ledger.rules.budget import refunds
from ledger.rules.experiments import site_of
from ledger.rules.state import State
from ledger.rules.state import replace as changed
from ledger.rules.verdict import Step, Void
from node.duties.duty import Adopt, CloseAccount, Duty, Reserve, Send, Settle, Train
from node.duties.judging import duties, steps_of
from node.duties.recovery import account_for_earlier_lives
from node.duties.situation import LocalPolicy, Memory, Standing
from node.register.accounts import PrivateCell, PrivateView, stated
from privacy.errors import BudgetExceeded
from tests.schedules.coordinating import coordinate, end, stop
from tests.schedules.memory import Disk, MemoryRegister
from tests.schedules.months import Left, check_periods, let_time_pass, note_left
from tests.schedules.promised import (
    CELL,
    DATASET,
    ME,
    WRITERS,
    Crash,
    Home,
    UnderCharged,
    approvals_seen,
    check_log,
    template,
)

_RULES: dict[str, Callable[[State, Step, Any], State | Void]] = {
    "budget.reserved": budget.reserved,
    "budget.settled": budget.settled,
    "round.opened": rounds.opened,
    "update.submitted": rounds.submitted,
    "round.aggregated": rounds.aggregated,
    "round.closed": rounds.closed,
    "experiment.stopped": experiments.stopped,
}


@dataclass
class World:
    """A schedule under way; ``play`` runs it."""

    chance: random.Random
    days: int | None = None
    log: list[tuple[str, Any]] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    backups: list[Home] = field(default_factory=list)
    released: dict[tuple[str, int], set[str]] = field(default_factory=dict)
    vectors: int = 0
    restores: int = 0
    frailty: float = 0.0
    moved: bool = False
    """Whether something left, or was given back, since the last check."""
    clock_ms: int = 0
    left_in: Left = field(default_factory=dict)

    def __post_init__(self) -> None:
        state = template(self.days)
        self.base = state.size
        self.states = [state]
        self.clock_ms = state.log_time
        cell = PrivateCell(state.cells[CELL].terms, None, periods=state.cells[CELL].periods)
        record: Any = SimpleNamespace(registration=state.datasets[DATASET].registration)
        view = PrivateView(datasets=Map({DATASET: record}), cells=Map({CELL: cell}))
        self.home = Home(Disk(view), state.size)
        self._forget()

    # --- the schedule ---------------------------------------------------------------------------

    def play(self, steps: int) -> None:
        """Run so many random steps, then let everything settle down.

        Raises:
            OverAdmitted, UnderCharged: what must not happen did.
        """
        weights = self.chance.choice(_WEIGHTS)
        self.frailty = self.chance.choice((0.02, 0.1, 0.3))
        for _ in range(self.chance.randint(1, WRITERS)):
            coordinate(self)
        actions = _ACTIONS
        if self.days is not None:
            actions, weights = [*_ACTIONS, let_time_pass], (*weights, 3)
        for act in self.chance.choices(actions, weights, k=steps):
            act(self)
            if self.moved:
                self.moved = False
                self.check()
        self._wind_down()
        self.check()

    def check(self) -> None:
        """Compare what left with what was charged."""
        view = self.home.disk.view
        left = check_log(self.states[-1], self.released, self.restores)
        check_periods(self.states[-1], self.left_in)
        cell = view.cells[CELL]
        held = cell.spend.g if cell.periods is None else cell.periods.total_g
        if self.complete and held < left:
            raise UnderCharged(f"the register holds {held}, but {left} left")

    # --- the log --------------------------------------------------------------------------------

    def say(self, author: str, op: Any) -> bool:
        """Put an operation into the one true log; whether it took effect."""
        state = self.states[-1]
        body = SimpleNamespace(author=author, at_ms=state.log_time)
        digest = hashlib.sha256(f"{len(self.log)}".encode()).hexdigest()
        entry: Any = SimpleNamespace(body=body, hash=digest)
        verdict: State | Void | None = state
        rule = _RULES.get(op.type)
        if rule is not None:
            verdict = rule(state, Step(entry, state.size), op)
        applied = not isinstance(verdict, Void)
        after = verdict if isinstance(verdict, State) else getattr(verdict, "state", None) or state
        self.log.append((author, op))
        self.states.append(changed(after, size=state.size + 1))
        return applied

    def state_at(self, size: int) -> State:
        return self.states[size - self.base]

    def said_between(self, start: int, stop: int) -> Iterator[tuple[int, Any]]:
        for index in range(max(start, self.base), stop):
            author, op = self.log[index - self.base]
            yield index, SimpleNamespace(author=author, op=op)

    # --- the machine ----------------------------------------------------------------------------

    def back_up(self) -> None:
        self.backups = [*self.backups[-3:], replace(self.home)]

    def restore_register(self) -> None:
        """The register alone is put back; copy and pen are newer than it."""
        if self.backups:
            self.home.disk = self.chance.choice(self.backups).disk
            self.restores += 1
            self._forget()

    def restore_home(self) -> None:
        """Everything is put back: an old copy with an old cosigned head, an old register, an old pen."""
        if self.backups:
            self.home = replace(self.chance.choice(self.backups))
            self.restores += 1
            self._forget()

    def crash(self) -> None:
        self._forget()

    def rekey(self) -> None:
        """After a restored home its pen is behind: new keys are endorsed, and it may sign again."""
        self.home.said = self.ours

    @property
    def ours(self) -> int:
        return sum(author == ME for author, _ in self.log)

    def _forget(self) -> None:
        """What was not on the disk is gone."""
        plans = Map(dict.fromkeys(template(self.days).experiments, True))
        self.memory = Memory(plans=plans)
        self.nonce: str | None = None
        self.resumed_at: int | None = None
        self.accounted = self.complete = False
        self.vouched = not any(author == ME for author, _ in self.log) and self.restores == 0
        if self.vouched:
            self.accounted = True

    # --- the node -------------------------------------------------------------------------------

    def follow(self) -> None:
        """Take some of what there is; a coordinator need not show the newest."""
        size = self.states[-1].size
        if self.chance.random() < 0.3:
            size = self.chance.randint(self.home.size, size)
        self.home.size = size
        if self.nonce is not None and self.resumed_at is None:
            for index, body in self.said_between(self.base, self.home.size):
                if isinstance(body.op, NodeResumed) and body.op.nonce == self.nonce:
                    self.resumed_at = index

    def work(self) -> None:
        register = MemoryRegister(self.home.disk, lambda: self.clock_ms)
        try:
            self._work(register)
        except Crash:
            self.home.disk = register.disk
            self._forget()
        self.home.disk = register.disk

    def _work(self, register: MemoryRegister) -> None:
        state = self.state_at(self.home.size)
        if not self.vouched:
            self._greet(register, state)
        found = duties(
            state,
            ME,
            register.view,
            self._standing(state),
            self.memory,
            LocalPolicy(),
            state.log_time if self.days is None else self.clock_ms,
        )
        self.complete = self.vouched and not any(isinstance(duty, Adopt) for duty in found)
        for duty in self.chance.sample(found, min(3, len(found))):
            self._do(duty, register, state)

    def _greet(self, register: MemoryRegister, state: State) -> None:
        """Say that this is a restart; once the copy has it, account for lives before; be vouched."""
        if self.nonce is None:
            nonce = f"{self.chance.getrandbits(256):064x}"
            register.note_restart(nonce)
            self._maybe_crash()
            if not self._sign(NodeResumed(type="node.resumed", nonce=nonce)):
                return
            self.nonce = nonce
        if self.resumed_at is None:
            return
        if not self.accounted:
            stop = self.resumed_at
            real: Any = register
            account_for_earlier_lives(
                state, ME, real, lambda start: self.said_between(start, stop), state.log_time
            )
            self.accounted = True
        # Others cosign the true log alone; it reaches the node with the final checkpoint.
        self.vouched = self.chance.random() < 0.7

    def _standing(self, state: State) -> Standing:
        final = state.size if self.chance.random() < 0.8 else self.base
        return Standing(final, True, self.vouched, approvals_seen(self.days))

    def _do(self, duty: Duty, register: MemoryRegister, state: State) -> None:
        if isinstance(duty, Reserve):
            key = (duty.experiment, duty.dataset)
            try:
                register.reserve(key, duty.charges)
            except BudgetExceeded:
                return  # another of this moment's duties took what was left
            self._maybe_crash()
            op = BudgetReserved(
                type="budget.reserved",
                experiment=duty.experiment,
                dataset=duty.dataset,
                charges=duty.charges,
            )
            self._sign(op)
        elif isinstance(duty, Train):
            self._train(duty, register, state)
        elif isinstance(duty, Send):
            self._send(duty, register)
        elif isinstance(duty, Adopt):
            site = site_of(state.experiments[duty.experiment].plan, duty.dataset)
            assert site is not None
            back = None if duty.used is None else refunds(site, duty.used)  # type: ignore[arg-type]
            register.adopt(state.federation, duty.experiment, duty.dataset, duty.charges, back)
        elif isinstance(duty, Settle):
            register.close_intents((duty.experiment, duty.dataset))
            self._maybe_crash()
            op_settled = BudgetSettled(
                type="budget.settled",
                experiment=duty.experiment,
                dataset=duty.dataset,
                used=stated(duty.used),
                intents="0" * 64,
            )
            self.moved = True
            self._sign(op_settled)
        elif isinstance(duty, CloseAccount):
            site = site_of(state.experiments[duty.experiment].plan, duty.dataset)
            assert site is not None
            back = refunds(site, duty.used)  # type: ignore[arg-type]
            register.settle((duty.experiment, duty.dataset), back)
            self.moved = True

    def _train(self, duty: Train, register: MemoryRegister, state: State) -> None:
        key = (duty.experiment, duty.dataset)
        experiment = state.experiments[duty.experiment]
        site = site_of(experiment.plan, duty.dataset)
        assert site is not None
        for purpose, steps in steps_of(site, duty.kind, experiment.plan.steps_per_round).items():
            register.record_intent(
                *key, purpose, round_number=duty.round, steps=steps, at_ms=state.log_time
            )
        self._maybe_crash()
        if self.chance.random() < 0.1:
            return  # the training process died; the intent stays
        self.vectors += 1
        digest = hashlib.sha256(f"vector {self.vectors}".encode()).hexdigest()
        register.store_update(key, duty.round, BlobRef(sha256=digest, bytes=8))
        self._maybe_crash()

    def _send(self, duty: Send, register: MemoryRegister) -> None:
        key = (duty.experiment, duty.dataset)
        ref = register.view.outbox[(*key, duty.round)]
        gone = self.released.setdefault((duty.experiment, duty.round), set())
        periods = register.view.cells[CELL].periods
        if periods is not None and ref.sha256 not in gone:
            note_left(self, periods, duty.experiment, duty.round)
        gone.add(ref.sha256)
        self.moved = True
        self._maybe_crash()
        op = UpdateSubmitted(
            type="update.submitted",
            experiment=duty.experiment,
            dataset=duty.dataset,
            round=duty.round,
            attempt=duty.attempt,
            update=ref,
            used=stated(register.view.used_by(key)),
            intents="0" * 64,
            masked=None,
        )
        if self._sign(op):
            sent = (duty.experiment, duty.dataset, duty.round, duty.attempt)
            self.memory = replace(self.memory, answered=self.memory.answered | {sent})

    def _sign(self, op: Any) -> bool:
        """Sign and hand in: refused where the pen is behind the log; sometimes nothing comes back."""
        if self.home.said < self.ours:
            return False
        self.say(ME, op)
        self.home.said += 1
        self._maybe_crash()
        return True

    def _maybe_crash(self) -> None:
        if self.chance.random() < self.frailty:
            raise Crash

    def _wind_down(self) -> None:
        """Everything ends, and is settled."""
        self.frailty = 0.0
        for name in template(self.days).experiments:
            if not self.states[-1].experiments[name].ended:
                end(self, name)
        self.rekey()
        for _ in range(2 * WRITERS):
            self.home.size = self.states[-1].size
            self.follow()
            self.work()


_ACTIONS: list[Callable[[World], None]] = [
    coordinate,
    World.follow,
    World.work,
    World.back_up,
    World.restore_register,
    World.restore_home,
    World.rekey,
    World.crash,
    stop,
]
# Calm; a register that is put back again and again; homes that are; rounds that miss their quorum.
_WEIGHTS = (
    [10, 12, 30, 2, 0.3, 0.3, 2, 1, 0.7],
    [4, 14, 30, 1, 4, 0, 0, 1, 0.3],
    [8, 12, 30, 2, 0.5, 2, 4, 1, 0.5],
    [16, 12, 20, 2, 1.5, 0, 0, 2, 0.3],
)

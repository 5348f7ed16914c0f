"""What this node must do now, or must refuse: a pure function of its own verified copy of the log.

A coordinator asks by naming a dataset in a round. What happens then is decided here, from the
node's own fold of the log, its private register and its local policy; the coordinator's word counts
for nothing beside it. In this order:

1. The dataset is this node's, is known here, was not withdrawn and not registered anew.
2. Its steward approved, the approval holds, its conditions are met, a final checkpoint covers it, and
   a quorum of hospitals had cosigned it before it was older than the policy's ``max_delay_ms``.
3. Local policy allows it; the plan is what the spec implies (the shell checks that once).
4. The private register and the log's filter both admit the charge, and where a promise renews their clocks
   agree on its period: reserve, before data is touched.
5. First touch of data: the reservation is applied, under a final and fresh checkpoint, and the log's
   time is not behind this node's clock by more than the policy's skew.
6. Each round: the same bytes again if they exist; else a new intent, if a step is left for it.
   In a masked round also what its open phase asks for (``masking.py``).
7. After the experiment: settle what has no intent; then close the account in the register.

A reservation that the log knows better than the register is one that a restored backup forgot: it is
spent, in full or as the log has it settled, and nothing trains on it. No refusal depends on rows of
data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

from immutables import Map

from ledger.entries.operations.budgets import BudgetRefusal
from ledger.entries.operations.plans import Purpose, SitePlan
from ledger.entries.operations.rounds import RoundKind
from ledger.rules.experiment_state import Experiment, Masking, OpenRound, Reservation
from ledger.rules.experiments import totals, was_held_back
from ledger.rules.purposes import pay
from ledger.rules.state import Cell, Dataset, State
from node.duties.duty import (
    Adopt,
    CheckPlan,
    CloseAccount,
    Duty,
    Refuse,
    Reserve,
    Send,
    Settle,
    Train,
    Wait,
)
from node.duties.masking import is_spent, masking_duties, may_send, may_still_send
from node.duties.renewing import out_of_step, to_close
from node.duties.situation import LocalPolicy, Memory, Standing
from node.duties.told import unaccounted
from node.register.accounts import Key, PrivateView
from privacy.filters import Charge


def duties(
    state: State,
    me: str,
    view: PrivateView,
    standing: Standing,
    memory: Memory,
    policy: LocalPolicy,
    now_ms: int,
) -> tuple[Duty, ...]:
    """Everything that this node has to do, oldest experiment first; accounting before all else.

    Args:
        state: the fold of this node's own copy.
        me: this node's handle.
        view: the private register.
        standing: what the final checkpoint covers.
        memory: what this process found out.
        policy: local.
        now_ms: this node's clock.
    """
    here = _Here(state, me, view, standing, memory, policy, now_ms)
    found: list[Duty] = [
        Adopt(identity, held.terms.dataset, held.terms.charges, Map())
        for identity, held in unaccounted(state, me, view)
    ]
    found.extend(CloseAccount(*key, Map()) for key in to_close(state, me, view))
    for experiment in sorted(state.experiments.values(), key=lambda e: e.index):
        for site in experiment.plan.sites:
            if state.datasets[site.dataset].node == me:
                found.extend(here.judge(experiment, site))
    # What the register does not know yet is counted before it is asked to pay for anything more.
    missing = [duty for duty in found if isinstance(duty, Adopt)]
    return tuple(dict.fromkeys(missing or found))


def approvals(state: State, me: str) -> Iterator[int]:
    """Entry indexes of the approvals that this node's duties may rest on: for `Standing`."""
    for experiment in state.experiments.values():
        if experiment.ended:
            continue
        for dataset, approval in experiment.approvals.items():
            if state.datasets[dataset].node == me:
                yield approval.index


def still_asked(state: State, experiment_id: str, dataset: str) -> bool:
    """Whether a vector of a dataset may leave for an experiment now: it was not ended, taken back, or approved for a time that is over."""
    experiment = state.experiments[experiment_id]
    approval = experiment.approvals.get(dataset)
    return (
        not experiment.ended
        and approval is not None
        and state.log_time <= approval.until_ms
        and dataset not in experiment.budget_refusals
        and state.datasets[dataset].withdrawn_at is None
    )


def steps_of(site: SitePlan, kind: RoundKind, steps_per_round: int) -> Mapping[Purpose, int]:
    """Noisy steps that one round of a kind uses, by purpose."""
    if kind == "train":
        return {"train": steps_per_round}
    if kind == "evaluate":
        return {"evaluate": 1}
    planned = {release.purpose: release.steps for release in site.releases}
    return {p: planned.get(p, 0) for p in ("baseline_train", "baseline_evaluate")}


def is_lost(view: PrivateView, key: Key, held: Reservation) -> bool:
    """Whether the log knows of more noise for an unsettled reservation than the register does."""
    if key not in view.charges:
        return True
    used = view.used_by(key)
    return any(used.get(p, 0) < n for p, n in held.used.items())  # type: ignore[call-overload]


def refusal_for(void_reason: str | None) -> BudgetRefusal | None:
    """What to say when the log did not take a reservation; None when asking again may help."""
    if void_reason == "stale":
        return None
    return _VOIDS.get(void_reason or "", "unavailable")


_VOIDS: Mapping[str, BudgetRefusal] = {
    "dataset_withdrawn": "dataset_withdrawn",
    "dataset_changed": "dataset_changed",
    "not_approved": "not_approved",
    "approval_expired": "approval_expired",
    "approval_conditions": "approval_conditions",
    "charges_mismatch": "plan_mismatch",
    "budget_exhausted": "budget_exhausted",
    "purpose_exhausted": "purpose_exhausted",
}
_UNTIL_APPROVED = frozenset({"not_approved", "approval_expired", "approval_conditions"})


@dataclass(frozen=True, slots=True)
class _Here:
    """The arguments of `duties`, so that each question can be asked by name."""

    state: State
    me: str
    view: PrivateView
    standing: Standing
    memory: Memory
    policy: LocalPolicy
    now_ms: int

    def judge(self, experiment: Experiment, site: SitePlan) -> Iterator[Duty]:
        """The duties for one dataset in one experiment: one, or two in a masked round."""
        key = (experiment.id, site.dataset)
        held = experiment.reservations.get(site.dataset)
        status = self.view.charges.get(key)
        if held is not None and held.settled_at is not None:
            if status is None:
                yield Adopt(*key, held.charges, _purposes(held.used))
            elif status != "settled":
                yield CloseAccount(*key, _purposes(self._most_used(key, held)))
            return
        if held is not None and status != "lost" and is_lost(self.view, key, held):
            yield Adopt(*key, held.charges)
            return
        if experiment.ended:
            yield from self._ending(key, site, held)
            return
        asked = self._asked(experiment, site.dataset)
        if asked is None:
            return
        reason = self._no(experiment, site, self.state.datasets[site.dataset], held)
        if reason is not None:
            yield Refuse(*key, reason)
            return
        why = self._not_yet(experiment, site.dataset)
        if why is not None:
            yield Wait(*key, why)
        elif held is None:
            yield from self._reserving(experiment, site, key)
        else:
            if asked.masking is not None:
                yield from self._phase(asked, asked.masking, held, key)
            yield from self._round(experiment, site, held, asked, key)

    def _most_used(self, key: Key, held: Reservation) -> Map[str, int]:
        """Steps that a settlement states, or those with an intent here: another node of the hospital may have said it."""
        used = held.used
        for purpose, steps in self.view.used_by(key).items():
            used = used.set(purpose, max(steps, used.get(purpose, 0)))
        return used

    def _asked(self, experiment: Experiment, dataset: str) -> OpenRound | None:
        """The open round that waits for this dataset, or would if its old refusal is moot."""
        current = experiment.round
        if current is None or self.state.log_time > current.deadline_ms:
            return None
        if current.masking is None:
            if dataset in current.updates:
                return None
        elif current.masking.context in self.memory.abandoned:
            return None
        said = experiment.budget_refusals.get(dataset)
        if said is not None:
            approval = experiment.approvals.get(dataset)
            again = approval is not None and approval.index > said.index
            moot = again and said.reason in _UNTIL_APPROVED
            return current if moot and dataset not in experiment.reservations else None
        return current if dataset in current.cohort else None

    def _no(
        self, experiment: Experiment, site: SitePlan, dataset: Dataset, held: Reservation | None
    ) -> BudgetRefusal | None:
        record = self.view.datasets.get(site.dataset)
        if dataset.withdrawn_at is not None:
            return "dataset_withdrawn"
        if dataset.registration != site.registration:
            return "dataset_changed"
        if record is None or record.registration != dataset.registration:
            return "unavailable"
        approval = experiment.approvals.get(site.dataset)
        if approval is None:
            return "not_approved"
        if max(self.state.log_time, self.now_ms) > approval.until_ms:
            return "approval_expired"
        cosigned_s = self.standing.cosigned_s.get(approval.index)
        if cosigned_s is not None and was_held_back(approval.at_ms, cosigned_s, self.state.policy):
            return "approval_expired"
        if site.epsilon_micro > approval.epsilon_max_micro:
            return "approval_conditions"
        key = (experiment.id, site.dataset)
        if self.view.charges.get(key) in ("lost", "settling", "settled"):
            return "unavailable"
        if key in self.memory.refuse:
            return self.memory.refuse[key]
        if held is None:
            most = self.policy.epsilon_max_micro
            off = self.policy.paused or self.policy.unsound
            if off or (most is not None and site.epsilon_micro > most):
                return "local_policy"
        if self.memory.plans.get(experiment.id, True) is False:
            return "plan_mismatch"
        return None

    def _not_yet(self, experiment: Experiment, dataset: str) -> str | None:
        index = experiment.approvals[dataset].index
        if index >= self.standing.final_size:
            return "the steward's approval is not under a final checkpoint yet"
        if index not in self.standing.cosigned_s:
            return "no quorum of hospitals has cosigned the steward's approval yet"
        if not self.standing.vouched:
            return "other hospitals have not vouched for the log since this node's restart"
        return None

    def _reserving(self, experiment: Experiment, site: SitePlan, key: Key) -> Iterator[Duty]:
        if experiment.id not in self.memory.plans:
            yield CheckPlan(experiment.id)
            return
        charges = totals(site.releases)
        why = out_of_step(self.state, charges, self.now_ms)
        if why is not None:
            yield Wait(*key, why)
            return
        paid_here = self.view.charges.get(key) == "reserved"
        refused: BudgetRefusal | None
        refused = (
            None if paid_here or self.view.admits(charges, self.now_ms) else "budget_exhausted"
        )
        for charge in charges:
            cell, cost = self.state.cells[charge.cell], Charge(charge.g, charge.r)
            paid = pay(cell, experiment.plan.purpose, cost, self.state.log_time)
            refused = refused or (None if isinstance(paid, Cell) else paid)
        yield Reserve(*key, charges) if refused is None else Refuse(*key, refused)

    def _round(
        self,
        experiment: Experiment,
        site: SitePlan,
        held: Reservation,
        current: OpenRound,
        key: Key,
    ) -> Iterator[Duty]:
        number, attempt = current.number, current.attempt
        masking, secrets = current.masking, self.view.masks.get(key)
        masked_in = self.view.masked_in.get((*key, number))
        spent = is_spent(current, masked_in)
        ready = (*key, number) in self.view.outbox and not spent
        if masking is not None:
            goes_on = may_send if ready else may_still_send
            if site.dataset in current.updates or not goes_on(masking, key, secrets):
                return
        if ready:
            if (*key, number, attempt) not in self.memory.answered:
                yield Send(*key, number, attempt)
            return
        if (*key, number) in self.memory.busy:
            return
        why = self._not_touchable(held)
        if why is not None:
            yield Wait(*key, why)
            return
        if experiment.id not in self.memory.plans:
            yield CheckPlan(experiment.id)
            return
        used = self.view.used_by(key)
        planned = {release.purpose: release.steps for release in site.releases}
        needed = steps_of(site, current.kind, experiment.plan.steps_per_round)
        if any(used.get(p, 0) + n > planned.get(p, 0) for p, n in needed.items()):
            yield Refuse(*key, "no_spare_round")
        else:
            yield Train(*key, number, attempt, current.kind)

    def _phase(
        self, current: OpenRound, masking: Masking, held: Reservation, key: Key
    ) -> Iterator[Duty]:
        """What the open phase waits for; nobody advertises who could not train."""
        if masking.phase == "advertise" and self._not_touchable(held) is not None:
            return
        yield from masking_duties(current, masking, key, self.view.masks.get(key))

    def _not_touchable(self, held: Reservation) -> str | None:
        if self.policy.paused:
            return "this node is paused"
        if self.policy.unsound:
            return "the self-test of this node's training code failed"
        if not self.policy.working:
            return "it is outside this node's hours"
        if held.used:  # by the log: an intent of a restart may have touched nothing
            return None
        if held.index >= self.standing.final_size:
            return "the reservation is not under a final checkpoint yet"
        if not self.standing.fresh:
            return "the final checkpoint's cosignatures are too old to give permission"
        if self.state.log_time < self.now_ms - self.state.policy.skew_ms:
            return "the log's time is behind this node's clock"
        return None

    def _ending(self, key: Key, site: SitePlan, held: Reservation | None) -> Iterator[Duty]:
        status = self.view.charges.get(key)
        if held is None:
            if status == "reserved":
                yield CloseAccount(*key, Map())
        elif not self.standing.vouched:
            yield Wait(*key, "other hospitals have not vouched for the log since the restart")
        elif status == "lost":
            yield Settle(*key, Map({release.purpose: release.steps for release in site.releases}))
        else:
            yield Settle(*key, self.view.used_by(key))


def _purposes(used: Map[str, int]) -> Map[Purpose, int]:
    found: Map[Purpose, int] = Map()
    for purpose in get_args(Purpose):
        if purpose in used:
            found = found.set(purpose, used[purpose])
    return found

"""What to do next: a pure function of the log's state, the time and what is final.

Everything that the coordinator does for an experiment follows from the fold, so it may be killed
anywhere and goes on where the log stands. An action names an experiment and what to do with it;
who acts (``conduct.py``) does the I/O, says the operation, and asks again.

A dataset may be asked while its approval stands (given, not taken back, not expired), it is as
registered when the plan was made and not withdrawn, and its node neither refused the budget nor
settled. An experiment goes on while enough such datasets are there to reach the plan's quorum. It
waits for further approvals until the last day of its spec, and no longer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from ledger.entries.operations.experiments import ExperimentStopped, ModelReleased
from ledger.entries.operations.log import TimeNoted
from ledger.entries.operations.plans import SitePlan
from ledger.entries.operations.rounds import RoundKind
from ledger.entries.operations.vocabulary import Operation
from ledger.rules import masking
from ledger.rules.experiment_state import Experiment, Masking, OpenRound
from ledger.rules.experiments import last_round
from ledger.rules.rounds import round_kind, waiting_for
from ledger.rules.state import State

MAX_ATTEMPTS = 3
"""Times that a round is tried before its experiment stops."""

_NOT_KNOWN: Mapping[str, int] = MappingProxyType({})

CompletedAt = Callable[[str], int | None]
"""Index of the entry that completed an experiment."""


@dataclass(frozen=True, slots=True)
class Say:
    """An operation that needs nothing but saying."""

    experiment: str
    op: Operation


@dataclass(frozen=True, slots=True)
class Open:
    """Open a round for a cohort; the model is the log's, or the final one when it evaluates."""

    experiment: str
    kind: RoundKind
    number: int
    attempt: int
    cohort: tuple[str, ...]
    deadline_ms: int


@dataclass(frozen=True, slots=True)
class Conclude:
    """End the open round, by a sum or without one."""

    experiment: str


@dataclass(frozen=True, slots=True)
class Advance:
    """End a phase of the open masked round, and name who goes on."""

    experiment: str


@dataclass(frozen=True, slots=True)
class Complete:
    """Every round of the plan is done."""

    experiment: str


Action = Say | Open | Advance | Conclude | Complete


def next_actions(
    state: State,
    *,
    now_ms: int,
    final_size: int,
    completed_at: CompletedAt,
    until_ms: Mapping[str, int] = _NOT_KNOWN,
) -> tuple[Action, ...]:
    """At most one action an experiment, in the order in which they were proposed.

    Args:
        state: of the whole log.
        now_ms: the coordinator's clock.
        final_size: entries under the newest final checkpoint.
        completed_at: from the log's history.
        until_ms: last millisecond of each experiment's spec, by id; who is not in it is left alone.
    """
    actions: list[Action] = []
    waiting = False
    for experiment in sorted(state.experiments.values(), key=lambda e: e.index):
        action = _next(state, experiment, now_ms, final_size, completed_at)
        if action is None and _waits_too_long(experiment, now_ms, until_ms):
            action = _stop(experiment, "expired")
        if action is not None:
            actions.append(action)
        elif experiment.round is not None:
            waiting = True
    if waiting and now_ms - state.log_time > state.policy.skew_ms // 2:
        actions.append(Say("", TimeNoted(type="time.noted")))
    return tuple(actions)


def next_wake_ms(state: State, now_ms: int, until_ms: Mapping[str, int] = _NOT_KNOWN) -> int | None:
    """When the clock alone may make something due, or None; ``until_ms`` as in `next_actions`."""
    times: list[int] = []
    for experiment in state.experiments.values():
        if experiment.round is not None:
            times.append(_deadline_ms(experiment, experiment.round) + 1)
            times.append(state.log_time + state.policy.skew_ms // 2 + 1)
        elif not experiment.ended:
            times.extend(a.until_ms + 1 for a in experiment.approvals.values())
            if experiment.id in until_ms:
                times.append(until_ms[experiment.id] + 1)
    later = [time for time in times if time > now_ms]
    return min(later, default=None)


def _deadline_ms(experiment: Experiment, current: OpenRound) -> int:
    if current.masking is None:
        return current.deadline_ms
    return masking.phase_deadline_ms(experiment, current, current.masking)


def cohort_of(state: State, experiment: Experiment, now_ms: int) -> tuple[str, ...]:
    """The datasets that may be asked now, sorted."""
    return tuple(
        sorted(
            site.dataset
            for site in experiment.plan.sites
            if _standing(state, experiment, site, now_ms) == "ready"
        )
    )


def _next(
    state: State,
    experiment: Experiment,
    now_ms: int,
    final_size: int,
    completed_at: CompletedAt,
) -> Action | None:
    if experiment.status == "completed":
        index = completed_at(experiment.id)
        if index is None or final_size <= index:
            return None
        released = ModelReleased(
            type="model.released", experiment=experiment.id, model=experiment.model
        )
        return Say(experiment.id, released)
    if experiment.ended:
        return None
    current = experiment.round
    if current is not None:
        if current.masking is not None:
            return _next_phase(experiment, current, current.masking, now_ms)
        if waiting_for(experiment) and now_ms <= current.deadline_ms:
            return None
        return Conclude(experiment.id)
    if experiment.next_round > last_round(experiment.plan):
        return Complete(experiment.id)
    return _open_or_stop(state, experiment, now_ms)


def _next_phase(
    experiment: Experiment, current: OpenRound, phase: Masking, now_ms: int
) -> Action | None:
    """A masked round's phase ends when nobody is awaited or its time is over."""
    if masking.can_be_opened(current):
        return Conclude(experiment.id)
    late = now_ms > masking.phase_deadline_ms(experiment, current, phase)
    if waiting_for(experiment) and not late:
        return None
    enough = len(masking.answered(current, phase)) >= masking.needed(experiment, current)
    goes_on = enough and masking.next_phase(phase) is not None
    return Advance(experiment.id) if goes_on else Conclude(experiment.id)


def _open_or_stop(state: State, experiment: Experiment, now_ms: int) -> Action | None:
    plan = experiment.plan
    if experiment.next_attempt > MAX_ATTEMPTS:
        return _stop(experiment, "quorum_lost")
    standing = [_standing(state, experiment, site, now_ms) for site in plan.sites]
    if standing.count("ready") >= plan.quorum:
        return Open(
            experiment.id,
            round_kind(plan, experiment.next_round),
            experiment.next_round,
            experiment.next_attempt,
            cohort_of(state, experiment, now_ms),
            now_ms + plan.round_timeout_ms,
        )
    lost = standing.count("lost")
    expired = standing.count("expired")
    if len(standing) - lost < plan.quorum:
        never_ran = experiment.status == "proposed"
        return _stop(experiment, "no_approval" if never_ran else "quorum_lost")
    if len(standing) - lost - expired < plan.quorum:
        return _stop(experiment, "expired")
    return None


def _waits_too_long(experiment: Experiment, now_ms: int, until_ms: Mapping[str, int]) -> bool:
    """Whether it waits for approvals after the last day of its spec."""
    if experiment.ended or experiment.round is not None or experiment.id not in until_ms:
        return False
    return now_ms > until_ms[experiment.id]


def _stop(
    experiment: Experiment, reason: Literal["quorum_lost", "no_approval", "expired"]
) -> Action:
    op = ExperimentStopped(type="experiment.stopped", experiment=experiment.id, reason=reason)
    return Say(experiment.id, op)


def _standing(
    state: State, experiment: Experiment, site: SitePlan, now_ms: int
) -> Literal["ready", "open", "expired", "lost"]:
    """Whether a dataset may be asked, may be one day, or can be no more."""
    name = site.dataset
    dataset = state.datasets[name]
    held = experiment.reservations.get(name)
    if (
        dataset.withdrawn_at is not None
        or dataset.registration != site.registration
        or name in experiment.refusals
        or name in experiment.budget_refusals
        or (held is not None and held.settled_at is not None)
    ):
        return "lost"
    approval = experiment.approvals.get(name)
    if approval is None:
        return "open"
    return "expired" if now_ms > approval.until_ms else "ready"

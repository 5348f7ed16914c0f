"""The fold as a whole: total, deterministic, and true to the budget, whatever members say."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.entries.entry import parse_leaf
from ledger.entries.operations.experiments import (
    ExperimentApproved,
    ExperimentRefused,
)
from ledger.entries.operations.federation import (
    Policy,
)
from ledger.entries.operations.log import NodeReady, NodeResumed, TimeNoted
from ledger.entries.operations.values import MAX_INT
from ledger.entries.operations.vocabulary import GENESIS, OPERATIONS, Operation
from ledger.rules.encoding import digest, encode
from ledger.rules.fold import PERMISSIONS, RULES, found, is_stale, step
from ledger.rules.state import State, TimeMark, replace
from ledger.rules.verdict import EXPLANATIONS, Outcome
from tests.federation import COORDINATOR, POLICY, Federation, node_of, steward_of
from tests.ledger.facts import HOSPITALS, base, h, says
from tests.ledger.rules.anything import PEOPLE, any_op


def owed(state: State) -> dict[str, tuple[int, int]]:
    """What every cell must hold: reserved or used, whichever is more; used once it is settled."""
    sums = dict.fromkeys(state.cells, (0, 0))
    for experiment in state.experiments.values():
        for site in experiment.plan.sites:
            held = experiment.reservations.get(site.dataset)
            if held is None:
                continue
            for item in site.releases:
                used = held.used.get(item.purpose, 0)
                steps = used if held.settled_at is not None else max(used, item.steps)
                for charge in item.charges:
                    g, r = sums[charge.cell]
                    sums[charge.cell] = g + steps * charge.g, r + steps * charge.r
    return sums


def check_budgets(state: State) -> None:
    assert {c: (cell.spend.g, cell.spend.r) for c, cell in state.cells.items()} == owed(state)
    for cell in state.cells.values():
        spend, limit = cell.spend, cell.terms.limit
        assert spend.g_overflowed or spend.g <= limit.g_max
        assert spend.r_overflowed or spend.r <= limit.r_max


def check_void_changed_nothing(before: State, after: State, op: Operation) -> None:
    kept = {
        "size": after.size,
        "log_time": after.log_time,
        "time_marks": after.time_marks,
        "keys": after.keys,
    }
    if op.type == "update.submitted":
        kept |= {"experiments": after.experiments, "cells": after.cells}
        for name, experiment in after.experiments.items():
            old = before.experiments[name]
            assert replace(old, reservations=experiment.reservations) == experiment
            for dataset, held in experiment.reservations.items():
                was = old.reservations[dataset]
                assert replace(was, used=held.used, vectors=held.vectors) == held
                assert all(held.used[p] >= n for p, n in was.used.items())
    assert replace(before, **kept) == after  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(1, 120))
def test_whatever_members_say_is_applied_or_void_and_budgets_stay_true(
    seed: int, length: int
) -> None:
    rng = Random(seed)
    pick = rng.choice
    start = state = base()
    entries = []
    for _ in range(length):
        live = sorted({k.member for k in state.keys.values() if k.retired_at is None})
        op = any_op(rng, state)
        fitting = [m for m in live if state.members[m].role in RULES[op.type][1]]
        author = pick(fitting * 40 + live)
        if name := getattr(op, "dataset", None):
            own = [m for m in fitting if name.startswith(state.members[m].organisation)]
            author = pick(own * 40 + [author])
        at_ms = pick([0, 1, state.log_time + 1, state.log_time + 10**9, MAX_INT])
        at_ms = min(MAX_INT, at_ms if rng.randint(0, 9) == 0 else state.log_time + 1)
        seen = pick([0, state.size, state.size, state.size, state.size])
        entry = says(state, author, op, at_ms, seen)
        entries.append(entry)
        after, outcome = step(state, entry)
        assert isinstance(outcome, Outcome)
        assert after.size == state.size + 1
        if not outcome.applied:
            assert outcome.void in EXPLANATIONS
            check_void_changed_nothing(state, after, op)
        check_budgets(after)
        state = after
    again = start
    for entry in entries:
        again, _ = step(again, entry)
    assert again == state
    assert digest(again) == digest(state)


def test_every_operation_has_a_rule_but_the_first() -> None:
    assert set(RULES) == set(OPERATIONS) - set(GENESIS)
    assert set(RULES) >= PERMISSIONS
    roles = set().union(*(roles for _, roles in RULES.values()))
    assert roles == {"coordinator", "node", "steward", "researcher", "auditor"}


def test_a_second_founding_is_void() -> None:
    federation = Federation.found(HOSPITALS)
    genesis = parse_leaf(federation.leaves[0]).body.op
    before = federation.state
    federation.say(COORDINATOR, genesis, void="repeated")
    check_void_changed_nothing(before, federation.state, genesis)


def test_a_role_may_only_say_what_is_its_own() -> None:
    federation = Federation.found(HOSPITALS)
    for handle in PEOPLE:
        if handle != COORDINATOR:
            federation.say(handle, TimeNoted(type="time.noted"), void="not_permitted")
    federation.say(COORDINATOR, NodeReady(type="node.ready", protocol=1), void="not_permitted")


def test_only_the_coordinator_moves_the_time_and_never_back() -> None:
    state = base()
    time = state.log_time
    noted, ready = TimeNoted(type="time.noted"), NodeResumed(type="node.resumed", nonce=h(1))
    state, _ = step(state, says(state, node_of("basel"), ready, at_ms=time + 10**6))
    assert state.log_time == time
    state, _ = step(state, says(state, COORDINATOR, noted, at_ms=time + 5))
    assert state.log_time == time + 5
    state, _ = step(state, says(state, COORDINATOR, noted, at_ms=0))
    assert state.log_time == time + 5


def test_a_void_entry_of_the_coordinator_moves_the_time_too() -> None:
    state = base()
    ready = NodeReady(type="node.ready", protocol=1)
    after, outcome = step(state, says(state, COORDINATOR, ready, at_ms=state.log_time + 9))
    assert outcome.void == "not_permitted"
    assert after.log_time == state.log_time + 9
    check_void_changed_nothing(state, after, ready)


def aged(policy: Policy, ticks: list[int]) -> list[State]:
    """States after the coordinator let time pass by these steps."""
    state = replace(base(), policy=policy)
    states = [state]
    for tick in ticks:
        at_ms = states[-1].log_time + tick
        noted = says(states[-1], COORDINATOR, TimeNoted(type="time.noted"), at_ms=at_ms)
        states.append(step(states[-1], noted)[0])
    return states


def test_a_yes_that_was_kept_too_many_entries_is_stale() -> None:
    policy = replace(POLICY, max_lag=10)
    states = aged(policy, [0] * 12)
    size = states[-1].size
    assert not is_stale(states[-1], size - 10)
    assert is_stale(states[-1], size - 11)
    op = ExperimentApproved(
        type="experiment.approved",
        experiment=next(iter(states[-1].experiments)),
        dataset="basel-heart",
        epsilon_max_micro=1,
        until_ms=2**50,
    )
    late = says(states[-1], steward_of("basel"), op, seen=size - 11)
    assert step(states[-1], late)[1].void == "stale"
    no = ExperimentRefused(
        type="experiment.refused", experiment=op.experiment, dataset="basel-heart", reason="other"
    )
    assert step(states[-1], says(states[-1], steward_of("basel"), no, seen=0))[1].applied


@settings(max_examples=60, deadline=None)
@given(
    ticks=st.lists(st.sampled_from([0, 1, 7, 40, 100, 640, 900, 3000]), max_size=60),
    back=st.integers(0, 60),
)
def test_a_permission_lapses_at_most_a_64th_early_and_never_late(
    ticks: list[int], back: int
) -> None:
    policy = replace(POLICY, max_delay_ms=640)
    states = aged(policy, ticks)
    seen = states[max(0, len(states) - 1 - back)]
    delay = states[-1].log_time - seen.log_time
    stale = is_stale(states[-1], seen.size)
    if delay > 640:
        assert stale
    elif delay <= 640 - 2 * 10 and seen.size > states[0].size:
        assert not stale or seen.time_marks[-1].log_time < seen.log_time - 10


def test_time_marks_do_not_grow_with_the_log() -> None:
    states = aged(replace(POLICY, max_delay_ms=640), [5] * 3000)
    assert len(states[-1].time_marks) <= 2 * 64 + 2


def test_a_log_in_whichever_maps_were_built_has_one_digest() -> None:
    federation = Federation.found(HOSPITALS)
    entries = federation.entries()
    state = found(entries[0])
    for entry in entries[1:]:
        state, _ = step(state, entry)
    assert state == federation.state
    assert encode(state) == encode(federation.state)
    assert state.time_marks[0] == TimeMark(1, entries[0].body.at_ms)

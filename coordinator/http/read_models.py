"""The state as plain JSON, for people's commands and pages.

Convenient copies, nothing more: whoever needs certainty folds the log. Pure. Nothing in them is from
rows of data, since nothing in the state is.
"""

from __future__ import annotations

from typing import Any

from msgspec import to_builtins

from coordinator.sequencing.view import View
from ledger.formats.witness import quorum_size
from ledger.rules.experiment_state import Experiment
from ledger.rules.experiments import last_round
from ledger.rules.finality import standing_quorum
from ledger.rules.purposes import cell_now
from ledger.rules.rounds import waiting_for
from ledger.rules.state import Dataset, State

Json = dict[str, Any]


def summary(view: View) -> Json:
    """The federation at a glance."""
    state = view.state
    witnesses = state.witnesses_at(view.final_size)
    statuses = [e.status for e in state.experiments.values()]
    return {
        "federation": state.federation,
        "name": state.name,
        "size": view.size,
        "log_time_ms": state.log_time,
        "final_size": view.final_size,
        "witnesses": sorted(witnesses),
        "quorum": quorum_size(len(witnesses)),
        "independently_witnessed": len(witnesses) >= 3,
        "quorum_trouble": standing_quorum(state, view.final_size).in_words,
        "sequencing": view.stopped is None,
        "stopped": view.stopped,
        "policy": to_builtins(state.policy),
        "members": len(state.members),
        "datasets": len(state.datasets),
        "experiments": {status: statuses.count(status) for status in sorted(set(statuses))},
    }


def members(state: State) -> list[Json]:
    """Everybody, by handle, and the invitations that are open."""
    return [
        {
            "handle": m.handle,
            "organisation": m.organisation,
            "role": m.role,
            "joined_at": m.joined_at,
            "ready": m.ready,
            "revoked_at": m.revoked_at,
            "disputed_since_ms": m.disputed_since_ms,
            "keys": to_builtins(m.keys),
            "card": m.card,
        }
        for m in sorted(state.members.values(), key=lambda m: m.handle)
    ]


def datasets(state: State) -> list[Json]:
    """Every dataset with its cells' promise and what was reserved of it."""
    return [_dataset(state, d) for _, d in sorted(state.datasets.items())]


def experiments(state: State) -> list[Json]:
    """Every experiment in short, oldest first."""
    return [_brief(e) for e in sorted(state.experiments.values(), key=lambda e: e.index)]


def experiment(state: State, found: Experiment) -> Json:
    """One experiment: its plan, who said what to it, and the round under way."""
    current = found.round
    return {
        **_brief(found),
        "spec": to_builtins(found.spec),
        "model": to_builtins(found.model),
        "plan": to_builtins(found.plan),
        "approvals": {
            name: {
                "steward": a.steward,
                "index": a.index,
                "epsilon_max_micro": a.epsilon_max_micro,
                "until_ms": a.until_ms,
            }
            for name, a in sorted(found.approvals.items())
        },
        "refusals": {
            name: {"member": r.member, "index": r.index, "reason": r.reason}
            for name, r in sorted(found.refusals.items())
        },
        "budget_refusals": {
            name: {"member": r.member, "index": r.index, "reason": r.reason}
            for name, r in sorted(found.budget_refusals.items())
        },
        "reservations": {
            name: {
                "index": r.index,
                "charges": [to_builtins(c) for c in r.charges],
                "used": dict(sorted(r.used.items())),
                "served": r.served,
                "settled_at": r.settled_at,
            }
            for name, r in sorted(found.reservations.items())
        },
        "open_round": None
        if current is None
        else {
            "round": current.number,
            "attempt": current.attempt,
            "kind": current.kind,
            "cohort": list(current.cohort),
            "deadline_ms": current.deadline_ms,
            "answered": sorted(current.updates),
            "waiting_for": list(waiting_for(found)),
        },
    }


def _brief(found: Experiment) -> Json:
    return {
        "id": found.id,
        "name": found.name,
        "researcher": found.researcher,
        "organisation": found.organisation,
        "index": found.index,
        "status": found.status,
        "reason": found.reason,
        "rounds_done": found.next_round - 1,
        "rounds": last_round(found.plan),
        "quorum": found.plan.quorum,
        "datasets": [site.dataset for site in found.plan.sites],
        "approved": sorted(found.approvals),
    }


def _dataset(state: State, found: Dataset) -> Json:
    cells = []
    for use in found.terms.cells:
        cell = cell_now(state, use.cell)
        cells.append(
            {
                "cell": use.cell,
                "use": use.use,
                "epsilon_micro": cell.terms.epsilon_micro,
                "delta_e15": cell.terms.delta_e15,
                "limit": to_builtins(cell.terms.limit),
                "spent": {"g": cell.spend.g, "r": cell.spend.r},
            }
        )
    return {
        "dataset": found.terms.dataset,
        "organisation": found.organisation,
        "node": found.node,
        "registered_at": found.registered_at,
        "registration": found.registration,
        "withdrawn_at": found.withdrawn_at,
        "unit": found.terms.unit,
        "declared_train": found.terms.declared_train,
        "declared_test": found.terms.declared_test,
        "schema": to_builtins(found.terms.schema_),
        "card": found.terms.card,
        "cells": cells,
    }

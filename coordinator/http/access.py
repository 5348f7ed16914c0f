"""Who may read which blob: a table over what the log says that a blob is.

==============================  ==================================================================
kind                            who may read it
==============================  ==================================================================
schema, spec, card, evidence    every member
model (first, after a round)    every member
aggregate                       every member
update                          its author's organisation's nodes, coordinators, auditors
shares (sealed, masked rounds)  nodes, coordinators, auditors
final (model of the end)        nodes of the cohort, auditors; once released every member, and
                                each member's first reading becomes an entry before a byte leaves
named by no entry               nobody
==============================  ==================================================================

A blob that is several things is as open as its most restricted one: the last round's model may be the
final one too. An update without effect is one all the same: whoever later names its hash as something
else, a spec say, does not open it. Nor does a node close what was open by calling it an update. Pure; revoked members do not come this far (``ledger.exchange.http_auth``).
"""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.errors import AccessDenied
from coordinator.sequencing.history import BlobUse, History
from ledger.copies.erasing import is_card
from ledger.rules.experiment_state import Experiment
from ledger.rules.state import Member, State


@dataclass(frozen=True, slots=True)
class Permit:
    """A reading that is allowed; ``log_as`` lists the experiments whose model is taken by it."""

    log_as: tuple[str, ...] = ()


def may_read(state: State, history: History, reader: str, sha256: str) -> Permit:
    """Decide whether a member may read a blob.

    Raises:
        AccessDenied: no, and why not.
    """
    member = state.members[reader]
    where = f"blob {sha256[:12]}"
    uses = history.uses(sha256)
    if not uses:
        raise AccessDenied(where, "no entry names it, so nobody may read it")
    taken: list[str] = []
    for use in uses:
        if use.kind == "update":
            _check_update(state, member, use, where)
        elif use.kind == "shares" and member.role not in ("node", "coordinator", "auditor"):
            raise AccessDenied(where, "sealed shares are for the nodes of the round, and auditors")
        elif use.kind == "final" and use.experiment is not None:
            experiment = state.experiments[use.experiment]
            if experiment.status == "released":
                taken.append(experiment.id)
            elif not _evaluates(state, member, experiment):
                raise AccessDenied(
                    where,
                    f"the model of {experiment.name} is not released; until then it is for the "
                    "nodes that evaluate it, and auditors",
                )
    return Permit(tuple(taken))


def is_erased(state: State, sha256: str) -> bool:
    """Whether the log says that a card with this commitment is erased."""
    bound = state.cards.get(sha256)
    return bound is not None and bound.erased_at is not None


def refuse_erased(state: State, sha256: str, whole: bytes | None) -> None:
    """Refuse to take or to give a card that its owner had erased.

    Only what is a card by its bytes: else whoever binds a model's hash as a card, and erases that,
    would keep the model from everybody.

    Args:
        state: the newest.
        sha256: of a blob that is no longer than ``MAX_CARD``.
        whole: its bytes; None where it is not here, or comes in parts, which no card does.

    Raises:
        AccessDenied: it is one.
    """
    if is_erased(state, sha256) and (whole is None or is_card(whole, sha256)):
        raise AccessDenied(
            f"blob {sha256[:12]}",
            f"it is a card that was erased by entry {state.cards[sha256].erased_at}",
        )


def _check_update(state: State, member: Member, use: BlobUse, where: str) -> None:
    author = state.members[use.author]
    if member.role in ("coordinator", "auditor"):
        return
    if member.role == "node" and member.organisation == author.organisation:
        return
    raise AccessDenied(
        where, "an update is for the node that made it, the coordinator and auditors"
    )


def _evaluates(state: State, member: Member, experiment: Experiment) -> bool:
    if member.role in ("coordinator", "auditor"):
        return True
    return member.role == "node" and any(
        state.datasets[dataset].organisation == member.organisation
        for dataset in experiment.approvals
    )

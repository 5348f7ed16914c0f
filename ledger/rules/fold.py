"""The fold: ``state = reduce(step, entries)``, the one function that all parties run.

`step` is pure, total and deterministic, and computes on integers only. It takes an entry that
admission let in (``admission.py`` judged its envelope) and says ``applied`` or ``void(reason)``. A
void entry moves its author's chain and, if the coordinator wrote it, the log's time; nothing else,
except that a void update still counts the noise its node says it used.

What it does not judge: curves and epsilons (nodes and auditors do), blobs, signatures of entries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from immutables import Map

from ledger.entries.entry import Entry, federation_id
from ledger.entries.operations.federation import FederationFounded
from ledger.entries.operations.succession import FederationSucceeded
from ledger.errors import NotAdmitted, ProtocolUnknown
from ledger.formats.keys import key_id
from ledger.rules import budget as rules_budget
from ledger.rules import cards as rules_cards
from ledger.rules import datasets as rules_datasets
from ledger.rules import equivocation as rules_equivocation
from ledger.rules import experiments as rules_experiments
from ledger.rules import masking as rules_masking
from ledger.rules import members as rules_members
from ledger.rules import protocol as rules_protocol
from ledger.rules import purposes as rules_purposes
from ledger.rules import refreshes as rules_refreshes
from ledger.rules import rounds as rules_rounds
from ledger.rules import statistics as rules_statistics
from ledger.rules import succession as rules_succession
from ledger.rules.state import (
    KeyState,
    Member,
    OpenInvitation,
    State,
    Succession,
    TimeMark,
    WitnessEpoch,
    replace,
)
from ledger.rules.verdict import Outcome, Step, Void

Rule = Callable[[State, Step, Any], State | Void]

RULES: Mapping[str, tuple[Rule, frozenset[str]]] = {
    name: (rule, frozenset(roles.split()))
    for name, rule, roles in (
        ("member.joined", rules_members.joined, "node steward researcher auditor"),
        ("change.proposed", rules_members.change_proposed, "steward"),
        ("change.endorsed", rules_members.change_endorsed, "steward"),
        ("change.withdrawn", rules_members.change_withdrawn, "steward"),
        ("key.rotated", rules_members.key_rotated, "coordinator node steward researcher auditor"),
        ("key.revoked", rules_members.key_revoked, "node steward researcher auditor"),
        (
            "key.conflicted",
            rules_equivocation.key_conflicted,
            "coordinator node steward researcher auditor",
        ),
        ("card.erased", rules_cards.erased, "node steward researcher auditor"),
        ("federation.carried", rules_succession.carried, "coordinator"),
        ("node.ready", rules_members.node_ready, "node"),
        ("node.resumed", rules_members.noted, "node"),
        ("protocol.activated", rules_protocol.activated, "coordinator"),
        ("time.noted", rules_members.noted, "coordinator"),
        ("fork.reported", rules_members.noted, "node steward auditor"),
        ("receipt.broken", rules_members.noted, "node steward researcher auditor"),
        ("privacy.audited", rules_experiments.privacy_audited, "node auditor"),
        ("ledger.reviewed", rules_members.noted, "steward auditor"),
        ("cell.registered", rules_datasets.cell_registered, "node"),
        ("purpose.limited", rules_purposes.limited, "node steward"),
        ("refresh.declared", rules_refreshes.declared, "node"),
        ("dataset.registered", rules_datasets.dataset_registered, "node"),
        ("dataset.withdrawn", rules_datasets.dataset_withdrawn, "node steward"),
        ("statistics.reserved", rules_statistics.reserved, "steward"),
        ("statistics.released", rules_statistics.released, "node"),
        ("experiment.proposed", rules_experiments.proposed, "researcher"),
        ("experiment.approved", rules_experiments.approved, "steward"),
        ("experiment.refused", rules_experiments.refused, "steward"),
        ("experiment.stopped", rules_experiments.stopped, "researcher coordinator"),
        ("experiment.completed", rules_experiments.completed, "coordinator"),
        ("model.released", rules_experiments.released, "coordinator"),
        ("model.downloaded", rules_experiments.downloaded, "coordinator"),
        ("budget.reserved", rules_budget.reserved, "node"),
        ("budget.refused", rules_budget.refused, "node"),
        ("budget.settled", rules_budget.settled, "node"),
        ("round.opened", rules_rounds.opened, "coordinator"),
        ("update.submitted", rules_rounds.submitted, "node"),
        ("update.refused", rules_rounds.update_refused, "coordinator"),
        ("round.aggregated", rules_rounds.aggregated, "coordinator"),
        ("round.closed", rules_rounds.closed, "coordinator"),
        ("masking.advertised", rules_masking.advertised, "node"),
        ("masking.shared", rules_masking.shared, "node"),
        ("masking.advanced", rules_masking.advanced, "coordinator"),
        ("masking.agreed", rules_masking.agreed, "node"),
        ("masking.revealed", rules_masking.revealed, "node"),
    )
}

# Operations that give a permission: void when the author's view of the log was too old, so that
# nobody can keep an old yes for later. Restrictions and reports act whenever they arrive.
PERMISSIONS = frozenset(
    {
        "change.proposed",
        "change.endorsed",
        "statistics.reserved",
        "experiment.proposed",
        "experiment.approved",
        "budget.reserved",
        "model.released",
    }
)


@dataclass(frozen=True, slots=True)
class Protocol:
    """One version of what can be said, by whom, and what it changes.

    Attributes:
        rules: by operation: the rule, and the roles that may say it.
        permissions: operations that are void when they were decided on too old a log.
    """

    rules: Mapping[str, tuple[Rule, frozenset[str]]]
    permissions: frozenset[str]


PROTOCOLS: dict[int, Protocol] = {1: Protocol(RULES, PERMISSIONS)}
"""Every version that this software knows. A released one is superseded by the next, never edited:
old entries are folded under the rules that held at their index, for ever."""

_APPLIED = Outcome(None)
_MARKS_PER_DELAY = 64


def found(entry: Entry) -> State:
    """The state after entry 0.

    Raises:
        NotAdmitted: it is no genesis entry.
    """
    body, op = entry.body, entry.body.op
    if not isinstance(op, FederationFounded | FederationSucceeded):
        raise NotAdmitted("entry 0", f"it is {op.type}; a log begins with federation.founded")
    federation = federation_id(entry)
    public = op.keys.entry.public
    coordinator = Member(
        handle=body.author,
        organisation=op.organisation,
        role="coordinator",
        keys=op.keys,
        joined_at=0,
    )
    return State(
        federation=federation,
        name=op.name,
        policy=op.policy,
        log_key=op.log_key,
        coordinator=body.author,
        size=1,
        log_time=body.at_ms,
        time_marks=(TimeMark(1, body.at_ms),),
        members=Map({body.author: coordinator}),
        keys=Map({body.key: KeyState(body.author, public, 1, entry.hash)}),
        invitations=Map(
            {
                key_id(i.key.alg, bytes.fromhex(i.key.public)): OpenInvitation(i)
                for i in (op.invitations if isinstance(op, FederationFounded) else ())
            }
        ),
        changes=Map(),
        witnesses=(WitnessEpoch(0, Map()),),
        cells=Map(),
        datasets=Map(),
        experiments=Map(),
        succession=_succession(entry, op),
    )


def _succession(entry: Entry, op: FederationFounded | FederationSucceeded) -> Succession | None:
    if isinstance(op, FederationFounded):
        return None
    return Succession(
        predecessor=op.predecessor,
        carried=op.carried,
        taken=0,
        endorsements=tuple((each.steward, each.signature) for each in op.endorsements),
        claim=rules_succession.claim_of(entry.body).hex(),
    )


def step(state: State, entry: Entry) -> tuple[State, Outcome]:
    """Fold one admitted entry, at index ``state.size``."""
    body = entry.body
    op = body.op
    name = op.type
    index = state.size
    state = _advance(state, entry)
    protocol = PROTOCOLS.get(state.protocol) or protocol_of(state)
    known = protocol.rules.get(name)
    if known is None:
        return state, Outcome("repeated")
    rule, roles = known
    beginning = state.succession is not None and not state.succession.complete
    if beginning and name != "federation.carried":
        return state, Outcome("not_due")
    if name != "member.joined":
        author = state.members[body.author]
        if author.role not in roles:
            return state, Outcome("not_permitted")
        if name in protocol.permissions and is_stale(state, body.seen.size):
            return state, Outcome("stale")
    verdict = rule(state, Step(entry, index), op)
    if isinstance(verdict, Void):
        return (state if verdict.state is None else verdict.state), Outcome(verdict.reason)
    return verdict, _APPLIED


def protocol_of(state: State) -> Protocol:
    """The rules under which the next entry is folded.

    Raises:
        ProtocolUnknown: this software does not know them.
    """
    known = PROTOCOLS.get(state.protocol)
    if known is None:
        raise ProtocolUnknown(at=state.size, version=state.protocol, known=max(PROTOCOLS))
    return known


def is_stale(state: State, seen: int) -> bool:
    """Whether a view of ``seen`` entries is too old to give a permission on.

    Time is measured from the newest time mark at or before that view: marks are a 64th of
    ``max_delay_ms`` apart, so a permission may lapse by that much early, never late.
    """
    if state.size - seen > state.policy.max_lag:
        return True
    for mark in reversed(state.time_marks):
        if mark.size <= max(seen, 1):
            return state.log_time - mark.log_time > state.policy.max_delay_ms
    return True


def _advance(state: State, entry: Entry) -> State:
    """Size, log time and the author's chain move for every entry, void or not."""
    body = entry.body
    size = state.size + 1
    log_time, marks = state.log_time, state.time_marks
    if body.author == state.coordinator and body.at_ms > log_time:
        log_time = body.at_ms
        delay = state.policy.max_delay_ms
        if log_time - marks[-1].log_time >= max(1, delay // _MARKS_PER_DELAY):
            live = tuple(m for m in marks if log_time - m.log_time <= 2 * delay)
            marks = (*live, TimeMark(size, log_time))
    keys, key = state.keys, body.key
    head = keys.get(key)
    if head is not None:
        keys = keys.set(key, replace(head, next_seq=body.seq + 1, head=entry.hash))
    return replace(state, size=size, log_time=log_time, time_marks=marks, keys=keys)

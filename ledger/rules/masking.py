"""Rules for masked rounds: four phases, each fed by nodes and ended by the coordinator's word.

``advertise`` keys, ``share`` secrets, ``mask`` vectors, ``unmask``: agree on the survivors, then reveal
shares. The coordinator names who goes on after each of the first three; the fold knows who can. Every
message names the round's context, a hash over experiment, round, attempt, kind, roster, model and plan, so
that none of it means anything elsewhere.

Promise: an applied ``masking.revealed`` holds, for each who is in the sum a share of its seed and for each
who dropped out after sharing a share of its masking key, and no other; at least the threshold had signed the
same survivors before. Not judged here: envelopes, masks and shares themselves, which are numbers to the
fold; who puts them together sees whether they fit (``privacy.masking.recover``).
"""

from __future__ import annotations

import hashlib
from typing import Literal

from ledger.entries.operations.masking import (
    LaterPhase,
    MaskingAdvanced,
    MaskingAdvertised,
    MaskingAgreed,
    MaskingPhase,
    MaskingRevealed,
    MaskingShared,
)
from ledger.entries.operations.rounds import RoundOpened, UpdateRefused, UpdateSubmitted
from ledger.formats.strict import canonical
from ledger.rules.experiment_state import Experiment, Masking, MaskKeys, MaskShares, OpenRound
from ledger.rules.experiments import put
from ledger.rules.state import State, replace
from ledger.rules.verdict import Step, Void, VoidReason
from privacy.masking.member import ENVELOPE_BYTES
from privacy.masking.roster import survivors_digest, threshold

CONTEXT_LINE = b"consilium masking context v1\n"
SHARES_LINE = b"consilium masking shares v1\n"

_NEXT: dict[MaskingPhase, LaterPhase] = {
    "advertise": "share",
    "share": "mask",
    "mask": "unmask",
}
_TENTHS_LEFT: dict[MaskingPhase, int] = {"advertise": 7, "share": 5, "mask": 2, "unmask": 0}
"""Tenths of the round's timeout that are left when a phase should be over."""

_Message = MaskingAdvertised | MaskingShared | MaskingAgreed | MaskingRevealed


def begin(experiment: Experiment, op: RoundOpened) -> Masking | None:
    """The first phase of the round that opens, or None where the plan has no masks."""
    plan = experiment.plan
    if plan.secure_aggregation is None:
        return None
    about = {
        "attempt": op.attempt,
        "experiment": op.experiment,
        "kind": op.kind,
        "model": op.model.sha256,
        "plan": hashlib.sha256(canonical(plan)).hexdigest(),
        "roster": list(op.cohort),
        "round": op.round,
    }
    context = hashlib.sha256(CONTEXT_LINE + canonical(about)).hexdigest()
    return Masking(context, "advertise", op.cohort)


def advertised(state: State, step: Step, op: MaskingAdvertised) -> State | Void:
    """A node of the cohort that holds a reservation comes with two new keys."""
    found = _own_part(state, step, op, "advertise")
    if isinstance(found, Void):
        return found
    experiment, current, masking = found
    if op.dataset in masking.keys:
        return Void("repeated")
    mine = {op.sharing.public, op.masking.public}
    known = {k for keys in masking.keys.values() for k in (keys.sharing, keys.masking)}
    if len(mine) < 2 or mine & known:
        return Void("key_conflict")
    keys = MaskKeys(op.sharing.public, op.masking.public)
    return _put(
        state, experiment, current, replace(masking, keys=masking.keys.set(op.dataset, keys))
    )


def shared(state: State, step: Step, op: MaskingShared) -> State | Void:
    """One envelope for each who advertised."""
    found = _own_part(state, step, op, "share")
    if isinstance(found, Void):
        return found
    experiment, current, masking = found
    if op.dataset in masking.shares:
        return Void("repeated")
    if op.shares.bytes != shares_bytes(len(masking.members)):
        return Void("shares_mismatch")
    shares = masking.shares.set(op.dataset, MaskShares(op.shares, op.seed))
    return _put(state, experiment, current, replace(masking, shares=shares))


def advanced(state: State, step: Step, op: MaskingAdvanced) -> State | Void:
    """The next phase begins, once everybody answered or this one's time is over."""
    experiment = state.experiments.get(op.experiment)
    if experiment is None:
        return Void("unknown_experiment")
    current = experiment.round
    if current is None or (op.round, op.attempt) != (current.number, current.attempt):
        return Void("round_not_open")
    masking = current.masking
    if masking is None:
        return Void("context_mismatch")
    if op.phase != _NEXT.get(masking.phase):
        return Void("wrong_phase")
    if list(op.datasets) != sorted(set(op.datasets)):
        return Void("members_mismatch")
    able = answered(current, masking)
    # Sealed shares are blobs: who said that they are there, and did not bring them, is left out.
    fits = set(op.datasets) <= set(able) if op.phase == "mask" else op.datasets == able
    if not fits:
        return Void("members_mismatch")
    if len(op.datasets) < needed(experiment, current):
        return Void("quorum_missed")
    if _is_early(state, experiment, current, masking):
        return Void("not_due")
    after = replace(masking, phase=op.phase, members=op.datasets)
    if op.phase == "mask":
        after = replace(after, sharing=op.datasets)
    return _put(state, experiment, current, after)


def agreed(state: State, step: Step, op: MaskingAgreed) -> State | Void:
    """A survivor signs the survivors that the log has, and no others."""
    found = _own_part(state, step, op, "unmask")
    if isinstance(found, Void):
        return found
    experiment, current, masking = found
    if op.dataset in masking.agreed:
        return Void("repeated")
    if op.survivors != survivors_digest(bytes.fromhex(masking.context), masking.members).hex():
        return Void("members_mismatch")
    after = replace(masking, agreed=masking.agreed | {op.dataset})
    return _put(state, experiment, current, after)


def revealed(state: State, step: Step, op: MaskingRevealed) -> State | Void:
    """After enough signed: a share of the one secret that is asked for of each member."""
    found = _own_part(state, step, op, "unmask")
    if isinstance(found, Void):
        return found
    experiment, current, masking = found
    if op.dataset in masking.revealed:
        return Void("repeated")
    if op.dataset not in masking.agreed or not enough_agreed(current, masking):
        return Void("not_due")
    asked = secrets_asked(masking)
    if any(asked.get(share.of) != share.secret for share in op.shares) or len(
        {share.of for share in op.shares}
    ) != len(op.shares):
        return Void("shares_mismatch")
    after = replace(masking, revealed=masking.revealed.set(op.dataset, op.shares))
    return _put(state, experiment, current, after)


# --- questions that other rules, the coordinator and nodes ask ----------------------------------------


def needed(experiment: Experiment, current: OpenRound) -> int:
    """Members without whom a phase cannot go on: the threshold, or the plan's quorum if it is more."""
    return max(threshold(len(current.cohort)), experiment.plan.quorum)


def answered(current: OpenRound, masking: Masking) -> tuple[str, ...]:
    """Who did what the open phase asks for, sorted; before ``unmask`` they may go on."""
    if masking.phase == "advertise":
        return tuple(sorted(masking.keys))
    if masking.phase == "share":
        return tuple(sorted(masking.shares))
    if masking.phase == "mask":
        return tuple(sorted(d for d, u in current.updates.items() if u.refused is None))
    return tuple(sorted(masking.revealed))


def waiting_for(experiment: Experiment, current: OpenRound, masking: Masking) -> tuple[str, ...]:
    """Members of the open phase who have neither answered nor said that they will not."""
    there = set(current.updates if masking.phase == "mask" else answered(current, masking))
    return tuple(
        name for name in masking.members if name not in there and not has_left(experiment, name)
    )


def has_left(experiment: Experiment, dataset: str) -> bool:
    """Whether a dataset's node or steward said no, or its reservation is settled."""
    if dataset in experiment.budget_refusals or dataset in experiment.refusals:
        return True
    held = experiment.reservations.get(dataset)
    return held is not None and held.settled_at is not None


def phase_deadline_ms(experiment: Experiment, current: OpenRound, masking: Masking) -> int:
    """Log time from which the open phase waits for nobody."""
    left = experiment.plan.round_timeout_ms * _TENTHS_LEFT[masking.phase] // 10
    return current.deadline_ms - left


def next_phase(masking: Masking) -> LaterPhase | None:
    """The phase after the open one."""
    return _NEXT.get(masking.phase)


def secrets_asked(masking: Masking) -> dict[str, Literal["seed", "key"]]:
    """In the phase ``unmask``: by dataset that shared, which of its two secrets opens the sum."""
    survivors = set(masking.members)
    return {name: "seed" if name in survivors else "key" for name in masking.sharing}


def enough_agreed(current: OpenRound, masking: Masking) -> bool:
    """Whether the threshold signed the same survivors."""
    return len(masking.agreed) >= threshold(len(current.cohort))


def can_be_opened(current: OpenRound) -> bool:
    """Whether enough members revealed shares for the sum to open, if they fit together."""
    masking = current.masking
    if masking is None or masking.phase != "unmask":
        return False
    return len(masking.revealed) >= threshold(len(current.cohort))


def may_refuse(masking: Masking, op: UpdateRefused) -> bool:
    """A masked vector may be missing or have another length; nobody sees more of it."""
    return masking.phase == "mask" and op.reason != "norm_bound"


def why_not_masked(masking: Masking | None, op: UpdateSubmitted) -> VoidReason | None:
    """Why an update does not fit the round's masks, or the lack of them; None where it does."""
    if masking is None or op.masked is None:
        return None if masking is None and op.masked is None else "context_mismatch"
    if op.masked.context != masking.context:
        return "context_mismatch"
    if masking.phase != "mask":
        return "wrong_phase"
    return None if op.dataset in masking.members else "members_mismatch"


def why_not_closed(
    state: State, experiment: Experiment, current: OpenRound, masking: Masking, reason: str
) -> VoidReason | None:
    """A masked round ends without a sum when too few are left, or their shares are missing."""
    if _is_early(state, experiment, current, masking):
        return "not_due"
    if masking.phase == "unmask":
        return None if reason == "shares_missing" else "round_mismatch"
    enough = len(answered(current, masking)) >= needed(experiment, current)
    if masking.phase == "share":
        # Shares that were announced and did not arrive are seen by the coordinator alone.
        return None if not enough or reason == "shares_missing" else "round_mismatch"
    return "round_mismatch" if enough or reason != "quorum_missed" else None


def shares_bytes(members: int) -> int:
    """Length of the blob that holds an envelope for each who advertised."""
    return len(SHARES_LINE) + members * ENVELOPE_BYTES


def _is_early(state: State, experiment: Experiment, current: OpenRound, masking: Masking) -> bool:
    if state.log_time > phase_deadline_ms(experiment, current, masking):
        return False
    return bool(waiting_for(experiment, current, masking))


def _own_part(
    state: State, step: Step, op: _Message, phase: MaskingPhase
) -> tuple[Experiment, OpenRound, Masking] | Void:
    """The masked round that a node's message belongs to, where the node may say it now."""
    experiment = state.experiments.get(op.experiment)
    if experiment is None:
        return Void("unknown_experiment")
    dataset = state.datasets.get(op.dataset)
    if dataset is None:
        return Void("unknown_dataset")
    if dataset.organisation != state.members[step.author].organisation:
        return Void("not_owner")
    held = experiment.reservations.get(op.dataset)
    if held is None:
        return Void("not_reserved")
    if held.settled_at is not None:
        return Void("settled")
    current = experiment.round
    if current is None or (op.round, op.attempt) != (current.number, current.attempt):
        return Void("round_not_open")
    masking = current.masking
    if masking is None or op.context != masking.context:
        return Void("context_mismatch")
    if masking.phase != phase:
        return Void("wrong_phase")
    if op.dataset not in masking.members:
        return Void("members_mismatch")
    if state.log_time > current.deadline_ms:
        return Void("deadline_passed")
    return experiment, current, masking


def _put(state: State, experiment: Experiment, current: OpenRound, masking: Masking) -> State:
    return put(state, replace(experiment, round=replace(current, masking=masking)))

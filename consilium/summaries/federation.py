"""A federation, its members and proposed changes in short."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from consilium.naming import SHORT
from ledger.entries.operations.federation import (
    ExpelChange,
    InviteChange,
    Policy,
    RekeyChange,
    WithdrawChange,
)
from ledger.rules.state import Member, State

if TYPE_CHECKING:
    pass
from consilium.summaries.log import iso_time


class MemberSummary(TypedDict):
    """A member of the federation."""

    handle: str
    role: str
    organisation: str
    joined_at: int
    ready: bool
    revoked: bool
    expelled: bool
    disputed_since: str | None


class ChangeSummary(TypedDict):
    """A proposed change of the federation and who stands behind it."""

    change: str
    what: str
    proposed_by: str
    organisations: str
    in_force: bool


def member_summary(member: Member) -> MemberSummary:
    """Summarise a member."""
    return MemberSummary(
        handle=member.handle,
        role=member.role,
        organisation=member.organisation,
        joined_at=member.joined_at,
        ready=member.ready,
        revoked=member.revoked_at is not None,
        expelled=member.expelled_at is not None,
        disputed_since=(
            None if member.disputed_since_ms is None else iso_time(member.disputed_since_ms)
        ),
    )


def change_summary(state: State, change: str) -> ChangeSummary:
    """Summarise a proposed change."""
    pending = state.changes[change]
    inner = pending.change
    if isinstance(inner, InviteChange):
        handles = ", ".join(seat.handle for seat in inner.invitation.seats)
        what = f"invite {inner.invitation.organisation}: {handles}"
    elif isinstance(inner, RekeyChange):
        what = f"new keys for {inner.member}"
    elif isinstance(inner, WithdrawChange):
        known = state.invitations[inner.invitation].invitation
        what = f"withdraw invitation {inner.invitation[:SHORT]} of {known.organisation}"
    elif isinstance(inner, ExpelChange):
        what = f"expel {inner.organisation}"
    else:
        change_of = policy_difference(state.policy, inner.policy)
        what = f"new policy: {change_of}" if change_of else "new policy: what is in force"
    return ChangeSummary(
        change=change[:12],
        what=what,
        proposed_by=pending.proposed_by,
        organisations=", ".join(sorted(pending.organisations)),
        in_force=pending.effective_at is not None,
    )


def policy_difference(now: Policy, wanted: Policy) -> str:
    """The fields in which a policy differs, in a line; empty when it does not."""
    return ", ".join(
        f"{name} {getattr(now, name):,} -> {getattr(wanted, name):,}"
        for name in Policy.__struct_fields__
        if getattr(now, name) != getattr(wanted, name)
    )


def federation_summary(state: State, final_size: int) -> dict[str, str | int | list[str]]:
    """A federation as a whole."""
    witnesses = sorted(state.witnesses_at(final_size))
    hospitals = {m.organisation for m in state.members.values() if m.role == "node"}
    return {
        "name": state.name,
        "federation": state.federation,
        "coordinator": state.coordinator,
        "entries": state.size,
        "final_entries": final_size,
        "log_time": iso_time(state.log_time),
        "hospitals": sorted(hospitals),
        "witnesses": witnesses,
        "independently_witnessed": "yes" if len(witnesses) >= 3 else "no, fewer than three",
        "members": len(state.members),
        "datasets": len(state.datasets),
        "experiments": len(state.experiments),
        "endorsements": state.policy.endorsements,
    }

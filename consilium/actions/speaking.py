"""Opening a member's home for a command, and saying one thing from it.

What a coordinator answers is not believed: an entry counts as said when this member's own verified
copy of the log holds it, with the verdict of its own fold.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from msgspec import to_builtins

from consilium.actions.homes import ANYBODY, find_home
from consilium.errors import InputError, RefusedByFederation, RunFailed
from consilium.naming import the_change
from consilium.passphrase import read_passphrase
from consilium.settings import Settings
from ledger.copies.broken_receipt import judge_broken, read_broken
from ledger.entries.operations.federation import Change, ChangeEndorsed, ChangeProposed, Policy
from ledger.entries.operations.vocabulary import Operation
from ledger.errors import MalformedInput, PromiseBroken
from ledger.exchange.home import Membership
from ledger.rules.log import Sequenced
from ledger.rules.verdict import EXPLANATIONS

MERGE_TIMEOUT_S = 60.0
"""How long an accepted entry may take to come back in the log."""


@contextmanager
def open_member(
    directory: Path, passphrase_file: Path | None, roles: Sequence[str] = ANYBODY
) -> Iterator[Membership]:
    """A member's home, unlocked, and closed at the end.

    Args:
        directory: the home, or one with several homes in it.
        passphrase_file: see ``passphrase.py``.
        roles: who may do what follows, the most fitting first.
    """
    home = find_home(directory, roles)
    passphrase = read_passphrase(passphrase_file, of=f"{home.config.handle} ({home.path})")
    membership = home.open(passphrase)
    try:
        yield membership
    finally:
        membership.close()


def say(membership: Membership, operation: Operation) -> Sequenced:
    """Sign an operation, have it sequenced, and find it in the member's own copy.

    Raises:
        RefusedByFederation: it is in the log, and void.
        CoordinatorUnreachable, RequestRefused: it is not in the log, or not known to be; the same
            bytes are sent again by the next command.
        RunFailed: it was accepted, but did not come back in the log.
        PromiseBroken: a receipt of an earlier entry turned out to be broken; nothing was said but
            that.
    """
    if membership.keyring.entry.id in membership.replica.state.keys:
        membership.follow()
        refuse_broken(membership)
    receipt = membership.author.submit(operation)
    found = _follow_to(membership, receipt.index)
    void = found.outcome.void
    if void is not None:
        raise RefusedByFederation(operation.type, found.index, void, EXPLANATIONS[void])
    return found


@dataclass(frozen=True, slots=True)
class Supported:
    """A change that this member proposed or stands behind.

    Attributes:
        change: its id.
        entry: index of what was said now.
        in_force: whether it has taken effect.
        missing: organisations that must still endorse it.
    """

    change: str
    entry: int
    in_force: bool
    missing: int

    def proposed(self) -> tuple[str, ...]:
        """A proposal in words."""
        first = f"proposed as change {self.change} (entry {self.entry})"
        if self.in_force:
            return (f"{first}; it is in force",)
        return (
            first,
            f"{self.missing} more organisation{'' if self.missing == 1 else 's'} must endorse it: "
            f"consilium member endorse {self.change[:8]}",
        )


def propose(membership: Membership, change: Change) -> Supported:
    """Propose a change as a steward."""
    found = say(membership, ChangeProposed(type="change.proposed", change=change))
    return _supported(membership, found.entry.hash, found.index)


def _supported(membership: Membership, identity: str, index: int) -> Supported:
    state = membership.replica.state
    found = state.changes[identity]
    in_force = found.effective_at is not None
    missing = 0 if in_force else state.policy.endorsements - len(found.organisations)
    return Supported(change=identity, entry=index, in_force=in_force, missing=missing)


def changed_policy(policy: Policy, settings: Sequence[str]) -> Policy:
    """A policy with some fields changed, each given as ``NAME=NUMBER``.

    Raises:
        InputError: a field is unknown, or its value none that it takes.
    """
    fields: dict[str, int] = to_builtins(policy)
    for text in settings:
        name, _, value = text.partition("=")
        if name not in fields:
            raise InputError(f"--set {text!r}: the policy has {', '.join(fields)}")
        if not (value.isascii() and value.isdigit()):
            raise InputError(f"--set {text!r}: write {name}=NUMBER, a whole number")
        fields[name] = int(value)
    try:
        return Policy(**fields)
    except MalformedInput as error:
        raise InputError(f"policy: {error}") from None


def endorse_change(settings: Settings, change: str) -> Supported:
    """Endorse a proposed change as a steward."""
    with open_member(settings.home, settings.passphrase_file, ("steward",)) as member:
        member.follow()
        found = the_change(member.replica.state, change)
        said = say(member, ChangeEndorsed(type="change.endorsed", change=found))
        return _supported(member, found, said.index)


def refuse_broken(membership: Membership) -> None:
    """Stop once over each promise that was found broken, after putting it on record.

    Raises:
        PromiseBroken: says what was found.
    """
    waiting = membership.receipts.unpublished
    if waiting:
        replica = membership.replica
        verdict = judge_broken(read_broken(waiting[0]), replica.log_key, replica.state)
        membership.report_broken()
        raise PromiseBroken(verdict.said)


def _follow_to(membership: Membership, index: int) -> Sequenced:
    deadline = time.monotonic() + MERGE_TIMEOUT_S
    while time.monotonic() < deadline:
        for item in membership.follow(wait_s=2.0):
            if item.index == index:
                return item
    raise RunFailed(
        f"the coordinator said that it put the entry at index {index}, but its log does not show "
        f"it after {MERGE_TIMEOUT_S:.0f} s; keep your home directory and ask the coordinator"
    )


def positive_number(given: float | None, flag: str) -> None:
    """See that a number which was typed is finite and above 0.

    Raises:
        InputError: it is not, such as nan or inf.
    """
    if given is not None and not (math.isfinite(given) and given > 0):
        raise InputError(f"{flag} {given:g} must be a finite number above 0")


def closed_word(given: str, words: object, flag: str) -> Any:
    """A word of a closed enumeration of the vocabulary (a ``Literal``).

    Raises:
        InputError: it is none of them; lists them.
    """
    known = get_args(words)
    if given not in known:
        raise InputError(f"{flag} {given!r} is none of: {', '.join(known)}")
    return given

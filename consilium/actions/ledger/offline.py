"""What somebody outside takes away: proofs, leaves, policies, tiles; and how a proof is judged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from consilium.actions.homes import MOST_BLOBS, find_home
from consilium.actions.log_sources import LogSource, open_source
from consilium.actions.reading import open_view
from consilium.errors import InputError, RunFailed
from consilium.settings import Settings
from ledger.errors import BadSignature, NotConsistent, NotWitnessed, UnknownKey
from ledger.exchange.client import CoordinatorClient
from ledger.formats.checkpoint import Checkpoint
from ledger.formats.note import MAX_NOTE, VerifierKey, parse_vkey
from ledger.formats.proof import MAX_PROOF, parse_proof, verify_proof_by_policy
from ledger.formats.tiles import MAX_FRAMED
from ledger.formats.tlog_policy import MAX_POLICY, format_policy, parse_policy

LIMITS = {
    "checkpoint": MAX_NOTE,
    "leaf": MAX_FRAMED,
    "policy": MAX_POLICY,
    "proof": MAX_PROOF,
}
"""Bytes that each kind of file may have; leaves of other logs are checked too."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a proof shows.

    Attributes:
        signed: witness's key name -> POSIX seconds of its cosignature, of those in the policy.
    """

    index: int
    checkpoint: Checkpoint
    signed: dict[str, int]


@contextmanager
def open_here(
    settings: Settings, at: str | None, *, kept: Path | None = None
) -> Iterator[LogSource]:
    """The log at a place, or that of the member's home, brought up to date."""
    if at is None:
        home = find_home(settings.home, MOST_BLOBS).path
        with open_view(home, None, settings.passphrase_file):
            at = str(home)
    with open_source(at, settings.home, settings.passphrase_file, kept=kept) as source:
        yield source


def policy_text(source: LogSource, settings: Settings, outside: tuple[VerifierKey, ...]) -> bytes:
    """A policy file from the entries, or in the coordinator's own words where they are not to be had.

    Raises:
        InputError: more was asked for than a stranger gets.
    """
    if source.url is None or source.readable(settings.home):
        return format_policy(source.policy(outside))
    if outside:
        raise InputError("--witness needs the entries: name a member's home with --home")
    with CoordinatorClient(source.url, federation="") as client:
        return format_policy(parse_policy(client.policy()))


def witness_keys(vkeys: list[str] | None) -> tuple[VerifierKey, ...]:
    """Keys of witnesses outside the federation, as they were typed."""
    return tuple(parse_vkey(vkey) for vkey in vkeys or ())


def check_proof(proof: bytes, leaf: bytes, policy: bytes) -> Checked:
    """Judge a proof file by a leaf and a policy file, and nothing else.

    Raises:
        RunFailed: it does not show that the entry is in the log, or not enough witnesses saw it.
        MalformedInput: one of the files is not what it should be.
    """
    try:
        checkpoint, signed = verify_proof_by_policy(leaf, proof, parse_policy(policy))
    except (BadSignature, UnknownKey, NotConsistent, NotWitnessed) as error:
        raise RunFailed(f"REFUTED: {error}") from None
    return Checked(parse_proof(proof).index, checkpoint, signed)

"""Invitations as files: whose they are, what they open, and what they never show."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ledger.entries.entry import federation_id, parse_leaf
from ledger.entries.invitation import (
    InvitationFile,
    invitation_file,
    join_operation,
    load_invitation,
    member_keys,
    new_invitation,
    save_invitation,
)
from ledger.entries.operations.federation import Seat
from ledger.errors import MalformedInput, StoreUnusable
from ledger.exchange.home import MemberHome
from ledger.formats.keys import SigningKey, key_id, verify
from ledger.formats.strict import canonical, decode_b64, encode_b64
from ledger.rules.members import claim_bytes
from tests.federation import Federation, ring_of

SEATS = (Seat(handle="zug-node", role="node"), Seat(handle="zug-steward", role="steward"))
GENESIS = Federation.found(()).leaves[0]
URL = "https://hub.example.org:8443"


def made() -> tuple[InvitationFile, bytes]:
    invitation, secret = new_invitation("zug", SEATS)
    return invitation_file(invitation, secret, url=URL, genesis=GENESIS, ca=b"PEM"), secret


def test_a_file_comes_back_as_it_was_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    file, _ = made()
    path = tmp_path / "zug.invitation"
    save_invitation(path, file)
    assert load_invitation(path) == file
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert file.genesis_leaf == GENESIS
    assert file.ca_pem == b"PEM"
    assert file.federation == federation_id(parse_leaf(GENESIS))


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "zug.invitation"
    save_invitation(path, made()[0])
    with pytest.raises(StoreUnusable, match="cannot be written: File exists"):
        save_invitation(path, made()[0])
    with pytest.raises(StoreUnusable, match="cannot be read: No such file"):
        load_invitation(tmp_path / "none")


def test_the_secret_is_in_no_repr() -> None:
    file, secret = made()
    assert encode_b64(secret) not in repr(file)
    assert encode_b64(secret) not in str(file)


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    file, _ = made()
    path = tmp_path / "zug.invitation"
    for data, reason in (
        (canonical(file.model_copy(update={"federation": "0" * 64})), "another federation's"),
        (canonical(file) + b"\n", "not printable ASCII"),
        (canonical(file).replace(b"https", b"ftp"), "url"),
        (canonical(file.model_copy(update={"genesis": "AA"})), "base64"),
        (b"x" * 300_000, "at most 262144"),
    ):
        path.write_bytes(data)
        with pytest.raises(MalformedInput, match=reason):
            load_invitation(path)


def test_two_invitations_have_two_keys() -> None:
    assert new_invitation("zug", SEATS)[0].key != new_invitation("zug", SEATS)[0].key


@pytest.mark.parametrize(("handle", "role"), [("zug-node", "node"), ("zug-steward", "steward")])
def test_joining_carries_the_invitations_word_for_these_keys(handle: str, role: str) -> None:
    file, _ = made()
    ring = ring_of(handle, role)
    op = join_operation(file, ring, card="1" * 64)
    assert (op.keys.witness is not None) == (role == "node")
    assert op.keys == member_keys(ring)
    assert op.card == "1" * 64
    claim = claim_bytes(file.federation, handle, op.keys)
    one_time = SigningKey.from_seed(decode_b64(file.secret, size=32))
    assert op.invitation == key_id("ed25519", one_time.public)
    assert verify(one_time.public, "invitation", claim, bytes.fromhex(op.proof))


def test_a_secret_that_is_no_seed_is_refused() -> None:
    file, _ = made()
    short = file.model_copy(update={"secret": encode_b64(bytes(31))})
    with pytest.raises(MalformedInput, match=r"invitation\.secret.*31 bytes where 32"):
        join_operation(short, ring_of("zug-node", "node"))


# --- homes ----------------------------------------------------------------------------------------


def test_a_home_is_made_from_an_invitation_and_opens_its_copy(tmp_path: Path) -> None:
    file, _ = made()
    ring = ring_of("zug-node", "node")
    home = MemberHome.create(tmp_path / "home", file, ring, b"long enough", strength="interactive")
    assert home.config.handle == "zug-node"
    assert home.config.organisation == "zug"
    assert (tmp_path / "home" / "ca.pem").read_bytes() == b"PEM"
    assert not list((tmp_path / "home").glob("*.new"))
    with pytest.raises(StoreUnusable, match=r"ca\.pem: it holds no certificate"):
        home.open(b"long enough")
    (tmp_path / "home" / "ca.pem").unlink()
    for _ in range(2):
        member = home.open(b"long enough")
        assert member.replica.size == 1
        assert member.author.key == ring.entry.id
        member.close()


def test_a_home_needs_an_empty_directory_and_a_seat(tmp_path: Path) -> None:
    file, _ = made()
    with pytest.raises(MalformedInput, match="no seat for 'stranger'"):
        MemberHome.create(tmp_path, file, ring_of("stranger", "node"), b"x", strength="interactive")
    assert not os.listdir(tmp_path)
    (tmp_path / "something").touch()
    with pytest.raises(StoreUnusable, match="not empty"):
        MemberHome.create(tmp_path, file, ring_of("zug-node", "node"), b"x", strength="interactive")
    with pytest.raises(StoreUnusable, match="no member's home"):
        _ = MemberHome(tmp_path).config


def test_a_home_without_its_genesis_says_so(tmp_path: Path) -> None:
    file, _ = made()
    ring = ring_of("zug-node", "node")
    home = MemberHome.create(tmp_path / "home", file, ring, b"long enough", strength="interactive")
    (tmp_path / "home" / "genesis.leaf").unlink()
    with pytest.raises(StoreUnusable, match=r"genesis\.leaf: cannot be read"):
        home.open_replica()

"""Keys sign one kind of thing, one verifier judges, and key files open for their owner only."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from ledger.errors import CannotOpen, KeyFileError, UnsafeKeyFile, WrongPassphrase
from ledger.formats.key_file import load_keyring, save_keyring
from ledger.formats.keys import (
    KeyRing,
    SealingKey,
    SigningKey,
    key_id,
    opens,
    seal,
    signed_message,
    verify,
    verify_raw,
)

PASSPHRASE = b"correct horse"
KEY = SigningKey.from_seed(bytes(range(32)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, KeyRing]:
    path = tmp_path_factory.mktemp("keys") / "basel.keys"
    ring = KeyRing.generate("basel-1", "node")
    save_keyring(path, ring, PASSPHRASE, strength="interactive")
    return path, ring


@pytest.fixture
def copy(saved: tuple[Path, KeyRing], tmp_path: Path) -> Path:
    path = tmp_path / "copy.keys"
    path.write_bytes(saved[0].read_bytes())
    path.chmod(0o600)
    return path


def test_a_signature_covers_its_kind_and_its_length() -> None:
    assert signed_message("entry", b"abc") == b"consilium entry v1\n" + b"\0" * 7 + b"\x03abc"
    signature = KEY.sign("entry", b"abc")
    assert verify(KEY.public, "entry", b"abc", signature)
    assert not verify(KEY.public, "report", b"abc", signature)
    assert not verify(KEY.public, "entry", b"abd", signature)
    assert not verify_raw(KEY.public, b"abc", signature)


def test_verification_is_total() -> None:
    signature = KEY.sign_raw(b"m")
    assert verify_raw(KEY.public, b"m", signature)
    assert not verify_raw(KEY.public[:31], b"m", signature)
    assert not verify_raw(KEY.public, b"m", signature[:63])
    assert not verify_raw(KEY.public, b"m", signature + b"\0")
    assert not verify_raw(b"\xff" * 32, b"m", signature)
    assert not verify_raw(bytes(32), b"m", bytes(64))


def test_a_key_id_names_algorithm_and_key() -> None:
    message = b"consilium key v1\ned25519\n" + KEY.public
    assert KEY.id == key_id("ed25519", KEY.public) == hashlib.sha256(message).hexdigest()[:32]
    assert key_id("x25519", KEY.public) != KEY.id


def test_a_private_key_never_shows_itself() -> None:
    ring = KeyRing.generate("a", "coordinator")
    for key in (ring.entry, ring.witness, ring.request, ring.sealing, ring.log):
        assert key is not None
        assert key.seed.hex() not in repr(ring)
        assert repr(key.seed) not in repr(ring)


def test_the_rfc_8032_vector_signs_as_published() -> None:
    key = SigningKey.from_seed(
        bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    )
    assert key.public.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert key.sign_raw(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


def test_of_the_edge_case_signatures_exactly_libsodiums_are_accepted(vectors: Path) -> None:
    """C2SP/CCTV: other libraries accept more of these; that is why there is one verifier."""
    cases = orjson.loads((vectors / "ed25519" / "cctv_ed25519vectors.json").read_bytes())
    accepted = [
        case
        for case in cases
        if verify_raw(bytes.fromhex(case["key"]), case["msg"].encode(), bytes.fromhex(case["sig"]))
    ]
    assert (len(cases), len(accepted)) == (914, 43)
    flags = {flag for case in accepted for flag in case["flags"] or ()}
    assert not flags & {"low_order_A", "low_order_R", "non_canonical_A", "non_canonical_R"}


def test_the_direct_call_decides_as_pynacl_s_own_verifier_does(vectors: Path) -> None:
    cases = orjson.loads((vectors / "ed25519" / "cctv_ed25519vectors.json").read_bytes())
    signed = [
        tuple(map(bytes.fromhex, (c["key"], c["sig"], c["msg"].encode().hex()))) for c in cases
    ]
    for length in (0, 1, 63, 64, 65, 2000):
        message = bytes(length)
        signature = KEY.sign_raw(message)
        signed.append((KEY.public, signature, message))
        signed.append((KEY.public, signature, message + b"x"))
        signed.append((KEY.public, signature[:32] + bytes(32), message))
    for public, signature, message in signed:
        try:
            VerifyKey(public).verify(message, signature)
            accepted = True
        except BadSignatureError:
            accepted = False
        assert opens(public, signature + message) == accepted
    for short in range(65):
        assert not opens(KEY.public, bytes(short))


def test_what_is_sealed_opens_for_its_recipient_only() -> None:
    key, other = SealingKey.generate(), SealingKey.from_seed(bytes(range(32)))
    sealed = seal(key.public, b"secret")
    assert key.open(sealed) == b"secret"
    for box in (sealed[:-1], sealed[:-1] + bytes([sealed[-1] ^ 1]), b""):
        with pytest.raises(CannotOpen, match=key.id):
            key.open(box)
    with pytest.raises(CannotOpen, match="another recipient, or changed"):
        other.open(sealed)


def test_only_the_coordinator_has_a_log_key() -> None:
    assert KeyRing.generate("a", "coordinator").log is not None
    assert KeyRing.generate("a", "node").log is None


def test_a_key_file_opens_to_the_same_keys(saved: tuple[Path, KeyRing]) -> None:
    path, ring = saved
    assert load_keyring(path, PASSPHRASE) == ring
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_coordinators_key_file_keeps_the_log_key(tmp_path: Path) -> None:
    ring = KeyRing.generate("hub", "coordinator")
    save_keyring(tmp_path / "hub.keys", ring, PASSPHRASE, strength="interactive")
    assert load_keyring(tmp_path / "hub.keys", PASSPHRASE) == ring


def test_a_key_file_shows_its_public_keys_and_no_private_one(saved: tuple[Path, KeyRing]) -> None:
    path, ring = saved
    header = json.loads(path.read_bytes())["header"]
    assert (header["handle"], header["role"]) == ("basel-1", "node")
    assert header["kdf"]["name"] == "argon2id"
    for key in (ring.entry, ring.witness, ring.request, ring.sealing):
        assert key.seed not in path.read_bytes()


def test_a_wrong_passphrase_is_told_apart(copy: Path) -> None:
    with pytest.raises(WrongPassphrase, match="the passphrase does not open it") as caught:
        load_keyring(copy, b"wrong")
    assert caught.value.path == copy


def test_a_key_file_is_never_overwritten(saved: tuple[Path, KeyRing]) -> None:
    path, ring = saved
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="exists already; keys are never overwritten"):
        save_keyring(path, ring, PASSPHRASE, strength="interactive")
    assert path.read_bytes() == before


def test_an_empty_passphrase_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="empty passphrase"):
        save_keyring(tmp_path / "k", KeyRing.generate("a", "node"), b"", strength="interactive")
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_file_that_others_can_read_is_refused(copy: Path, mode: int) -> None:
    copy.chmod(mode)
    with pytest.raises(UnsafeKeyFile, match=f"chmod 600 {copy}"):
        load_keyring(copy, PASSPHRASE)


def test_a_pipe_or_folder_in_place_of_a_key_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(UnsafeKeyFile, match="is not a plain file"):
            load_keyring(path, PASSPHRASE)


def test_a_missing_key_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot be opened: No such file"):
        load_keyring(tmp_path / "none", PASSPHRASE)


def rewritten(change: Callable[[dict[str, dict[str, object]]], None], data: bytes) -> bytes:
    value = json.loads(data)
    change(value)
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def test_a_changed_handle_or_public_key_is_noticed(copy: Path) -> None:
    original = copy.read_bytes()

    def rename(value: dict[str, dict[str, object]]) -> None:
        value["header"]["handle"] = "zurich-1"

    def replace_key(value: dict[str, dict[str, object]]) -> None:
        public = value["header"]["public"]
        assert isinstance(public, dict)
        public["entry"] = public["witness"]

    for change in (rename, replace_key):
        copy.write_bytes(rewritten(change, original))
        with pytest.raises(KeyFileError, match="readable part was changed"):
            load_keyring(copy, PASSPHRASE)


def test_a_key_file_that_would_exhaust_memory_is_refused(copy: Path) -> None:
    def ask_for_terabytes(value: dict[str, dict[str, object]]) -> None:
        kdf = value["header"]["kdf"]
        assert isinstance(kdf, dict)
        kdf["mem_limit"] = 2**42

    copy.write_bytes(rewritten(ask_for_terabytes, copy.read_bytes()))
    with pytest.raises(KeyFileError, match=r"kdf\.mem_limit: .*less than or equal to 1073741824"):
        load_keyring(copy, PASSPHRASE)


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff" * 100, b"x" * 20000])
def test_a_damaged_key_file_is_refused_with_its_path(copy: Path, damage: bytes) -> None:
    copy.write_bytes(damage)
    with pytest.raises(KeyFileError, match=f"key file {copy}: is not a key file of ours"):
        load_keyring(copy, PASSPHRASE)


def test_every_truncation_of_a_key_file_is_refused_without_trying_the_passphrase(
    copy: Path,
) -> None:
    data = copy.read_bytes()
    for length in range(0, len(data), 97):
        copy.write_bytes(data[:length])
        with pytest.raises(KeyFileError, match="not a key file of ours, or is damaged"):
            load_keyring(copy, PASSPHRASE)

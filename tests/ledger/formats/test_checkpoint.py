"""Checkpoints and cosignatures: the worked bytes, the real ones, and the traps."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import BadSignature, MalformedInput, UnknownKey
from ledger.formats.checkpoint import (
    Checkpoint,
    cosign,
    log_verifier,
    merge_cosignatures,
    open_checkpoint,
    parse_checkpoint,
    parse_size,
    sign_checkpoint,
    verify_cosignature,
)
from ledger.formats.keys import SigningKey
from ledger.formats.merkle import leaf_hash, verify_inclusion
from ledger.formats.note import (
    COSIGNATURE_V1,
    Note,
    NoteSignature,
    VerifierKey,
    parse_note,
    parse_vkey,
    verify_note,
)
from ledger.formats.strict import decode_b64, encode_b64
from tests.ledger.formats import worked

ROOT = encode_b64(bytes(32))
OTHER_KEY = SigningKey.from_seed(b"\x07" * 32)
OTHER = VerifierKey("example.org/witness/b", OTHER_KEY.public, COSIGNATURE_V1)


def test_the_worked_checkpoint_and_cosignature_are_reproduced_byte_for_byte() -> None:
    checkpoint = Checkpoint(worked.ORIGIN, 3, worked.tree(3).root())
    note = sign_checkpoint(worked.LOG_KEY, checkpoint)
    assert note == worked.CHECKPOINT
    line = cosign(note, worked.WITNESS_KEY, worked.WITNESS.name, worked.COSIGNATURE_TIME_S)
    assert line == worked.COSIGNATURE
    assert open_checkpoint(note + line, worked.LOG) == checkpoint
    assert log_verifier(worked.ORIGIN, worked.LOG_KEY.public) == worked.LOG


@given(
    st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs"]), min_size=1, max_size=20),
    st.integers(0, 2**53 - 1),
    st.binary(min_size=32, max_size=32),
    st.lists(
        st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1), max_size=2
    ),
)
def test_a_checkpoint_reads_back_as_it_was_written(
    origin: str, size: int, root: bytes, extensions: list[str]
) -> None:
    checkpoint = Checkpoint(origin, size, root, tuple(extensions))
    assert parse_checkpoint(checkpoint.text()) == checkpoint


@given(st.binary(max_size=120))
def test_arbitrary_bytes_meet_only_typed_refusals(data: bytes) -> None:
    for candidate in (data, b"origin\n" + data, b"origin\n3\n" + data):
        try:
            checkpoint = parse_checkpoint(candidate)
        except MalformedInput:
            continue
        assert checkpoint.text() == candidate


@pytest.mark.parametrize(
    "size", ["", "+7", " 7", "7 ", "0_7", "007", "00", "٧", "-5", "7.0", "1e3", "0x7", "9" * 16]
)
def test_a_size_in_any_other_spelling_is_refused(size: str) -> None:
    with pytest.raises(MalformedInput, match="is not a decimal number") as caught:
        parse_checkpoint(f"origin\n{size}\n{ROOT}\n".encode())
    assert caught.value.where == "checkpoint.size"


def test_sizes_end_at_the_largest_exact_integer() -> None:
    assert parse_size("9007199254740991", "size") == 2**53 - 1
    assert parse_size("0", "size") == 0
    for text in ("9007199254740992", "18446744073709551615", "7\n"):
        with pytest.raises(MalformedInput, match=r"^size: "):
            parse_size(text, "size")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"origin\n3\n", "is not origin, size and root"),
        (f"origin\n3\n{ROOT}".encode(), "is not origin, size and root"),
        (f"\n3\n{ROOT}\n".encode(), "an empty line"),
        (f"origin\n3\n{ROOT}\n\n".encode(), "an empty line"),
        (f"origin\n3\n{ROOT}\nextension\n\n".encode(), "an empty line"),
        (f"origin\r\n3\n{ROOT}\n".encode(), "control character"),
        (b"origin\n3\nAAAA\n", "holds 3 bytes where 32 are expected"),
        (f"origin\n3\n{ROOT[:-2]}B=\n".encode(), "another spelling"),
        (f"origin\n3\n {ROOT}\n".encode(), "is not base64"),
        (b"\xfforigin\n3\n", "not UTF-8 at byte 0"),
    ],
)
def test_each_malformed_checkpoint_is_refused_with_its_reason(text: bytes, reason: str) -> None:
    with pytest.raises(MalformedInput) as caught:
        parse_checkpoint(text)
    assert reason in caught.value.reason


def test_extension_lines_of_others_are_kept_and_covered() -> None:
    checkpoint = Checkpoint("origin", 3, bytes(32), ("one", "two"))
    note = sign_checkpoint(worked.LOG_KEY, checkpoint)
    log = log_verifier("origin", worked.LOG_KEY.public)
    assert open_checkpoint(note, log) == checkpoint
    with pytest.raises(BadSignature):
        open_checkpoint(note.replace(b"two\n", b"2\n"), log)


def test_a_checkpoint_of_another_origin_is_refused_though_the_key_signed_it() -> None:
    text = Checkpoint("example.org/other", 3, bytes(32)).text()
    line = NoteSignature(worked.ORIGIN, worked.LOG.id, worked.LOG_KEY.sign_raw(text))
    forged = Note(text, (line,)).encode()
    with pytest.raises(
        MalformedInput, match=r"is 'example\.org/other' where 'example\.org/consilium'"
    ):
        open_checkpoint(forged, worked.LOG)
    assert open_checkpoint(forged, worked.LOG, origin="example.org/other").size == 3


def test_a_cosignature_over_another_text_or_time_does_not_verify() -> None:
    payload = parse_note(worked.CHECKPOINT + worked.COSIGNATURE).signatures[1].payload
    text = worked.CHECKPOINT_TEXT
    assert verify_cosignature(text, worked.WITNESS, payload) == worked.COSIGNATURE_TIME_S
    with pytest.raises(BadSignature, match="does not verify over this text"):
        verify_cosignature(text.replace(b"3", b"4"), worked.WITNESS, payload)
    with pytest.raises(BadSignature):
        verify_cosignature(text, worked.WITNESS, bytes(7) + b"\x01" + payload[8:])
    signature = parse_note(worked.CHECKPOINT).signatures[0].payload
    with pytest.raises(UnknownKey, match="is no cosignature/v1 key"):
        verify_cosignature(text, worked.LOG, signature)


@pytest.mark.parametrize("time_s", [0, -1, 2**63])
def test_no_cosignature_is_made_without_a_time(time_s: int) -> None:
    with pytest.raises(MalformedInput, match="cosignature time"):
        cosign(worked.CHECKPOINT, worked.WITNESS_KEY, "w", time_s)


def test_only_checkpoints_are_cosigned() -> None:
    with pytest.raises(MalformedInput, match="checkpoint"):
        cosign(worked.CHECKPOINT.replace(b"\n3\n", b"\nthree\n"), worked.WITNESS_KEY, "w", 1)


def test_merging_keeps_the_newest_line_of_each_known_key_in_any_order() -> None:
    known = (worked.WITNESS, OTHER)
    old = cosign(worked.CHECKPOINT, worked.WITNESS_KEY, worked.WITNESS.name, 5)
    new = cosign(worked.CHECKPOINT, worked.WITNESS_KEY, worked.WITNESS.name, 9)
    other = cosign(worked.CHECKPOINT, OTHER_KEY, OTHER.name, 7)
    one = merge_cosignatures(worked.CHECKPOINT, old + other, known)
    one = merge_cosignatures(one, new, known)
    two = merge_cosignatures(worked.CHECKPOINT, new, known)
    two = merge_cosignatures(merge_cosignatures(two, old, known), other, known)
    assert one == two == worked.CHECKPOINT + new + other
    assert merge_cosignatures(one, new + old, known) == one


def test_unknown_lines_are_dropped_on_merging_and_false_ones_refuse_everything() -> None:
    stranger = cosign(worked.CHECKPOINT, OTHER_KEY, "elsewhere/witness", 7)
    merged = merge_cosignatures(worked.CHECKPOINT, stranger + worked.COSIGNATURE, (worked.WITNESS,))
    assert merged == worked.CHECKPOINT + worked.COSIGNATURE
    elsewhere = Checkpoint(worked.ORIGIN, 4, bytes(32))
    false = cosign(
        sign_checkpoint(worked.LOG_KEY, elsewhere), worked.WITNESS_KEY, worked.WITNESS.name, 7
    )
    with pytest.raises(BadSignature, match=f"signature by {worked.WITNESS.name}"):
        merge_cosignatures(worked.CHECKPOINT, false, (worked.WITNESS,))


# Real checkpoints and cosignatures


def test_every_real_checkpoint_of_the_go_checksum_database_verifies(vectors: Path) -> None:
    log = parse_vkey((vectors / "sumdb" / "vkey.txt").read_text().strip())
    files = sorted((vectors / "sumdb").glob("size-*.checkpoint"))
    assert len(files) == 7
    for file in files:
        checkpoint = open_checkpoint(file.read_bytes(), log, origin="go.sum database tree")
        assert file.name == f"size-{checkpoint.size}.checkpoint"
        with pytest.raises(MalformedInput, match=r"'sum\.golang\.org' is expected"):
            open_checkpoint(file.read_bytes(), log)
        extended = file.read_bytes().replace(b"=\n\n", b"=\nextension\n\n")
        with pytest.raises(BadSignature, match=r"signature by sum\.golang\.org: does not verify"):
            open_checkpoint(extended, log)


def test_sigsums_deterministic_cosignature_is_reproduced(vectors: Path) -> None:
    vector = orjson.loads((vectors / "witness" / "sigsum_cosig.json").read_bytes())
    key = SigningKey.from_seed(bytes.fromhex(vector["pub_seed_hex"]))
    note = Note(
        vector["checkpoint_body"].encode(), parse_note(worked.CHECKPOINT).signatures
    ).encode()
    line = cosign(note, key, vector["key_name"], vector["timestamp"])
    assert line.decode() == vector["line"] + "\n"
    assert VerifierKey(vector["key_name"], key.public, COSIGNATURE_V1).id.hex() == "cacf2e50"


@pytest.mark.parametrize(
    ("name", "witnesses"),
    [("a.dsse.staging-rekor-v2.txt.sigstore.json", 3), ("staging-rekor-v2.txt.sigstore.json", 0)],
)
def test_real_rekor_checkpoints_verify_with_their_log_and_witnesses(
    vectors: Path, name: str, witnesses: int
) -> None:
    bundle = orjson.loads((vectors / "rekor_v2" / name).read_bytes())
    entry = bundle["verificationMaterial"]["tlogEntries"][0]
    proof = entry["inclusionProof"]
    note = proof["checkpoint"]["envelope"].encode()
    root = orjson.loads((vectors / "rekor_v2" / "staging_trusted_root.json").read_bytes())
    logs = [
        log_verifier(log["baseUrl"].removeprefix("https://"), decode_b64(key["rawBytes"])[-32:])
        for log in root["tlogs"]
        if (key := log["publicKey"])["keyDetails"] == "PKIX_ED25519"
    ]
    known = [
        parse_vkey(line)
        for line in (vectors / "rekor_v2" / "witness_vkeys.txt").read_text().split()
    ]
    opened, verified = verify_note(note, (*logs, *known))
    checkpoint = parse_checkpoint(opened.text)
    assert checkpoint.root == decode_b64(proof["rootHash"])
    verify_inclusion(
        index=int(proof["logIndex"]),
        size=checkpoint.size,
        leaf=leaf_hash(decode_b64(entry["canonicalizedBody"])),
        proof=[decode_b64(node) for node in proof["hashes"]],
        root=checkpoint.root,
    )
    assert sum(signer.time_s is not None for signer in verified) == witnesses
    assert sum(signer.key in logs for signer in verified) == 1


def test_the_production_logs_key_is_unknown_to_a_staging_checkpoint(vectors: Path) -> None:
    root = orjson.loads((vectors / "rekor_v2" / "prod_trusted_root.json").read_bytes())
    log = root["tlogs"][1]
    key = log_verifier(
        log["baseUrl"].removeprefix("https://"), decode_b64(log["publicKey"]["rawBytes"])[-32:]
    )
    assert decode_b64(log["logId"]["keyId"])[:4] == key.id
    bundle = (vectors / "rekor_v2" / "staging-rekor-v2.txt.sigstore.json").read_bytes()
    proof = orjson.loads(bundle)["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]
    with pytest.raises(UnknownKey, match="no key we know"):
        verify_note(proof["checkpoint"]["envelope"].encode(), (key,))

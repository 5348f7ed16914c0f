"""Notes are read strictly, and verified as c2sp.org/signed-note says."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import BadSignature, MalformedInput, UnknownKey
from ledger.formats.keys import SigningKey
from ledger.formats.note import (
    COSIGNATURE_V1,
    ED25519,
    MAX_NOTE,
    MAX_SIGNATURES,
    Note,
    NoteSignature,
    VerifierKey,
    cosignature_message,
    parse_note,
    parse_signature_lines,
    parse_vkey,
    verify_note,
)
from ledger.formats.strict import decode_b64
from tests.ledger.formats import worked

TEXT = b"first\n\nsecond, after an empty line\n"
ALICE_KEY = SigningKey.from_seed(b"\x01" * 32)
BOB_KEY = SigningKey.from_seed(b"\x02" * 32)
ALICE = VerifierKey("alice.example", ALICE_KEY.public)
BOB = VerifierKey("bob.example", BOB_KEY.public)


def signature(verifier: VerifierKey, key: SigningKey, text: bytes = TEXT) -> NoteSignature:
    return NoteSignature(verifier.name, verifier.id, key.sign_raw(text))


def cosigned(verifier: VerifierKey, key: SigningKey, time_s: int) -> NoteSignature:
    signed = key.sign_raw(cosignature_message(TEXT, time_s))
    return NoteSignature(verifier.name, verifier.id, time_s.to_bytes(8, "big") + signed)


BY_ALICE = signature(ALICE, ALICE_KEY)
BY_BOB = signature(BOB, BOB_KEY)
NOTE = Note(TEXT, (BY_ALICE, BY_BOB)).encode()


def test_a_note_reads_back_as_it_was_written() -> None:
    note = parse_note(NOTE)
    assert note.text == TEXT
    assert note.signatures == (BY_ALICE, BY_BOB)
    assert note.encode() == NOTE


@given(st.binary(max_size=300))
def test_arbitrary_bytes_meet_only_typed_refusals(data: bytes) -> None:
    for candidate in (data, TEXT + b"\n" + data, TEXT + b"\n\xe2\x80\x94 " + data):
        try:
            note = parse_note(candidate)
        except MalformedInput:
            continue
        assert note.encode() == candidate


@given(st.data())
def test_any_changed_byte_of_a_note_costs_it_a_signer_or_everything(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(NOTE) - 1))
    changed = bytearray(NOTE)
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        _, verified = verify_note(bytes(changed), (ALICE, BOB))
    except (MalformedInput, BadSignature):
        return
    assert len(verified) == 1  # the other line names a stranger now: it no longer counts


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "does not end in LF"),
        (TEXT, "is not dash, name and base64"),
        (b"text\n", "no empty line"),
        (b"text\n\n", "has 0 signature lines"),
        (NOTE[:-1], "does not end in LF"),
        (NOTE + b"\n", "has 0 signature lines"),
        (NOTE.replace(b"\n", b"\r\n"), "control character at byte 5"),
        (b"\x01" + NOTE, "control character at byte 0"),
        (b"\xff" + NOTE, "not UTF-8 at byte 0"),
        (b"\xed\xa0\x80" + NOTE, "not UTF-8 at byte 0"),
        (NOTE + b"Unexpected line.\n", "is not dash, name and base64"),
        (NOTE.replace("— alice".encode(), b"- alice"), "is not dash, name and base64"),
        (NOTE.replace(b"alice.example ", b"alice.example  "), "is not base64"),
        (NOTE.replace(b"alice.example ", b"alice+example "), "space, plus or control"),
        (NOTE.replace(b"alice.example ", "alice\u00a0example ".encode()), "space, plus"),
        (NOTE.replace(b"alice.example ", "alice\u2028example ".encode()), "space, plus"),
        (NOTE.replace(b"alice.example ", b""), "is not dash, name and base64"),
        (NOTE.replace(b"alice.example ", b" "), "is empty"),
        (TEXT + "\n— a AAAAAA==\n".encode(), "holds no signature"),
        (TEXT + "\n— a AAAAAAB=\n".encode(), "another spelling"),
        (TEXT + "\n— a AAAAAAA\n".encode(), "not base64"),
        (TEXT + b"\n" + BY_ALICE.line() * (MAX_SIGNATURES + 1), "has 101 signature lines"),
        (b"x" * MAX_NOTE + NOTE, "at most 65536 are accepted"),
    ],
)
def test_each_malformed_note_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(MalformedInput) as caught:
        parse_note(data)
    assert reason in caught.value.reason


def test_a_unicode_line_separator_in_the_text_is_no_line_end() -> None:
    text = "one\u2028still one\u0085and on\n".encode()
    note = Note(text, (signature(ALICE, ALICE_KEY, text),)).encode()
    assert verify_note(note, (ALICE,))[0].text == text


def test_as_many_signatures_as_the_cap_are_accepted() -> None:
    lines = tuple(NoteSignature(f"w{at}", bytes(4), bytes(64)) for at in range(MAX_SIGNATURES - 1))
    note, verified = verify_note(Note(TEXT, (*lines, BY_ALICE)).encode(), (ALICE,))
    assert len(note.signatures) == MAX_SIGNATURES
    assert [signer.key for signer in verified] == [ALICE]


def test_unknown_lines_are_ignored_even_where_name_or_id_is_known() -> None:
    grease = (
        NoteSignature(ALICE.name, bytes(4), b"never verifies"),
        NoteSignature("elsewhere.example", ALICE.id, b"never verifies"),
    )
    _, verified = verify_note(Note(TEXT, (*grease, BY_ALICE)).encode(), (ALICE,))
    assert [signer.key for signer in verified] == [ALICE]


def test_a_known_keys_false_line_refuses_the_note_whoever_else_signed() -> None:
    false = NoteSignature(BOB.name, BOB.id, bytes(64))
    note = Note(TEXT, (BY_ALICE, false)).encode()
    with pytest.raises(BadSignature, match=r"signature by bob\.example: does not verify"):
        verify_note(note, (ALICE, BOB))
    assert verify_note(note, (ALICE,))[1][0].key == ALICE


def test_a_note_that_nobody_we_know_signed_is_refused() -> None:
    with pytest.raises(UnknownKey, match="note: is signed by no key we know"):
        verify_note(Note(TEXT, (BY_ALICE,)).encode(), (BOB,))
    with pytest.raises(UnknownKey):
        verify_note(NOTE, ())


def test_a_key_that_signs_twice_counts_once_with_its_newest_time() -> None:
    witness = VerifierKey("w.example", ALICE_KEY.public, COSIGNATURE_V1)
    lines = tuple(cosigned(witness, ALICE_KEY, time_s) for time_s in (20, 30, 10))
    _, verified = verify_note(Note(TEXT, lines).encode(), (witness,))
    assert [(signer.key, signer.time_s) for signer in verified] == [(witness, 30)]


@pytest.mark.parametrize("time_s", [0, 2**63])
def test_a_cosignature_without_a_possible_time_is_refused(time_s: int) -> None:
    witness = VerifierKey("w.example", ALICE_KEY.public, COSIGNATURE_V1)
    note = Note(TEXT, (cosigned(witness, ALICE_KEY, time_s),)).encode()
    with pytest.raises(BadSignature, match="its time is outside"):
        verify_note(note, (witness,))


@pytest.mark.parametrize("size", [1, 8, 63, 65, 71, 73])
def test_a_signature_of_another_length_is_refused(size: int) -> None:
    for signature_type in (ED25519, COSIGNATURE_V1):
        key = VerifierKey("w.example", ALICE_KEY.public, signature_type)
        note = Note(TEXT, (NoteSignature(key.name, key.id, b"\x01" * size),)).encode()
        with pytest.raises(BadSignature):
            verify_note(note, (key,))


def test_one_key_as_log_and_as_witness_has_two_ids() -> None:
    witness = VerifierKey(ALICE.name, ALICE.public, COSIGNATURE_V1)
    assert witness.id != ALICE.id
    assert len(verify_note(Note(TEXT, (BY_ALICE,)).encode(), (ALICE, witness))[1]) == 1


def test_two_known_keys_with_one_name_and_id_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = VerifierKey(ALICE.name, BOB_KEY.public)
    monkeypatch.setattr(VerifierKey, "id", property(lambda _: bytes(4)))
    with pytest.raises(MalformedInput, match="known keys: two of them share name and id"):
        verify_note(NOTE, (ALICE, other))


def test_signature_lines_alone_are_read_as_a_notes() -> None:
    assert parse_signature_lines(BY_ALICE.line() + BY_BOB.line()) == (BY_ALICE, BY_BOB)
    line = BY_ALICE.line()
    for bad in (b"", b"\n", line[:-1], b"\n" + line, b"x\n\n" + line, line + b"\n" + line):
        with pytest.raises(MalformedInput):
            parse_signature_lines(bad)


# Verifier keys


def test_the_worked_verifier_keys_have_the_published_ids() -> None:
    assert str(worked.LOG) == (
        "example.org/consilium+1277bf44+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
    )
    as_witness = VerifierKey(worked.ORIGIN, worked.LOG_KEY.public, COSIGNATURE_V1)
    assert str(as_witness).startswith("example.org/consilium+dbc68925+BAOhB7/z")
    assert worked.WITNESS.id.hex() == "2979b730"
    assert parse_vkey(str(worked.LOG)) == worked.LOG
    assert parse_vkey(str(as_witness)) == as_witness


@given(
    st.text(min_size=1, max_size=12).filter(
        lambda name: not any(c.isspace() or c in "+" or c < " " for c in name)
    ),
    st.binary(min_size=32, max_size=32),
    st.sampled_from([ED25519, COSIGNATURE_V1]),
)
def test_every_verifier_key_reads_back(name: str, public: bytes, signature_type: int) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        with pytest.raises(MalformedInput, match="not Unicode text"):
            VerifierKey(name, public, signature_type)
        return
    key = VerifierKey(name, public, signature_type)
    assert parse_vkey(str(key)) == key


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("alice", "is not name+id+key"),
        ("a+00000000+AQ==", "an Ed25519 key has 32 bytes"),
        (str(ALICE)[5:].replace(".example", ""), "is empty"),
        (str(ALICE).replace("+", "+X", 1), "not 8 lowercase hex digits"),
        (str(ALICE).upper(), "not 8 lowercase hex digits"),
        (str(ALICE).replace("alice", "malice"), "says id"),
        (str(ALICE).replace("alice", "al ice"), "space, plus or control"),
        (str(ALICE) + "\n", "is not base64"),
        ("a+00000000+", "no key material"),
        ("\ud800+00000000+" + str(ALICE).rsplit("+", 1)[1], "not Unicode text"),
    ],
)
def test_each_malformed_verifier_key_is_refused(text: str, reason: str) -> None:
    with pytest.raises(MalformedInput) as caught:
        parse_vkey(text)
    assert reason in caught.value.reason


def test_a_post_quantum_key_is_named_as_unsupported() -> None:
    with pytest.raises(MalformedInput, match="signature type 0x06 is not supported"):
        VerifierKey("w.example", bytes(1312), 0x06)


# golang/mod sumdb/note, C2SP signed-note


def test_go_notes_verify_and_sign_byte_for_byte(vectors: Path) -> None:
    note = (vectors / "note" / "peter_enoch.note").read_bytes()
    peter, enoch = map(parse_vkey, (vectors / "note" / "vkeys.txt").read_text().split())
    opened, verified = verify_note(note, (peter, enoch))
    assert [signer.key for signer in verified] == [peter, enoch]
    *_, name, key_id, secret = (vectors / "note" / "peter.skey").read_text().strip().split("+", 4)
    raw = decode_b64(secret)
    assert (name, key_id, raw[0]) == (peter.name, peter.id.hex(), ED25519)
    ours = NoteSignature(peter.name, peter.id, SigningKey.from_seed(raw[1:]).sign_raw(opened.text))
    assert ours.line() == opened.signatures[0].line()


def test_go_bad_verifier_keys_are_refused(vectors: Path) -> None:
    wrong_base64, unknown_type = (vectors / "note" / "bad_vkeys.txt").read_text().split()
    with pytest.raises(MalformedInput, match=r"vkey: .*base64"):
        parse_vkey(wrong_base64)
    with pytest.raises(MalformedInput, match="signature type 0x65 is not supported"):
        parse_vkey(unknown_type)


def test_go_bad_messages_are_refused(vectors: Path) -> None:
    """The seven of TestOpen's badMsgs, and its two misnamed signatures (excerpt beside it)."""
    note = (vectors / "note" / "peter_enoch.note").read_text()
    peter = parse_vkey((vectors / "note" / "vkeys.txt").read_text().split()[0])
    excerpt = (vectors / "note" / "go_badMsgs_excerpt.txt").read_text()
    split = note.index("\n\n") + 1
    text, line = note[:split], note[split + 1 :].split("\n")[0] + "\n"
    bad_name = next(part for part in excerpt.split('"') if part.startswith("— Bad Name"))
    for message in (
        text.encode(),
        (text + "\n").encode(),
        (text + "\n" + line[:-1]).encode(),
        ("\x01" + text + "\n" + line).encode(),
        b"\xff" + (text + "\n" + line).encode(),
        (text + "\n" + bad_name).encode(),
        (text + "\n" + line + "Unexpected line.\n").encode(),
    ):
        with pytest.raises(MalformedInput):
            verify_note(message, (peter,))
    for misnamed in (
        line.replace("PeterNeumann", "CarmenSandiego"),
        line.replace("x08g", "xxxx"),
    ):
        with pytest.raises(UnknownKey):
            verify_note((text + "\n" + misnamed).encode(), (peter,))


def test_the_specifications_example_parses_and_its_key_is_as_written(vectors: Path) -> None:
    key = parse_vkey((vectors / "note" / "example_c2sp.vkey").read_text().strip())
    note = (vectors / "note" / "example_c2sp.note").read_bytes()
    opened, verified = verify_note(note, (key,))
    assert opened.text == b"This is an example message.\n"
    assert verified[0].key.name == "example.com/foo"

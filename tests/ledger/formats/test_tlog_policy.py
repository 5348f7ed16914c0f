"""Policy files are read as c2sp.org/tlog-policy says, and decide as they say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import BadSignature, MalformedInput, NotWitnessed, UnknownKey
from ledger.formats.checkpoint import Checkpoint, cosign, sign_checkpoint
from ledger.formats.keys import SigningKey
from ledger.formats.note import COSIGNATURE_V1, VerifierKey
from ledger.formats.strict import encode_b64
from ledger.formats.tlog_policy import Group, Log, format_policy, parse_policy, verify_by_policy
from tests.ledger.formats import worked

NAMES = ("X1", "X2", "X3", "Y1", "Y2", "Y3")
KEYS = {name: SigningKey.from_seed(bytes([at]) * 32) for at, name in enumerate(NAMES, start=1)}
WITNESSES = {
    name: VerifierKey(f"w.example/{name}", key.public, COSIGNATURE_V1) for name, key in KEYS.items()
}
CHECKPOINT = Checkpoint(worked.ORIGIN, 3, bytes(32))
NOTE = sign_checkpoint(worked.LOG_KEY, CHECKPOINT)

# The specification's example, with keys, a comment, tabs, a URL and a blank line.
EXAMPLE = (
    f"# who may witness\nlog {worked.LOG} https://log.example/\n\n"
    + "".join(f"witness {name} {key}\n" for name, key in WITNESSES.items())
    + "group\tX-witnesses 2 X1 X2  X3\n  group Y-witnesses any Y1 Y2 Y3 \n"
    + "group X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n"
)


def cosigned(*names: str) -> bytes:
    return NOTE + b"".join(cosign(NOTE, KEYS[name], f"w.example/{name}", 9) for name in names)


def test_the_specifications_example_reads_back() -> None:
    policy = parse_policy(EXAMPLE.encode())
    assert policy.logs == (Log(worked.LOG, "https://log.example/"),)
    assert [witness.name for witness in policy.witnesses] == list(NAMES)
    assert policy.groups[0] == Group("X-witnesses", 2, ("X1", "X2", "X3"))
    assert policy.groups[2] == Group("X-and-Y", 2, ("X-witnesses", "Y-witnesses"))
    assert parse_policy(format_policy(policy)) == policy


@given(st.sets(st.sampled_from(NAMES)))
def test_the_example_decides_as_its_text_says(names: set[str]) -> None:
    policy = parse_policy(EXAMPLE.encode())
    met = len(names & {"X1", "X2", "X3"}) >= 2 and bool(names & {"Y1", "Y2", "Y3"})
    note = cosigned(*sorted(names))
    if met:
        assert verify_by_policy(note, policy) == CHECKPOINT
    else:
        with pytest.raises(NotWitnessed, match="quorum X-and-Y") as caught:
            verify_by_policy(note, policy)
        assert caught.value.missing == set(NAMES) - names


def test_a_policy_may_need_no_witness_but_still_needs_its_log() -> None:
    policy = parse_policy(f"log {worked.LOG}\nquorum none\n".encode())
    assert policy.quorum is None
    assert verify_by_policy(NOTE, policy) == CHECKPOINT
    with pytest.raises(UnknownKey):
        verify_by_policy(NOTE, parse_policy(b"quorum none\n"))


def test_a_single_witness_can_be_the_quorum() -> None:
    text = f"log {worked.LOG}\nwitness X1 {WITNESSES['X1']}\nquorum X1\n"
    policy = parse_policy(text.encode())
    assert verify_by_policy(cosigned("X1"), policy) == CHECKPOINT
    with pytest.raises(NotWitnessed, match="0 organisations cosigned where 1 must"):
        verify_by_policy(NOTE, policy)


def test_witnesses_alone_do_not_make_a_checkpoint() -> None:
    stranger = sign_checkpoint(KEYS["Y3"], CHECKPOINT)
    lines = b"".join(cosign(NOTE, KEYS[name], f"w.example/{name}", 9) for name in ("X1", "X2"))
    policy = parse_policy(EXAMPLE.encode())
    with pytest.raises(UnknownKey, match="no log of the policy"):
        verify_by_policy(stranger + lines, policy)


def test_a_log_signing_under_anothers_origin_is_no_log_of_the_policy() -> None:
    other = VerifierKey("other.example", KEYS["Y3"].public)
    text = Checkpoint("elsewhere.example", 3, bytes(32)).text()
    line = f"— other.example {encode_b64(other.id + KEYS['Y3'].sign_raw(text))}\n".encode()
    policy = parse_policy(f"log {other}\nquorum none\n".encode())
    with pytest.raises(UnknownKey, match=r"'elsewhere\.example'"):
        verify_by_policy(text + b"\n" + line, policy)


def test_a_false_cosignature_refuses_the_checkpoint() -> None:
    other = sign_checkpoint(worked.LOG_KEY, Checkpoint(worked.ORIGIN, 4, bytes(32)))
    false = cosign(other, KEYS["Y1"], "w.example/Y1", 9)
    with pytest.raises(BadSignature, match=r"w\.example/Y1"):
        verify_by_policy(cosigned("X1", "X2", "Y2") + false, parse_policy(EXAMPLE.encode()))


LOG = f"log {worked.LOG}\n"
W1 = f"witness X1 {WITNESSES['X1']}\n"
W2 = f"witness X2 {WITNESSES['X2']}\n"


@pytest.mark.parametrize(
    ("text", "where", "reason"),
    [
        ("", "policy", "no quorum line"),
        (LOG, "policy", "no quorum line"),
        ("quorum none\nquorum none\n", "policy line 2", "second quorum"),
        ("quorum X1\n" + W1, "policy line 1", "'X1' is not defined above"),
        (LOG + LOG + "quorum none\n", "policy line 2", "repeats a log's key"),
        (W1 + W1.replace("X1", "X9", 1) + "quorum none\n", "policy line 2", "repeats a witness"),
        (W1 + W2.replace("X2", "X1", 1), "policy line 2", "the name 'X1' is taken"),
        (W1.replace("X1", "none", 1), "policy line 1", "the name 'none' is taken"),
        (W1 + "group X1 any X1\n", "policy line 2", "the name 'X1' is taken"),
        (W1 + "group g any X2\n", "policy line 2", "'X2' is not defined above"),
        (W1 + "group g any g\n", "policy line 2", "'g' is not defined above"),
        (W1 + "group g any X1 X1\n", "policy line 2", "'X1' is in a group already"),
        (W1 + "group g any X1\ngroup h any X1\n", "policy line 3", "in a group already"),
        (W1 + "group g any none\n", "policy line 2", "'none' is not defined above"),
        (W1 + "group g any\n", "policy line 2", "without members"),
        (W1 + "group g 2 X1\n", "policy line 2", "'2' is not any, all or 1..n"),
        (W1 + "group g 0 X1\n", "policy line 2", "'0' is not any, all or 1..n"),
        (W1 + "group g 01 X1\n", "policy line 2", "'01' is not any, all or 1..n"),
        (W1 + "group g ١ X1\n", "policy line 2", "is not any, all or 1..n"),
        (LOG.replace("log", "witness x"), "policy line 1", "its key has type 0x01, not 0x04"),
        (W1.replace("witness X1", "log"), "policy line 1", "its key has type 0x04, not 0x01"),
        ("log alice\n", "vkey", "is not name+id+key"),
        ("hello\n", "policy line 1", "is no log, witness, group or quorum line"),
        ("quorum none none\n", "policy line 1", "is no log, witness, group or quorum line"),
        ("quorum none", "policy", "does not end in LF"),
        ("quorum none\r\n", "policy", "control character"),
        ("quorum none\n\x7f", "policy", "control character"),
    ],
)
def test_each_malformed_policy_is_refused_with_its_line(text: str, where: str, reason: str) -> None:
    with pytest.raises(MalformedInput) as caught:
        parse_policy(text.encode())
    assert caught.value.where == where
    assert reason in caught.value.reason


def test_names_are_octets_and_need_not_be_unicode() -> None:
    kelvin = W1.replace("X1", "\u212a", 1) + W2.replace("X2", "K", 1)
    data = kelvin.encode() + b"group \xff\xfe any K\nquorum \xff\xfe\n"
    policy = parse_policy(data)
    assert [witness.name for witness in policy.witnesses] == ["\u212a", "K"]
    assert format_policy(policy).endswith(b"group \xff\xfe any K\nquorum \xff\xfe\n")
    assert parse_policy(format_policy(policy)) == policy


@given(st.binary(max_size=200))
def test_arbitrary_bytes_meet_only_typed_refusals(data: bytes) -> None:
    for candidate in (data, (LOG + W1).encode() + data + b"\nquorum X1\n"):
        try:
            policy = parse_policy(candidate)
        except MalformedInput:
            continue
        assert parse_policy(format_policy(policy)) == policy

from __future__ import annotations

import dataclasses
import inspect
import json
import re

import pytest
from msgspec import Struct, structs
from nacl.exceptions import BadSignatureError

from ledger.copies import bundle
from ledger.entries.entry import Body
from ledger.rules import experiment_state, state
from privacy.filters import Spend
from privacy.periods import Periods
from tests.docs import example, foreign, pages

PAGE = "docs/formats.md"


def test_the_worked_example_is_what_the_code_makes() -> None:
    assert pages.examples(PAGE) == {k: v.rstrip("\n") for k, v in example.blocks().items()}


def test_the_worked_example_verifies_from_the_page_alone() -> None:
    shown = pages.examples(PAGE)
    bodies = [shown[name].encode() for name in ("genesis-body", "entry-1-body", "entry-2-body")]
    names = ("genesis-signature", "entry-1-signature", "entry-2-signature")
    signatures = [shown[name] for name in names]
    parsed = [json.loads(body) for body in bodies]
    assert [foreign.canonical(value) for value in parsed] == bodies

    genesis, joined, ready = parsed
    federation = foreign.sha256(bodies[0])
    assert federation == shown["federation-id"] == joined["federation"] == ready["federation"]
    assert genesis["federation"] == genesis["prev"] == joined["prev"] == foreign.ZEROS
    keys = [p["op"]["keys"]["entry"]["public"] for p in (genesis, joined, joined)]
    for value, body, signature, public in zip(parsed, bodies, signatures, keys, strict=True):
        assert value["key"] == foreign.key_id("ed25519", public)
        assert foreign.signature_holds(public, "entry", body, signature)

    invitation = genesis["op"]["invitations"][0]["key"]["public"]
    claim = {"federation": federation, "handle": joined["author"], "keys": joined["op"]["keys"]}
    assert foreign.canonical(claim).decode() == shown["claim"]
    assert joined["op"]["invitation"] == foreign.key_id("ed25519", invitation)
    proof = joined["op"]["proof"]
    assert foreign.signature_holds(invitation, "invitation", shown["claim"].encode(), proof)

    hashes = [foreign.entry_hash(b, s) for b, s in zip(bodies, signatures, strict=True)]
    assert hashes == shown["leaf-hashes"].split("\n")
    assert (ready["prev"], ready["seq"]) == (hashes[1], 1)
    assert ready["seen"] == {"root": foreign.root(hashes[:1]), "size": 1}

    log_key = genesis["op"]["log_key"]["public"]
    witness = joined["op"]["keys"]["witness"]["public"]
    origin, size, root, time_s = foreign.check_note(shown["checkpoint"] + "\n", log_key, witness)
    assert (origin, size, time_s) == (f"consilium/{federation}", 3, 1767225660)
    assert root == foreign.root(hashes)

    assert foreign.sha256(shown["state"].encode()) == shown["state-digest"]
    assert foreign.canonical(json.loads(shown["state"])).decode() == shown["state"]
    assert foreign.int64_vector(bytes.fromhex(shown["update"])) == [1, -1, 2**20]
    tensors = foreign.model_tensors(bytes.fromhex(shown["model"]))
    assert tensors == {"0.weight": [0.5, -0.25], "0.bias": [1.0]}

    final = (shown["checkpoint"] + "\n").encode()
    signed = b"".join(final.splitlines(keepends=True)[:-1])
    sections = [(b"ENTR", foreign.leaf(b, s)) for b, s in zip(bodies, signatures, strict=True)]
    made = foreign.write_bundle([*sections, (b"SIGN", signed), (b"FINA", final)])
    assert shown["bundle"] == f"{len(made)} bytes, trailer {made[-32:].hex()}"


def test_the_page_s_verifier_refuses_a_changed_byte() -> None:
    shown = pages.examples(PAGE)
    public = json.loads(shown["genesis-body"])["op"]["keys"]["entry"]["public"]
    changed = shown["genesis-body"].replace('"example"', '"exampel"').encode()
    with pytest.raises(BadSignatureError):
        foreign.signature_holds(public, "entry", changed, shown["genesis-signature"])


def test_every_record_of_the_state_is_on_the_page_and_no_other() -> None:
    found = {}
    for line in pages.section(PAGE, "7. State").splitlines():
        if re.match(r"- `[A-Z]\w+`:", line):
            name, *fields = pages.code_in(line)
            found[name] = fields
    records = {
        name: [field.name for field in structs.fields(kind)]
        for module in (state, experiment_state)
        for name, kind in vars(module).items()
        if inspect.isclass(kind) and issubclass(kind, Struct) and kind.__module__ == module.__name__
    }
    for sums in (Spend, Periods):
        records[sums.__name__] = [field.name for field in dataclasses.fields(sums)]
    assert found == records


def test_every_field_of_an_entry_is_on_the_page_and_no_other() -> None:
    table = pages.rows(pages.section(PAGE, "4. Entry and leaf"))
    assert sorted(row[0] for row in table) == list(Body.__struct_fields__)


def test_every_section_of_a_bundle_is_on_the_page_in_its_order() -> None:
    table = pages.rows(pages.section(PAGE, "12. Bundle"))
    assert [row[0].encode() for row in table] == list(bundle._ORDER)

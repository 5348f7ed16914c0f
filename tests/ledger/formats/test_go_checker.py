"""Go's x/mod, written by others in another language, judges our notes and proofs as we do."""

from __future__ import annotations

import base64
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from ledger.errors import Refused
from ledger.formats.checkpoint import Checkpoint, cosign, sign_checkpoint
from ledger.formats.keys import SigningKey
from ledger.formats.merkle import leaf_hash, verify_consistency, verify_inclusion
from ledger.formats.merkle_tree import MerkleTree
from ledger.formats.note import (
    COSIGNATURE_V1,
    Note,
    NoteSignature,
    VerifierKey,
    parse_note,
    verify_note,
)
from tests.checkers import go_program
from tests.ledger.formats import worked

SOURCE = Path(__file__).parent / "go" / "main.go"

Judge = Callable[[dict[str, Any]], dict[str, list[bool]]]


@pytest.fixture(scope="module")
def judge() -> Judge:
    program = go_program(SOURCE)

    def run(document: dict[str, Any]) -> dict[str, list[bool]]:
        data = orjson.dumps(document, default=lambda raw: base64.b64encode(raw).decode())
        done = subprocess.run([str(program)], input=data, capture_output=True, check=True)
        verdicts: dict[str, list[bool]] = orjson.loads(done.stdout)
        return verdicts

    return run


def accepts(check: Callable[..., object], *arguments: Any, **keywords: Any) -> bool:
    try:
        check(*arguments, **keywords)
    except Refused:
        return False
    return True


def damaged(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def test_go_judges_every_inclusion_proof_as_we_do(judge: Judge) -> None:
    rng = random.Random(1)
    tree = MerkleTree.from_leaves(leaf_hash(b"%d" % at) for at in range(70))
    cases = []
    for size in range(1, 71):
        for index in sorted({0, size // 3, size - 1}):
            good = {
                "index": index,
                "size": size,
                "leaf": tree.leaf(index),
                "root": tree.root(size),
                "proof": list(tree.inclusion(index, size)),
            }
            cases += [
                good,
                good | {"index": rng.randrange(size + 1)},
                good | {"leaf": damaged(rng, tree.leaf(index))},
                good | {"proof": [*tree.inclusion(index, size), bytes(32)]},
                good | {"proof": list(tree.inclusion(index, size))[1:]},
            ]
    ours = [accepts(verify_inclusion, **case) for case in cases]
    assert judge({"inclusion": cases})["inclusion"] == ours
    assert 0 < sum(ours) < len(ours)


def test_go_judges_every_consistency_proof_as_we_do(judge: Judge) -> None:
    rng = random.Random(2)
    tree = MerkleTree.from_leaves(leaf_hash(b"%d" % at) for at in range(40))
    ours, cases = [], []
    for new in range(1, 41):
        for old in sorted({1, (new + 1) // 2, new}):
            proof = list(tree.consistency(old, new))
            for old_root, nodes in (
                (tree.root(old), proof),
                (damaged(rng, tree.root(old)), proof),
                (tree.root(old), proof[:-1]),
                (tree.root(old), [*proof, bytes(32)]),
            ):
                given = {"old_root": old_root, "new_root": tree.root(new), "proof": nodes}
                ours.append(accepts(verify_consistency, old_size=old, new_size=new, **given))
                cases.append(
                    {
                        "OldSize": old,
                        "NewSize": new,
                        "OldRoot": old_root,
                        "NewRoot": tree.root(new),
                        "Proof": nodes,
                    }
                )
    assert judge({"consistency": cases})["consistency"] == ours
    assert 0 < sum(ours) < len(ours)


def test_go_opens_our_cosigned_checkpoints_and_refuses_each_damage(judge: Judge) -> None:
    rng = random.Random(3)
    bare = sign_checkpoint(worked.LOG_KEY, Checkpoint(worked.ORIGIN, 7, worked.tree().root(7)))
    keys = [SigningKey.from_seed(bytes([at]) * 32) for at in range(1, 5)]
    names = [f"{worked.ORIGIN}/witness/node-{at}" for at in range(1, 5)]
    note = bare + b"".join(
        cosign(bare, key, name, 1000 + at)
        for at, (key, name) in enumerate(zip(keys, names, strict=True))
    )
    known = (
        worked.LOG,
        *(
            VerifierKey(name, key.public, COSIGNATURE_V1)
            for key, name in zip(keys, names, strict=True)
        ),
    )
    notes = [note]
    opened = parse_note(note)
    for at, line in enumerate(opened.signatures):
        false = NoteSignature(line.name, line.key_id, damaged(rng, line.payload))
        lines = (*opened.signatures[:at], false, *opened.signatures[at + 1 :])
        notes.append(Note(opened.text, lines).encode())
    notes += [note.replace(b"\n7\n", b"\n8\n"), note[:-1], note.replace(b"\n\n", b"\n"), bare]
    vkeys = [str(key) for key in known]
    asked = [{"Vkeys": vkeys, "Note": data, "Signatures": len(known)} for data in notes]
    ours = []
    for data in notes:
        try:
            ours.append(len(verify_note(data, known)[1]) == len(known))
        except Refused:
            ours.append(False)
    assert judge({"notes": asked})["notes"] == ours
    assert ours == [True] + [False] * (len(notes) - 1)


def test_go_agrees_on_every_published_merkle_case_with_real_hashes(
    judge: Judge, vectors: Path
) -> None:
    """Go holds sizes in int64 and refuses those of 2^63 and more on reading; we refuse them too."""

    def raw(text: str | None) -> bytes:
        return base64.b64decode(text or "")

    inclusion, consistency = (
        [
            case
            for case in orjson.loads((vectors / "rfc6962" / f"{name}.json").read_bytes())
            if all(value < 2**63 for value in case.values() if type(value) is int)
        ]
        for name in ("inclusion", "consistency")
    )
    document = {
        "inclusion": [
            {
                "Index": case["leafIdx"],
                "Size": case["treeSize"],
                "Leaf": raw(case["leafHash"]),
                "Root": raw(case["root"]),
                "Proof": [raw(node) for node in case["proof"] or ()],
            }
            for case in inclusion
        ],
        "consistency": [
            {
                "OldSize": case["size1"],
                "NewSize": case["size2"],
                "OldRoot": raw(case["root1"]),
                "NewRoot": raw(case["root2"]),
                "Proof": [raw(node) for node in case["proof"] or ()],
            }
            for case in consistency
        ],
    }
    verdicts = judge(document)
    for case, verdict in zip(document["inclusion"], verdicts["inclusion"], strict=True):
        ours = accepts(verify_inclusion, **{name.lower(): case[name] for name in case})
        assert verdict == ours, case
    for case, verdict in zip(document["consistency"], verdicts["consistency"], strict=True):
        ours = accepts(
            verify_consistency,
            old_size=case["OldSize"],
            new_size=case["NewSize"],
            old_root=case["OldRoot"],
            new_root=case["NewRoot"],
            proof=case["Proof"],
        )
        assert verdict == ours, case

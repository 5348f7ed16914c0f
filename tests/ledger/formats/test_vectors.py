"""Every published vector is judged by a test as its source says, or excepted by name with the reason.

This is the one place that lists them. A file that is not listed fails; so does a listed one that is gone,
a test that does not exist, and an exception that is none.
"""

from __future__ import annotations

import ast
import base64
from pathlib import Path

import orjson
import pytest

from ledger.formats.merkle import HASH_BYTES

HERE = Path(__file__).parent

SUMDB = ("test_checkpoint::test_every_real_checkpoint_of_the_go_checksum_database_verifies",)
REKOR = ("test_checkpoint::test_real_rekor_checkpoints_verify_with_their_log_and_witnesses",)
ED25519 = (
    "test_keys::test_of_the_edge_case_signatures_exactly_libsodiums_are_accepted",
    "test_keys::test_the_direct_call_decides_as_pynacl_s_own_verifier_does",
)
SEQUENCE = (
    "test_witness::test_published_witness_sequences_are_answered_as_published",
    "../../audit/test_witness::test_published_sequences_are_answered_over_http_as_published",
)
GO_MERKLE = "test_go_checker::test_go_agrees_on_every_published_merkle_case_with_real_hashes"

CONSUMED: dict[str, tuple[str, ...]] = {
    "ed25519/cctv_ed25519vectors.json": ED25519,
    "fork/sumdb_fork.json": (
        "test_witness::test_the_published_fork_is_signed_twice_and_linked_by_no_proof",
    ),
    "note/bad_vkeys.txt": ("test_note::test_go_bad_verifier_keys_are_refused",),
    "note/example_c2sp.note": (
        "test_note::test_the_specifications_example_parses_and_its_key_is_as_written",
    ),
    "note/example_c2sp.vkey": (
        "test_note::test_the_specifications_example_parses_and_its_key_is_as_written",
    ),
    "note/go_badMsgs_excerpt.txt": ("test_note::test_go_bad_messages_are_refused",),
    "note/peter.skey": ("test_note::test_go_notes_verify_and_sign_byte_for_byte",),
    "note/peter_enoch.note": ("test_note::test_go_notes_verify_and_sign_byte_for_byte",),
    "note/vkeys.txt": ("test_note::test_go_notes_verify_and_sign_byte_for_byte",),
    "rekor_v2/a.dsse.staging-rekor-v2.txt.sigstore.json": REKOR,
    "rekor_v2/prod_trusted_root.json": (
        "test_checkpoint::test_the_production_logs_key_is_unknown_to_a_staging_checkpoint",
    ),
    "rekor_v2/staging-rekor-v2.txt.sigstore.json": REKOR,
    "rekor_v2/staging_trusted_root.json": REKOR,
    "rekor_v2/witness_vkeys.txt": REKOR,
    "rfc6962/consistency.json": (
        "test_merkle::test_every_published_consistency_case_but_one_is_judged_as_published",
        GO_MERKLE,
    ),
    "rfc6962/hashes.json": ("test_merkle::test_the_published_hashes_agree",),
    "rfc6962/inclusion.json": (
        "test_merkle::test_every_published_inclusion_case_is_judged_as_published",
        GO_MERKLE,
    ),
    "sumdb/size-1514086.checkpoint": SUMDB,
    "sumdb/size-20852163.checkpoint": SUMDB,
    "sumdb/size-30055305.checkpoint": SUMDB,
    "sumdb/size-35225469.checkpoint": SUMDB,
    "sumdb/size-59045944.checkpoint": SUMDB,
    "sumdb/size-63096908.checkpoint": SUMDB,
    "sumdb/size-6476701.checkpoint": SUMDB,
    "sumdb/vkey.txt": SUMDB,
    "tlog_proof/tessera-v1.0.0.leaf": (
        "test_proof::test_a_real_proof_of_the_go_checksum_database_verifies",
    ),
    "tlog_proof/tessera-v1.0.0.tlog-proof": (
        "test_proof::test_a_real_proof_of_the_go_checksum_database_verifies",
    ),
    "witness/litewitness_add_checkpoint.json": SEQUENCE,
    "witness/sigsum_cosig.json": (
        "test_checkpoint::test_sigsums_deterministic_cosignature_is_reproduced",
    ),
    "witness/sunlight_add_checkpoint.json": SEQUENCE,
    "witness/tdev_monkeys.json": (
        "test_witness::test_the_published_monkeys_log_grows_from_five_to_eight",
    ),
}
"""File -> the tests that judge all of it, from this folder on."""

JCS = "our JSON profile has no floats and no text outside ASCII, where RFC 8785 differs"
WITHOUT_CONSUMER: dict[str, str] = {
    "SOURCES.json": "says where the vectors come from",
    "dsse/hello.json": "entries are signed over a typed prefix of our own, not in DSSE envelopes",
    "rfc6962/subtreeconsistency.json": "subtrees are for mirrors; our full copies need none",
    "rfc6962/subtreeinclusion.json": "subtrees are for mirrors; our full copies need none",
} | {
    f"jcs/{kind}/{name}.{suffix}": JCS
    for kind, suffix in (("input", "json"), ("output", "json"), ("outhex", "txt"))
    for name in ("arrays", "french", "structures", "unicode", "values", "weird")
}

SPELLING = (
    "its false signature ends in base64 that spells unused bits; Go's decoder reads on and finds it false "
    "(403), ours refuses the spelling before (400). Spelt canonically it gets 403 here, too"
)
JUDGED_OTHERWISE: dict[tuple[str, str], str] = {
    (
        "rfc6962/consistency.json",
        "testdata/consistency/additional/sizes-are-equal-one-and-proof-is-empty.json",
    ): "accepted by its source; its roots have 12 bytes, and no SHA-256 tree has such a root",
    ("witness/sunlight_add_checkpoint.json", "step 1"): SPELLING,
    ("witness/litewitness_add_checkpoint.json", "step 1"): SPELLING,
    ("witness/litewitness_add_checkpoint.json", "unknown log"): (
        "403 in that release of 2025; tlog-witness v1.0.0 says 404, which the file has beside it as "
        "status_v1.0, and so do we"
    ),
}
"""(file, case) -> why this one case of a consumed file ends otherwise than its source says."""


def test_every_file_is_listed_once_and_every_listed_file_is_there(vectors: Path) -> None:
    present = {str(path.relative_to(vectors)) for path in vectors.rglob("*") if path.is_file()}
    assert not CONSUMED.keys() & WITHOUT_CONSUMER.keys()
    assert present == CONSUMED.keys() | WITHOUT_CONSUMER.keys()
    assert all(WITHOUT_CONSUMER.values())


@pytest.mark.parametrize("name", sorted(CONSUMED))
def test_the_tests_that_judge_a_vector_exist_and_name_it(name: str) -> None:
    for place in CONSUMED[name]:
        module, function = place.split("::")
        text = (HERE / f"{module}.py").read_text(encoding="utf-8")
        defined = {
            node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)
        }
        assert function in defined, place
        file = Path(name).name
        known = "size-*.checkpoint" if file.startswith("size-") else file
        # The two files of Merkle cases are read by a loop over their stems.
        assert known in text or f'"{Path(name).stem}"' in text, place


def test_each_case_that_is_judged_otherwise_is_what_its_reason_says(vectors: Path) -> None:
    cases = orjson.loads((vectors / "rfc6962" / "consistency.json").read_bytes())
    (file, case), *sequences, (litewitness, _) = JUDGED_OTHERWISE
    short = [
        each["file"]
        for each in cases
        if not each["wantErr"] and len(base64.b64decode(each["root1"])) != HASH_BYTES
    ]
    assert (file, short) == ("rfc6962/consistency.json", [case])
    for file, case in sequences:
        steps = orjson.loads((vectors / file).read_bytes())["steps"]
        odd = [f"step {at}" for at, step in enumerate(steps) if "WVrx6gx=" in step["body"]]
        assert odd == [case]
    steps = orjson.loads((vectors / litewitness).read_bytes())["steps"]
    newer = {(s["status"], s["status_v1.0"]) for s in steps if "status_v1.0" in s}
    assert newer == {(403, 404)}

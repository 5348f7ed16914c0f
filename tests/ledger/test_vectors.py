"""Every published vector has a test, or a reason why nothing here consumes it."""

from __future__ import annotations

from pathlib import Path

CONSUMED = {
    "ed25519/cctv_ed25519vectors.json": "test_keys",
    "fork/sumdb_fork.json": "test_witness",
    "note/bad_vkeys.txt": "test_note",
    "note/example_c2sp.note": "test_note",
    "note/example_c2sp.vkey": "test_note",
    "note/go_badMsgs_excerpt.txt": "test_note",
    "note/peter.skey": "test_note",
    "note/peter_enoch.note": "test_note",
    "note/vkeys.txt": "test_note",
    "rekor_v2/a.dsse.staging-rekor-v2.txt.sigstore.json": "test_checkpoint",
    "rekor_v2/prod_trusted_root.json": "test_checkpoint",
    "rekor_v2/staging-rekor-v2.txt.sigstore.json": "test_checkpoint",
    "rekor_v2/staging_trusted_root.json": "test_checkpoint",
    "rekor_v2/witness_vkeys.txt": "test_checkpoint",
    "rfc6962/consistency.json": "test_merkle",
    "rfc6962/hashes.json": "test_merkle",
    "rfc6962/inclusion.json": "test_merkle",
    "tlog_proof/tessera-v1.0.0.leaf": "test_proof",
    "tlog_proof/tessera-v1.0.0.tlog-proof": "test_proof",
    "witness/litewitness_add_checkpoint.json": "test_witness",
    "witness/sigsum_cosig.json": "test_checkpoint",
    "witness/sunlight_add_checkpoint.json": "test_witness",
    "witness/tdev_monkeys.json": "test_witness",
}

WITHOUT_CONSUMER = {
    "dsse/": "entries are signed over a typed prefix of our own, not in DSSE envelopes",
    "jcs/": "our JSON profile has no floats and no text outside ASCII, where RFC 8785 differs",
    "rfc6962/subtreeconsistency.json": "subtrees are for mirrors; full copies need none",
    "rfc6962/subtreeinclusion.json": "subtrees are for mirrors; full copies need none",
    "SOURCES.json": "says where the vectors come from",
}


def test_every_vector_is_consumed_or_excepted_by_name(vectors: Path) -> None:
    present = {str(path.relative_to(vectors)) for path in vectors.rglob("*") if path.is_file()}
    checkpoints = {name for name in present if name.startswith("sumdb/")}
    assert len(checkpoints) == 8  # test_checkpoint reads the folder: seven and their key
    excepted = {name for name in present if name.startswith(tuple(WITHOUT_CONSUMER))}
    assert present - checkpoints - excepted == CONSUMED.keys()


def test_each_consumer_names_its_vectors() -> None:
    here = Path(__file__).parent
    for name, module in CONSUMED.items():
        assert Path(name).name.split(".")[0] in (here / f"{module}.py").read_text(), name

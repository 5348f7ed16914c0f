"""Commands that write files say with ``--json`` what they wrote, as one document and nothing beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.consilium.conftest import Finished, Run

WRITING = {
    "ledger export": {"entries", "blobs", "absent_blobs", "out"},
    "ledger proof 7": {"index", "size", "signatures", "out"},
    "ledger leaf 7": {"bytes", "leaf_hash", "out"},
    "ledger policy": {"policy", "out"},
    "audit events": {"ledger", "out"},
    "audit report budget": {"ledger", "out"},
    "audit report data-use --dataset basel-heart": {"ledger", "out"},
    "audit report all": {"ledger", "html", "json"},
}


@pytest.mark.parametrize("words", WRITING)
def test_what_was_written_is_told_as_one_document(
    run: Run, finished: Finished, tmp_path: Path, words: str
) -> None:
    out = tmp_path / ("reports" if words.endswith("all") else "written.json")
    said = run(*words.split(), "--at", finished.home, "--out", out, "--json")
    assert said.code == 0, said.err
    document = json.loads(said.out)
    assert set(document) == WRITING[words]
    assert out.exists()
    assert document.get("out", str(out)) == str(out)

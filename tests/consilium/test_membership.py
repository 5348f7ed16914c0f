"""Was this patient in that dataset? From the hospital's command to a stranger's judgement."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from node.register.private import PRIVATE
from tests.consilium.conftest import Live, Run
from tests.consilium.test_bad_input import SCHEMA, rows
from tests.consilium.test_federation_on_loopback import join

pytestmark = pytest.mark.process


def test_a_hospital_proves_and_a_stranger_judges_until_the_secret_is_erased(
    run: Run, live: Live, tmp_path: Path
) -> None:
    basel, secret = tmp_path / "basel", ("--passphrase-file", live.passphrase)
    join(run, live, "basel", basel)
    data, schema = tmp_path / "data.csv", tmp_path / "schema.yaml"
    data.write_text(rows())
    schema.write_text(SCHEMA)
    mine = ("--home", basel, *secret)
    register = ("dataset", "register", "--data", data, "--schema", schema, *mine)
    assert run(*register, "--epsilon", 8).code == 0

    there, gone = tmp_path / "there.json", tmp_path / "gone.json"
    said = run("dataset", "prove", "basel-heart", "--unit", "", "--out", there, *mine)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "no proof can hold this: unit" in said.err
    said = run("dataset", "prove", "basel-heart", "--unit", 7, "--open-rows", "--out", there, *mine)
    assert said.code == 0, said.err
    assert "7 was in basel-heart" in said.out
    assert stat.S_IMODE(there.stat().st_mode) == 0o600
    assert run("dataset", "prove", "basel-heart", "--unit", 40, "--out", gone, *mine).code == 0

    judged = run("audit", "membership", there, "--at", basel, "--json")
    assert judged.code == 0, judged.err
    found = json.loads(judged.out)
    assert found["present"] is True
    assert found["rows"] == ['[37.0,207.0,"typical","1"]']
    assert "was not in basel-heart as entry" in run("audit", "membership", gone, "--at", basel).out

    lie = json.loads(gone.read_bytes()) | {"unit": "7"}
    gone.write_text(json.dumps(lie, sort_keys=True, separators=(",", ":")))
    refuted = run("audit", "membership", gone, "--at", basel)
    assert refuted.code == 1
    assert "REFUTED" in refuted.out

    data.write_text(rows() + "61,300,typical,1\n")
    said = run("dataset", "prove", "basel-heart", "--unit", 7, "--out", there, *mine)
    assert said.code == 2
    assert "put that file back" in said.err

    salt = bytes.fromhex(json.loads(there.read_bytes())["salt"])
    register_file = basel / "node" / PRIVATE
    held = [register_file, register_file.with_name(f"{PRIVATE}-wal")]
    assert any(salt in path.read_bytes() for path in held if path.exists())
    assert run("dataset", "forget-secret", "basel-heart", "--yes", *mine).code == 0
    assert not any(salt in path.read_bytes() for path in held if path.exists())
    data.write_text(rows())
    said = run("dataset", "prove", "basel-heart", "--unit", 7, "--out", gone, *mine)
    assert said.code == 2
    assert "was erased" in said.err
    assert run("audit", "membership", there, "--at", basel).code == 0, "an older proof stays valid"
    assert run("audit", "verify", basel).code == 0

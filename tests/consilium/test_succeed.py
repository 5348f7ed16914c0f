"""Succeeding a log from the command line, file by file, as people hand them on."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.consilium.conftest import Live, Run
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.process


def until_all_final(run: Run, home: Path, secret: tuple[object, ...]) -> None:
    """Follow until a final checkpoint covers what was followed; nobody waits for one, so it comes at its interval."""
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        said = run("federation", "show", "--home", home, *secret, "--json")
        assert said.code == 0, said.err
        told = json.loads(said.out)
        if told["final_entries"] == told["entries"]:
            return
        time.sleep(0.1)
    pytest.fail("the log did not become final")


def test_a_log_is_proposed_endorsed_founded_and_accepted(
    run: Run, live: Live, tmp_path: Path
) -> None:
    secret = ("--passphrase-file", live.passphrase)
    for organisation in ("basel", "bern"):
        home = tmp_path / organisation
        said = run("member", "join", live.invitation(organisation), "--home", home, *secret)
        assert said.code == 0, said.err
        until_all_final(run, home, secret)
    bundle = tmp_path / "old.consilium"
    said = run("ledger", "export", "--home", tmp_path / "bern", "--out", bundle, *secret)
    assert said.code == 0, said.err
    hub = tmp_path / "newhub"
    said = run(
        "federation", "succeed", "propose", "--old", bundle, "--organisation", "university",
        "--url", "http://127.0.0.1:1", "--home", hub, *secret, "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    proposal = json.loads(said.out)["proposal"]
    said = run("federation", "succeed", "found", "--endorsement", proposal, "--home", hub, *secret)
    assert said.code == 2
    assert "EndorsementFile" in said.err
    files = []
    for organisation in ("basel", "bern"):
        out = tmp_path / f"{organisation}.endorsement"
        said = run(
            "federation", "succeed", "endorse", proposal, "--old", bundle, "--yes",
            "--home", tmp_path / organisation, "--out", out, *secret, "--json",
        )  # fmt: skip
        assert said.code == 0, said.err
        assert json.loads(said.out)["new_organisation"] == "university"
        files += ["--endorsement", out]
    said = run("federation", "succeed", "found", *files, "--home", hub, *secret, "--json")
    assert said.code == 0, said.err
    succession = json.loads(said.out)["succession"]
    said = run(
        "federation", "succeed", "accept", succession, "--old", bundle, "--yes",
        "--home", tmp_path / "basel", *secret, "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    accepted = json.loads(said.out)["accepted"]
    assert len(accepted) == 2, "node and steward"
    again = run("ledger", "list", "--at", hub, "--json")
    kinds = [row["operation"] for row in json.loads(again.out)]
    assert kinds[0] == "federation.succeeded"
    assert set(kinds[1:]) == {"federation.carried"}
    said = run("audit", "verify", hub, "--predecessor", bundle, "--json")
    assert said.code == 0, said.out
    assert "it takes over from federation" in said.out

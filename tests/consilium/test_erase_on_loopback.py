"""Cards that are forgotten and changes that are taken back, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ledger.exchange.home import BLOBS
from tests.consilium.conftest import Live, Run
from tests.consilium.test_federation_on_loopback import join

pytestmark = pytest.mark.process


def test_a_card_is_erased_everywhere_and_a_change_is_taken_back(
    run: Run, live: Live, tmp_path: Path
) -> None:
    secret = ("--passphrase-file", live.passphrase)
    basel, bern = tmp_path / "basel", tmp_path / "bern"
    card = tmp_path / "card.yaml"
    card.write_text("consilium: 1\nkind: member\nname: Anna Muster\n")
    said = run("member", "join", live.invitation("basel"), "--home", basel, "--card", card, *secret)
    assert said.code == 0, said.err
    join(run, live, "bern", bern)

    def names(folder: Path) -> list[str]:
        """Cards with the name in a store of blobs."""
        return [
            path.name
            for path in folder.rglob("*")
            if path.is_file() and b"Anna Muster" in path.read_bytes()
        ]

    steward = basel / "steward" / BLOBS
    assert names(live.home / "blobs")
    assert names(steward)
    refused = run("member", "erase-card", "basel-steward", "--yes", "--home", bern, *secret)
    assert refused.code == 4
    assert "it belongs to another hospital" in refused.err
    assert names(live.home / "blobs")
    said = run("member", "erase-card", "--yes", "--home", basel / "steward", *secret)
    assert said.code == 0, said.err
    assert "is erased by entry" in said.out
    assert not names(live.home / "blobs")
    assert not names(steward)
    listed = run("member", "list", "--home", basel / "node", *secret)
    assert listed.code == 0
    assert not names(basel / "node" / BLOBS)
    again = run("member", "erase-card", "--yes", "--home", basel / "steward", *secret)
    assert again.code == 2
    assert "or it was erased" in again.err

    asking = ("federation", "policy", "--set", "endorsements=3", "--json", "--home", basel)
    proposed = json.loads(run(*asking, *secret).out)
    change = proposed["change"]
    assert (proposed["in_force"], proposed["missing"]) == (False, 1)
    foreign = run("federation", "take-back", change[:8], "--home", bern, *secret)
    assert foreign.code == 4
    back = run("federation", "take-back", change[:8], "--home", basel, *secret)
    assert f"change {change[:8]} is taken back by entry" in back.out
    left = run("federation", "changes", "--json", "--home", bern, *secret)
    assert json.loads(left.out) == []

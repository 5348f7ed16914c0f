"""A promise that renews, from the hospital's command to a verified log: declared once, before use, for ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.consilium.conftest import Live, Run
from tests.consilium.test_bad_input import SCHEMA, rows
from tests.consilium.test_federation_on_loopback import join

pytestmark = pytest.mark.process


def test_a_promise_that_renews_is_declared_with_the_first_dataset_and_shown_everywhere(
    run: Run, live: Live, tmp_path: Path
) -> None:
    basel, secret = tmp_path / "basel", ("--passphrase-file", live.passphrase)
    join(run, live, "basel", basel)
    data, schema, other = tmp_path / "data.csv", tmp_path / "schema.yaml", tmp_path / "lab.yaml"
    data.write_text(rows())
    schema.write_text(SCHEMA)
    other.write_text(SCHEMA.replace("basel-heart", "basel-lab"))
    mine = ("--home", basel, *secret)
    register = ("dataset", "register", "--data", data, "--schema", schema, *mine)
    said = run(*register, "--epsilon", 1, "--refresh-days", 29)
    assert said.code == 2
    assert "30" in said.err
    said = run(*register, "--epsilon", 1, "--refresh-days", 365, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["refresh_days"] == 365

    again = ("dataset", "register", "--data", data, "--schema", other, *mine)
    for days in (30, 400):  # its patients have their promise
        refused = run(*again, "--refresh-days", days)
        assert refused.code == 2
        assert "for each 365 days" in refused.err
    said = run(*again, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["refresh_days"] == 365

    said = run("dataset", "budget", "basel-lab", "--at", basel, "--json")
    assert said.code == 0, said.err
    for cell in json.loads(said.out)["cells"]:
        refresh = cell["refresh"]
        assert (refresh["days"], refresh["period"], refresh["periods_used"]) == (365, 0, 0)
    assert (
        "the promise holds for each 365 days"
        in run("dataset", "budget", "basel-heart", "--at", basel).out
    )

    bundle = tmp_path / "log.consilium"
    said = run("ledger", "export", "--home", basel, "--out", bundle, *secret)
    assert said.code == 0, said.err
    said = run("audit", "verify", bundle)
    assert said.code == 0, said.out

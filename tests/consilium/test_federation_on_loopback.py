"""Joining, inviting, approving and refusing through the command line, at a real coordinator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from consilium.actions.homes import MOST_BLOBS, find_home
from consilium.client import Client
from consilium.errors import InputError
from consilium.experiment import Experiment
from ledger.entries.author import Author
from ledger.errors import CoordinatorUnreachable, WrongPassphrase
from tests.consilium.conftest import Live, Run
from tests.consilium.test_bad_input import SCHEMA, SPEC, rows

pytestmark = pytest.mark.process


def join(run: Run, live: Live, organisation: str, home: Path) -> None:
    """Take the seats of a founders' invitation."""
    secret = ("--passphrase-file", live.passphrase)
    said = run("member", "join", live.invitation(organisation), "--home", home, *secret)
    assert said.code == 0, said.err


def test_one_invitation_makes_a_node_and_a_steward_with_keys_of_their_own(
    run: Run, live: Live, tmp_path: Path
) -> None:
    home = tmp_path / "basel"
    join(run, live, "basel", home)
    assert find_home(home, ("node",)).path == home / "node"
    assert find_home(home, ("steward",)).config.handle == "basel-steward"
    keys = [(home / role / "keyring.json").read_bytes() for role in ("node", "steward")]
    assert keys[0] != keys[1]
    assert find_home(home).config.role == "steward"
    assert find_home(home, MOST_BLOBS).config.role == "node"
    with pytest.raises(InputError, match=r"needs a researcher, but .* is the home of basel-node"):
        find_home(home, ("researcher",))


def test_joining_again_changes_nothing_and_a_lost_answer_is_made_good(
    run: Run, live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, secret = tmp_path / "ada", ("--passphrase-file", live.passphrase)
    honest = Author.submit

    def lost(self: Author, op: object) -> object:
        honest(self, op)  # type: ignore[arg-type]
        raise CoordinatorUnreachable(live.url, "the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(Author, "submit", lost)
        assert (
            run("member", "join", live.invitation("institute"), "--home", home, *secret).code == 3
        )
    for _ in range(2):
        said = run("member", "join", live.invitation("institute"), "--home", home, *secret)
        assert said.code == 0, said.err
        assert "ada joined as researcher of institute (entry 1)" in said.out
    said = run("member", "list", "--home", home, "--json", *secret)
    assert [m["handle"] for m in json.loads(said.out)["members"]] == ["coordinator", "ada"]


def test_a_wrong_passphrase_and_a_used_invitation_are_told_apart(
    run: Run, live: Live, tmp_path: Path
) -> None:
    home, wrong = tmp_path / "ada", tmp_path / "wrong"
    join(run, live, "institute", home)
    wrong.write_text("sesame\n")
    said = run("member", "list", "--home", home, "--passphrase-file", wrong)
    assert said.code == 2
    assert "passphrase does not open it" in said.err
    again = run(
        "member", "join", live.invitation("institute"), "--home", tmp_path / "eve",
        "--passphrase-file", live.passphrase,
    )  # fmt: skip
    assert again.code == 4
    assert "NotAdmitted" in again.err or "seat" in again.err


def test_without_a_terminal_a_passphrase_needs_a_file(run: Run, live: Live, tmp_path: Path) -> None:
    said = run("member", "join", live.invitation("basel"), "--home", tmp_path / "basel")
    assert said.code == 2
    assert "--passphrase-file" in said.err
    assert not (tmp_path / "basel").exists()


def test_a_newcomer_joins_when_enough_organisations_endorsed_it(
    run: Run, live: Live, tmp_path: Path
) -> None:
    secret = ("--passphrase-file", live.passphrase)
    for name in ("basel", "bern"):
        join(run, live, name, tmp_path / name)
    davos = tmp_path / "davos.invitation"
    said = run("member", "invite", "davos", "--out", davos, "--home", tmp_path / "basel", *secret)
    assert said.code == 0, said.err
    assert "1 more organisation must endorse it" in said.out
    change = said.out.split("change ")[1].split()[0]
    early = run("member", "join", davos, "--home", tmp_path / "davos", *secret)
    assert early.code == 4
    endorsed = run("member", "endorse", change[:8], "--home", tmp_path / "bern", *secret)
    assert endorsed.code == 0, endorsed.err
    assert "it is in force" in endorsed.out
    twice = run("member", "endorse", change[:8], "--home", tmp_path / "bern", *secret)
    assert twice.code == 4
    assert "change_spent" in twice.err
    late = run("member", "join", davos, "--home", tmp_path / "davos", *secret)
    assert late.code == 0, late.err
    assert "davos-steward joined as steward of davos" in late.out


def test_a_steward_sees_the_cost_before_saying_yes_and_may_say_no(
    run: Run, live: Live, tmp_path: Path
) -> None:
    secret = ("--passphrase-file", live.passphrase)
    basel, ada = tmp_path / "basel", tmp_path / "ada"
    join(run, live, "basel", basel)
    join(run, live, "institute", ada)
    data, schema, spec = tmp_path / "d.csv", tmp_path / "schema.yaml", tmp_path / "spec.yaml"
    data.write_text(rows())
    schema.write_text(SCHEMA)
    spec.write_text(SPEC)
    said = run(
        "dataset", "register", "--data", data, "--schema", schema, "--epsilon", 8, "--home", basel,
        *secret,
    )  # fmt: skip
    assert said.code == 0, said.err
    spec.write_text(SPEC.replace("name: first", "name: dear").replace("epsilon: 8", "epsilon: 9"))
    said = run("experiment", "propose", spec, "--home", ada, *secret)
    assert said.code == 0, said.err
    assert "warning: basel-heart: epsilon" in said.err
    said = run("experiment", "approve", "dear", "--yes", "--home", basel, *secret)
    assert said.code == 2
    assert "left of the 8 that the patients of" in said.err
    again = run("experiment", "propose", spec, "--home", ada, *secret)
    assert again.code == 2
    assert "you have an experiment 'dear' already" in again.err
    assert run("experiment", "stop", "dear", "--yes", "--home", ada, *secret).code == 0
    spec.write_text(SPEC)
    with Client(ada, passphrase="open sesame") as client:
        proposed = client.propose(Experiment.from_yaml(spec))
        assert client.progress(proposed).status == "proposed"
    said = run("experiment", "approve", "first", "--home", basel, *secret)
    assert said.code == 2
    assert "Approve for basel-heart?" in said.err
    assert "--yes" in said.err
    assert "costs basel-heart epsilon" in said.out
    for most in ("nan", "inf", "-1"):
        typed = ("--epsilon-max", most, "--yes", "--home", basel)
        said_of = run("experiment", "approve", "first", *typed, *secret)
        assert said_of.code == 2
        assert "--epsilon-max" in said_of.err
    assert "of 8 promised for ever" in said.out
    said = run(
        "experiment", "approve", "first", "--dataset", "bern-heart", "--home", basel, *secret
    )
    assert said.code == 2
    assert "it asks for: basel-heart" in said.err
    said = run("experiment", "refuse", "first", "--reason", "boredom", "--home", basel, *secret)
    assert said.code == 2
    assert "purpose, privacy_cost" in said.err
    refusing = ("experiment", "refuse", "first", "--reason", "purpose", "--json", "--home", basel)
    said = run(*refusing, *secret)
    assert said.code == 0, said.err
    document = json.loads(said.out)
    assert document | {"entry": 0} == {
        "experiment": proposed,
        "dataset": "basel-heart",
        "reason": "purpose",
        "entry": 0,
    }
    # Nobody else was asked, so the coordinator ends it and says why.
    watched = run("experiment", "watch", "first", "--home", ada, *secret)
    assert watched.code == 1
    assert "was stopped: no_approval" in watched.err
    late = run("experiment", "approve", "first", "--yes", "--home", basel, *secret)
    assert (late.code, late.out) == (2, "")
    assert "is stopped: there is nothing left to decide" in late.err
    _, listed = json.loads(run("experiment", "list", "--home", ada, "--json", *secret).out)
    assert listed["refused"] == {"basel-heart": "purpose"}
    spec.write_text(SPEC.replace("name: first", "name: second"))
    assert run("experiment", "propose", spec, "--home", ada, *secret).code == 0
    shown = run("experiment", "approve", "second", "--yes", "--json", "--home", basel, *secret)
    assert json.loads(shown.out)["epsilon_max"] > 7
    assert "costs basel-heart epsilon" in shown.err
    said = run("experiment", "stop", "second", "--yes", "--json", "--home", ada, *secret)
    assert said.code == 0, said.err
    assert len(json.loads(said.out)["experiment"]) == 64
    taken = run("model", "download", "first", "--home", ada, "--out", tmp_path / "m", *secret)
    assert taken.code == 1
    assert not (tmp_path / "m").exists()


def test_a_client_with_a_wrong_passphrase_is_refused(run: Run, live: Live, tmp_path: Path) -> None:
    join(run, live, "institute", tmp_path / "ada")
    with pytest.raises(WrongPassphrase):
        Client(tmp_path / "ada", passphrase=b"guess")

"""Keys, members and rules over time through the command line, at a real coordinator."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from consilium.actions.member.renewing import LOST
from ledger.errors import KeyFileError
from ledger.exchange.client import CoordinatorClient
from ledger.exchange.home import LAST_ENTRY, MemberHome, Membership
from ledger.exchange.renewal import KEYRING, NEXT
from ledger.formats.key_file import load_keyring
from node.data.hospital_key import ensure_hospital_key, load_hospital_key
from node.errors import ServiceError
from tests.consilium.conftest import Live, Run, Said
from tests.consilium.test_federation_on_loopback import join

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("quick_keys")]

Command = Callable[..., Said]


@pytest.fixture
def people(run: Run, live: Live, tmp_path: Path) -> Command:
    """A command as somebody whose home is given; basel and bern have joined."""
    for name in ("basel", "bern"):
        join(run, live, name, tmp_path / name)

    def command(who: str, *words: object) -> Said:
        return run(*words, "--home", tmp_path / who, "--passphrase-file", live.passphrase)

    return command


def done(said: Said) -> str:
    assert said.code == 0, said.err
    return said.out


def change_of(said: Said) -> str:
    return done(said).split("change ")[1].split()[0]


def opened(home: Path) -> Membership:
    return MemberHome(home).open(b"open sesame")


def members(people: Command) -> dict[str, dict[str, object]]:
    listed = json.loads(done(people("bern", "member", "list", "--json")))["members"]
    return {row["handle"]: row for row in listed}


def test_a_member_rotates_its_keys_and_the_hospital_key_goes_with_it(
    people: Command, tmp_path: Path
) -> None:
    node = tmp_path / "basel" / "node"
    before = opened(node)
    secret = ensure_hospital_key(node, before.keyring.sealing, begun=False)
    old = before.keyring
    before.close()
    out = done(people("basel/node", "member", "rotate"))
    assert "basel-node goes on with key " in out
    after = opened(node)
    assert after.keyring.entry.id in out
    assert load_hospital_key(node, after.keyring.sealing) == secret
    after.close()
    kept = load_keyring(node / f"keyring-{old.entry.id[:12]}.json", b"open sesame")
    assert kept == old
    assert not (node / NEXT).exists()
    done(people("basel/node", "member", "rotate"))  # and once more, under the new ones
    again = opened(node)
    assert again.keyring.entry.id not in (old.entry.id, after.keyring.entry.id)
    assert load_hospital_key(node, again.keyring.sealing) == secret
    again.close()


def test_a_member_gets_new_keys_by_k_organisations_and_one_is_not_enough(
    people: Command, tmp_path: Path
) -> None:
    node, request = tmp_path / "basel" / "node", tmp_path / "basel-node.rekey"
    before = opened(node)
    secret = ensure_hospital_key(node, before.keyring.sealing, begun=False)
    before.close()
    said = done(people("basel/node", "member", "new-keys", "--out", request))
    fingerprint = said.split("fingerprint ")[1].split()[0]
    again = people("basel/node", "member", "new-keys", "--out", request)
    assert again.code == 2
    assert "exists already" in again.err
    asking = people("bern", "member", "rekey", request)
    assert asking.code == 2
    assert fingerprint in asking.out
    assert "say --yes" in asking.err
    proposed = people("bern", "member", "rekey", request, "--yes")
    assert "1 more organisation must endorse it" in done(proposed)
    early = opened(node)
    assert early.keyring.entry.id == before.keyring.entry.id
    early.close()
    listed = json.loads(done(people("bern", "federation", "changes", "--json")))
    assert listed[-1]["what"] == "new keys for basel-node"
    assert listed[-1]["in_force"] is False
    endorsed = people("basel/steward", "federation", "endorse", change_of(proposed)[:8])
    assert "it is in force" in done(endorsed)
    late = opened(node)
    assert late.keyring.entry.id == fingerprint
    assert load_hospital_key(node, late.keyring.sealing) == secret
    late.close()


def test_a_member_whose_key_file_is_lost_is_told_what_goes_with_it(
    people: Command, live: Live, tmp_path: Path
) -> None:
    node, request = tmp_path / "basel" / "node", tmp_path / "basel-node.rekey"
    before = opened(node)
    secret = ensure_hospital_key(node, before.keyring.sealing, begun=False)
    before.close()
    backup = (node / KEYRING).read_bytes()
    said = people("basel/node", "member", "new-keys", "--lost", "--out", request)
    assert "hospital.key is sealed to the old keys" in said.err
    assert "no dataset of this hospital can be used or registered again" in said.err
    assert (node / LOST).read_bytes() == backup
    change = change_of(people("bern", "member", "rekey", request, "--yes"))
    done(people("basel/steward", "member", "endorse", change[:8]))
    after = opened(node)
    after.follow()
    assert after.replica.state.members["basel-node"].keys.entry.public == (
        after.keyring.entry.public.hex()
    )
    with pytest.raises(ServiceError, match="consilium member new-keys"):
        load_hospital_key(node, after.keyring.sealing)
    after.close()
    # The old file turned up: what the message says to do brings the key back.
    (node / KEYRING).rename(tmp_path / "second.json")
    shutil.copy(node / LOST, node / KEYRING)
    second = tmp_path / "second.rekey"
    done(people("basel/node", "member", "new-keys", "--out", second))
    change = change_of(people("bern", "member", "rekey", second, "--yes"))
    done(people("basel/steward", "member", "endorse", change[:8]))
    back = opened(node)
    assert load_hospital_key(node, back.keyring.sealing) == secret
    back.close()


def test_a_home_that_is_gone_is_made_anew_from_the_invitation_file(
    people: Command, live: Live, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "basel" / "node")
    request = tmp_path / "basel-node.rekey"
    words = ("member", "new-keys", "--out", request, "--invitation", live.invitation("basel"))
    vague = people("fresh", *words)
    assert vague.code == 2
    assert "--handle: basel-node, basel-steward" in vague.err
    said = people("fresh", *words, "--handle", "basel-node")
    assert "private register and hospital.key exist nowhere else" in said.err
    change = change_of(people("bern", "member", "rekey", request, "--yes"))
    done(people("basel/steward", "member", "endorse", change[:8]))
    fresh = opened(tmp_path / "fresh")
    fresh.follow()
    assert fresh.replica.state.members["basel-node"].joined_at < change_index(fresh)
    fresh.close()


def change_index(member: Membership) -> int:
    return max(c.effective_at or 0 for c in member.replica.state.changes.values())


def test_a_request_that_was_changed_or_is_another_federations_is_refused(
    people: Command, tmp_path: Path
) -> None:
    request = tmp_path / "x.rekey"
    done(people("basel/node", "member", "new-keys", "--out", request))
    text = request.read_text()
    request.write_text(text.replace("basel-node", "berne-node"))
    said = people("bern", "member", "rekey", request, "--yes")
    assert said.code == 2
    assert "did not sign for these keys" in said.err
    plain = json.loads(text)
    other = {**plain, "federation": "0" * 64}
    request.write_text(json.dumps(other, sort_keys=True, separators=(",", ":")))
    said = people("bern", "member", "rekey", request, "--yes")
    assert said.code == 2
    assert "it is for federation 000000000000" in said.err
    request.write_text(text.replace("x25519", "ml-kem-768"))
    said = people("bern", "member", "rekey", request, "--yes")
    assert said.code == 2
    assert "invalid enum value 'ml-kem-768'" in said.err


class Killed(BaseException):
    """The process is gone; nobody catches it."""


def test_a_kill_at_any_step_of_a_rotation_never_locks_a_member_out(
    people: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = tmp_path / "basel" / "node"
    first = opened(node)
    secret = ensure_hospital_key(node, first.keyring.sealing, begun=False)
    first.close()
    used: set[str] = {first.keyring.entry.id}
    steps = 0

    def fatal(at: int, calls: list[int], real: Callable[..., object]) -> Callable[..., object]:
        def step(*given: object, **named: object) -> object:
            calls[0] += 1
            if calls[0] == at:
                raise Killed
            return real(*given, **named)

        return step

    for at in range(1, 200):
        calls = [0]
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fatal(at, calls, os.fsync))
            patch.setattr(os, "replace", fatal(at, calls, os.replace))
            patch.setattr(Path, "replace", fatal(at, calls, Path.replace))
            patch.setattr(CoordinatorClient, "submit", fatal(at, calls, CoordinatorClient.submit))
            patch.setattr(CoordinatorClient, "follow", fatal(at, calls, CoordinatorClient.follow))
            try:
                people("basel/node", "member", "rotate")
            except Killed:
                steps = at
        home = opened(node)
        home.follow()
        state = home.replica.state
        assert state.members["basel-node"].keys.entry.public == home.keyring.entry.public.hex()
        assert load_hospital_key(node, home.keyring.sealing) == secret, at
        used.add(home.keyring.entry.id)
        home.close()
        if steps < at:
            break
    assert steps > 10
    assert len(used) > 2
    for path in node.glob("keyring-*.json"):
        assert load_keyring(path, b"open sesame").handle == "basel-node"


def test_a_home_that_was_copied_signs_no_rotation_and_is_told_to_ask(
    people: Command, tmp_path: Path
) -> None:
    node = tmp_path / "basel" / "node"
    shutil.copytree(node, tmp_path / "copy")
    done(people("basel/steward", "federation", "policy", "--set", "max_lag=99"))
    steward = tmp_path / "basel" / "steward"
    older = tmp_path / "older"
    shutil.copytree(steward, older)
    done(people("basel/steward", "federation", "policy", "--set", "max_lag=98"))
    said = people("older", "member", "rotate")
    assert said.code != 0
    assert "restored or copied" in said.err
    assert "consilium member new-keys" in said.err
    assert (older / LAST_ENTRY).exists()


def test_a_policy_is_shown_proposed_and_changed_by_enough_endorsements(
    people: Command,
) -> None:
    shown = json.loads(done(people("bern", "federation", "policy", "--json")))
    assert shown["endorsements"] == 2
    for wrong, why in (("x=1", "the policy has endorsements"), ("max_lag=-1", "a whole number"),
                       ("max_lag=0", "max_lag")):  # fmt: skip
        said = people("bern", "federation", "policy", "--set", wrong)
        assert said.code == 2
        assert why in said.err
    words = ("federation", "policy", "--set", "endorsements=1", "--set", "max_lag=5000")
    proposed = people("bern", *words)
    listed = json.loads(done(people("bern", "federation", "changes", "--json")))
    assert "endorsements 2 -> 1" in listed[-1]["what"]
    assert json.loads(done(people("bern", "federation", "policy", "--json"))) == shown
    assert "in force" in done(
        people("basel/steward", "federation", "endorse", change_of(proposed)[:8])
    )
    now = json.loads(done(people("bern", "federation", "policy", "--json")))
    assert (now["endorsements"], now["max_lag"]) == (1, 5000)
    assert "it is in force" in done(people("bern", "federation", "policy", "--set", "max_lag=6000"))


def test_an_invitation_is_withdrawn_and_an_organisation_is_expelled(
    run: Run, live: Live, people: Command, tmp_path: Path
) -> None:
    secret = ("--passphrase-file", live.passphrase)
    vague = people("bern", "member", "uninvite", "nobody")
    assert vague.code == 2
    assert "chur: chur-node, chur-steward" in vague.err
    proposed = people("bern", "member", "uninvite", "chur-node")
    done(people("basel/steward", "member", "endorse", change_of(proposed)[:8]))
    said = run("member", "join", live.invitation("chur"), "--home", tmp_path / "chur", *secret)
    assert said.code == 4
    assert "no open invitation has a free seat" in said.err
    join(run, live, "institute", tmp_path / "ada")
    assert people("bern", "federation", "expel", "nowhere", "--yes").code == 2
    assert people("bern", "federation", "expel", "operator", "--yes").code == 2
    out = people("bern", "federation", "expel", "institute", "--yes")
    done(people("basel/steward", "federation", "endorse", change_of(out)[:8]))
    assert members(people)["ada"]["revoked"] is True
    gone = run("member", "list", "--home", tmp_path / "ada", *secret)
    assert gone.code == 4
    assert "were revoked" in gone.err


def test_a_steward_signs_that_it_reviewed_the_log(people: Command) -> None:
    out = done(people("bern", "ledger", "review", "--finding", "in_order", "--size", 3))
    assert "reviewed the log up to 3 entries: in_order" in out
    for words, why in ((("--finding", "fine"), "in_order, question_open"),
                       (("--finding", "incident", "--size", 999), "the log has")):  # fmt: skip
        said = people("bern", "ledger", "review", *words)
        assert said.code == 2
        assert why in said.err
    shown = json.loads(
        done(people("bern", "ledger", "list", "--type", "ledger.reviewed", "--json"))
    )
    assert [row["author"] for row in shown] == ["bern-steward"]


def test_keys_end_at_once_and_the_date_is_stated(people: Command) -> None:
    done(
        people("basel/steward", "member", "revoke", "basel-node", "--since", "2026-01-01", "--yes")
    )
    assert members(people)["basel-node"]["revoked"] is True


def test_an_unsafe_new_key_file_is_refused(people: Command, tmp_path: Path) -> None:
    node = tmp_path / "basel" / "node"
    done(people("basel/node", "member", "new-keys", "--out", tmp_path / "x.rekey"))
    (node / NEXT).write_bytes(b"no keys")
    with pytest.raises(KeyFileError, match=r"keyring\.next\.json"):
        opened(node)

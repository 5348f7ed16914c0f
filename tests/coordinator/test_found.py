"""Founding a federation and reading its coordinator's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from consilium.commands.status import coordinator_url
from coordinator.errors import HomeUnusable
from coordinator.found import Founded, found_federation
from coordinator.service import Coordinator
from coordinator.settings import load_settings
from ledger.entries.entry import federation_id, parse_leaf
from ledger.entries.invitation import join_operation
from ledger.entries.operations.federation import Seat
from ledger.entries.operations.log import TimeNoted
from ledger.errors import AlreadyRunning, MalformedInput
from ledger.formats.key_file import load_keyring
from ledger.formats.keys import KeyRing
from ledger.rules.log import Log
from tests.federation import POLICY
from tests.patience import PATIENCE_S

pytest_plugins = ("tests.postgres",)

SEATS = {
    "basel": (Seat(handle="basel-node", role="node"), Seat(handle="eva", role="steward")),
    "institute": (Seat(handle="ada", role="researcher"),),
}


def found(home: Path, **changes: object) -> Founded:
    arguments: dict[str, object] = {
        "name": "heart",
        "organisation": "operator",
        "policy": POLICY,
        "seats": SEATS,
        "url": "http://127.0.0.1:8460",
        "strength": "interactive",
        **changes,
    }
    return found_federation(home, b"open sesame", **arguments)  # type: ignore[arg-type]


def test_a_founded_federation_opens_and_is_final(tmp_path: Path) -> None:
    founded = found(tmp_path / "hub")
    assert federation_id(parse_leaf(founded.genesis)) == founded.federation
    keyring = load_keyring(tmp_path / "hub" / "keyring.json", b"open sesame")
    assert keyring == founded.keyring
    settings = load_settings(tmp_path / "hub")
    assert settings.federation == founded.federation
    with Coordinator(settings, keyring) as coordinator:
        view = coordinator.sequencer.view
        assert (view.size, view.final_size, view.state.name) == (1, 1, "heart")
        assert coordinator.sequencer.genesis() == founded.genesis


def test_the_port_of_a_founding_is_where_the_coordinator_listens(tmp_path: Path) -> None:
    found(tmp_path / "hub", port=8999)
    assert load_settings(tmp_path / "hub").port == 8999
    assert coordinator_url(tmp_path / "hub") == "http://127.0.0.1:8999"


def test_each_organisation_gets_an_invitation_that_lets_its_people_in(tmp_path: Path) -> None:
    founded = found(tmp_path / "hub")
    assert [i.organisation for i in founded.invitations] == ["basel", "institute"]
    log = Log()
    log.append(log.judge(founded.genesis))
    invitation = founded.invitations[0]
    operation = join_operation(invitation, KeyRing.generate("basel-node", "node"))
    assert operation.invitation in log.state.invitations
    files = b"".join(path.read_bytes() for path in (tmp_path / "hub").rglob("*") if path.is_file())
    assert invitation.secret.encode() not in files


def test_a_home_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(HomeUnusable, match="not empty; choose another directory"):
        found(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_seats_that_contradict_one_another_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MalformedInput, match="'eva' is given twice"):
        found(tmp_path / "a", seats={**SEATS, "bern": (Seat(handle="eva", role="node"),)})
    with pytest.raises(MalformedInput, match="basel runs the coordinator"):
        found(tmp_path / "b", organisation="basel")


def test_flags_go_before_the_environment_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found(tmp_path / "hub")
    file = tmp_path / "hub" / "coordinator.toml"
    file.write_text('host = "0.0.0.0"\nport = 1\nquota_per_s = 7.5\n')
    monkeypatch.setenv("CONSILIUM_COORDINATOR_PORT", "2")
    settings = load_settings(tmp_path / "hub", host="127.0.0.1", quota_burst=None)
    assert (settings.host, settings.port, settings.quota_per_s) == ("127.0.0.1", 2, 7.5)
    assert settings.quota_burst == 1000.0


@pytest.mark.parametrize(
    ("text", "said"),
    [("prot = 1\n", "prot"), ("port = 70000\n", "port"), ("port = [\n", "cannot be read")],
)
def test_a_setting_that_cannot_be_is_named(tmp_path: Path, text: str, said: str) -> None:
    found(tmp_path / "hub")
    (tmp_path / "hub" / "coordinator.toml").write_text(text)
    with pytest.raises(HomeUnusable, match=said):
        load_settings(tmp_path / "hub")


def test_a_directory_without_settings_is_no_home(tmp_path: Path) -> None:
    with pytest.raises(HomeUnusable, match="make one: consilium federation create"):
        load_settings(tmp_path)


@pytest.mark.postgresql
def test_a_federation_on_postgresql_opens_sequences_and_has_one_writer(
    tmp_path: Path, postgres_url: str
) -> None:
    founded = found(tmp_path / "hub", database=postgres_url)
    settings = load_settings(tmp_path / "hub")
    with Coordinator(settings, founded.keyring) as coordinator:
        with pytest.raises(AlreadyRunning, match="another process is its writer"):
            Coordinator(settings, founded.keyring)
        noted = coordinator.sequencer.say(TimeNoted(type="time.noted"))
        assert noted.result(PATIENCE_S)[0].applied
        assert coordinator.sequencer.view.size == 2
    with Coordinator(settings, founded.keyring) as coordinator:
        assert coordinator.sequencer.view.size == 2


@pytest.mark.parametrize("data", [b"2", b"[1]", b'"text"'])
def test_settings_that_are_json_but_no_mapping_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "coordinator.json").write_bytes(data)
    with pytest.raises(HomeUnusable, match=r"mapping of settings|cannot be read"):
        load_settings(tmp_path)

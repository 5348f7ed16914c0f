"""The coordinator's own keys through the command line, over real coordinator processes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from consilium.actions.speaking import open_member
from consilium.demo.processes import Services, free_port
from coordinator.settings import KEYRING
from ledger.entries.entry import Body, Seen, sign_entry
from ledger.entries.operations.log import TimeNoted
from ledger.errors import RequestRefused
from ledger.formats.key_file import load_keyring
from ledger.formats.value import replace
from tests.consilium.conftest import Live, Run
from tests.consilium.test_federation_on_loopback import join

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("quick_keys")]


@contextmanager
def serving(hub: Live, folder: Path) -> Iterator[None]:
    """The coordinator runs, in a process."""
    port = hub.url.rpartition(":")[2]
    with Services(folder, {"CONSILIUM_PASSPHRASE_FILE": str(hub.passphrase)}) as services:
        arguments = ["coordinator", "run", "--home", str(hub.home), "--port", port]
        assert services.start("coordinator", arguments).ready()["url"] == hub.url
        yield


def test_the_coordinators_keys_are_rotated_and_given_anew_by_its_members(
    run: Run, tmp_path: Path
) -> None:
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("open sesame\n")
    secret = ("--passphrase-file", passphrase)
    hub = Live(tmp_path / "hub", passphrase, f"http://127.0.0.1:{free_port()}")

    def done(*words: object) -> str:
        said = run(*words, *secret)
        assert said.code == 0, said.err
        return said.out

    def entry_key() -> str:
        return load_keyring(hub.home / KEYRING, b"open sesame").entry.id

    done(
        "federation", "create", "test", "--organisation", "operator", "--url", hub.url,
        "--hospital", "basel", "--hospital", "bern", "--hospital", "chur", "--home", hub.home,
    )  # fmt: skip
    first = entry_key()
    with serving(hub, tmp_path):
        for name in ("basel", "bern"):
            join(run, hub, name, tmp_path / name)
        refused = run("coordinator", "rotate-keys", "--home", hub.home, *secret)
        assert refused.code == 1
        assert "stop it first" in refused.err
    said = json.loads(done("coordinator", "rotate-keys", "--home", hub.home, "--json"))
    assert said["key"] == entry_key() != first
    with serving(hub, tmp_path):
        assert "active" in run("coordinator", "status", "--url", hub.url).out
        with open_member(tmp_path / "basel", passphrase) as member:
            member.follow()
            state = member.replica.state
            chain = state.keys[said["key"]]
            assert state.keys[first].retired_at == said["index"] + 1
            # Somebody else has the new key too, and uses it: the log has two entries at one place.
            ring = load_keyring(hub.home / KEYRING, b"open sesame")
            body = Body(
                v=1, federation=state.federation, author=ring.handle, key=ring.entry.id,
                seq=chain.next_seq, prev=chain.head, seen=Seen(size=state.size, root=member.replica.root().hex()),
                at_ms=time.time_ns() // 10**6, op=TimeNoted(type="time.noted"),
            )  # fmt: skip
            twin = replace(body, at_ms=body.at_ms + 1)
            member.client.submit(sign_entry(body, ring.entry).leaf)
            with pytest.raises(RequestRefused, match="chain goes on"):
                member.client.submit(sign_entry(twin, ring.entry).leaf)
        assert "ended: no round opens" in run("coordinator", "status", "--url", hub.url).out
        request = tmp_path / "hub.rekey"
        out = done("coordinator", "new-keys", "--out", request, "--home", hub.home)
        fingerprint = out.split("fingerprint ")[1].split()[0]
        proposed = done("member", "rekey", request, "--yes", "--home", tmp_path / "basel")
        change = proposed.split("change ")[1].split()[0]
        assert "in force" in done("member", "endorse", change, "--home", tmp_path / "bern")
    assert entry_key() == said["key"] != fingerprint
    with serving(hub, tmp_path):
        assert entry_key() == fingerprint
        assert "active" in run("coordinator", "status", "--url", hub.url).out
    done("coordinator", "rotate-keys", "--home", hub.home)
    verified = run("audit", "verify", hub.home)
    assert verified.code == 0, verified.out

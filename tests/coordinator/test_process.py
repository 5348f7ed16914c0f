"""The coordinator as a real process: killed under load, and told to stop."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.entries.entry import Entry
from ledger.entries.operations.audits import LedgerReviewed
from ledger.errors import CallFailed
from tests.federation import Federation, steward_of
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.process

HOSPITALS = ("basel", "bern", "chur", "davos")
EACH = 150
PROGRAM = """
import sys
from pathlib import Path
from coordinator.service import run
from coordinator.settings import load_settings
from tests.federation import ring_of
run(load_settings(Path(sys.argv[1]), port=0, quota_per_s=1e6, quota_burst=1e6),
    ring_of("hub", "coordinator"))
"""


class Process:
    """A coordinator in a process of its own."""

    def __init__(self, home: Path) -> None:
        self.process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(home)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=(home / "stderr.log").open("a"),
            text=True,
        )
        stdout: IO[str] | None = self.process.stdout
        assert stdout is not None
        self.ready: dict[str, Any] = json.loads(stdout.readline())

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)


def home_of(federation: Federation, tmp_path: Path) -> Path:
    federation.persist(tmp_path).close()
    (tmp_path / "coordinator.json").write_text(json.dumps({"federation": federation.id}))
    return tmp_path


def chains(federation: Federation) -> dict[str, list[Entry]]:
    """What each steward will say, signed beforehand: chains need nothing of one another."""
    copy = Federation.found(HOSPITALS)
    seen = federation.seen()
    said: dict[str, list[Entry]] = {steward_of(name): [] for name in HOSPITALS}
    for number in range(EACH):
        for handle, entries in said.items():
            op = LedgerReviewed(
                type="ledger.reviewed", size=number, root="0" * 64, finding="in_order"
            )
            entry = copy.entry(handle, op, seen=seen)
            copy.take(entry)
            entries.append(entry)
    return said


def test_no_acknowledged_entry_is_lost_or_doubled_by_sigkill(tmp_path: Path) -> None:
    federation = Federation.found(HOSPITALS)
    home = home_of(federation, tmp_path)
    said = chains(federation)
    acknowledged: dict[str, int] = {}
    done = dict.fromkeys(said, 0)
    chance = random.Random(20260101)
    for _ in range(4):
        process = Process(home)
        enough = len(acknowledged) + chance.randrange(20, 120)

        def speak(handle: str, url: str, enough: int) -> None:
            with httpx.Client(timeout=PATIENCE_S) as http:
                while done[handle] < EACH and len(acknowledged) < enough:
                    entry = said[handle][done[handle]]
                    try:
                        answer = http.post(url + "/v1/entries", content=entry.leaf)
                    except httpx.TransportError:
                        return
                    assert answer.status_code == 200, answer.text
                    acknowledged[entry.hash] = answer.json()["index"]
                    done[handle] += 1

        threads = [
            threading.Thread(target=speak, args=(handle, process.url, enough)) for handle in said
        ]
        for thread in threads:
            thread.start()
        while len(acknowledged) < enough - 5 and any(t.is_alive() for t in threads):
            time.sleep(0.001)
        process.kill()
        for thread in threads:
            thread.join()
        _check(home, federation, acknowledged)
    assert len(acknowledged) > 100


def _check(home: Path, federation: Federation, acknowledged: dict[str, int]) -> None:
    """Verify the whole log from its first byte; every acknowledged entry is where it was said."""
    store = LogStore.open(f"sqlite:///{home / 'ledger.db'}")
    replica = Replica.open(store, federation.id)
    held = {row.leaf.hex(): index for index, row in enumerate(store.rows())}
    assert len(held) == replica.size
    for leaf, index in acknowledged.items():
        assert held[leaf] == index
    store.close()


def test_sigterm_lets_waiting_followers_go_and_closes_in_order(tmp_path: Path) -> None:
    from ledger.exchange.client import CoordinatorClient

    federation = Federation.found(HOSPITALS)
    process = Process(home_of(federation, tmp_path))
    assert process.ready == {
        "event": "ready",
        "url": process.url,
        "federation": federation.id,
        "size": federation.log.size,
    }
    handle = steward_of("basel")
    with CoordinatorClient(
        process.url,
        federation=federation.id,
        handle=handle,
        request_key=federation.rings[handle].request,
    ) as client:
        size = client.summary()["size"]
        answered: list[object] = []

        def wait() -> None:
            try:
                answered.append(client.follow(size, 2**40, 30.0))
            except CallFailed as error:
                answered.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.3)
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(PATIENCE_S) == 0
        thread.join(PATIENCE_S)
    assert len(answered) == 1
    log = (tmp_path / "stderr.log").read_text()
    assert json.loads(log.strip().split("\n")[-1])["event"] == "closed"


def test_a_coordinator_that_is_told_to_stop_just_before_it_serves_stops(tmp_path: Path) -> None:
    told_first = """
import os, signal
from coordinator.service import Server
serve = Server.serve
async def told_first(self, sockets):
    os.kill(os.getpid(), signal.SIGTERM)
    await serve(self, sockets)
Server.serve = told_first
"""
    home = home_of(Federation.found(("basel",)), tmp_path)
    ended = subprocess.run(
        [sys.executable, "-c", told_first + PROGRAM, str(home)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stderr.splitlines()[-1])["event"] == "closed"


def test_a_second_coordinator_on_the_same_log_is_refused(tmp_path: Path) -> None:
    federation = Federation.found(("basel",))
    process = Process(home_of(federation, tmp_path))
    second = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    process.kill()
    assert second.returncode != 0
    assert "AlreadyRunning" in second.stderr

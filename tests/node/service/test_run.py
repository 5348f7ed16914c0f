from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from ledger.entries.operations.rounds import UpdateSubmitted
from ledger.experiment.tensors import decode_update
from node.service.local_api import LOCAL_FILE
from tests.node.cases import heart_file, heart_schema, heart_spec
from tests.node.service.played import said
from tests.node.town import PASSPHRASE, Town, small_schema, small_table
from tests.patience import PATIENCE_S

SERVE = """
import sys
from pathlib import Path
from ledger.exchange.home import MemberHome
from node.service.main import run
from node.service.settings import load_settings
home = Path(sys.argv[1])
member = MemberHome(home).open(sys.argv[2].encode())
run(member, load_settings(home))
member.close()
print("torch" in sys.modules)
"""
pytestmark = pytest.mark.process


class Process:
    """``consilium node run`` without its command line."""

    def __init__(self, town: Town, hospital: str) -> None:
        self.home = town.home(hospital).path
        command = [sys.executable, "-c", SERVE, str(self.home), PASSPHRASE.decode()]
        self._errors = (self.home / "log.txt").open("ab")
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._errors)
        assert self._process.stdout is not None
        self.ready = json.loads(self._process.stdout.readline() or "null")

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal; returns exit status and what was printed since it was ready."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        printed, _ = self._process.communicate(timeout=PATIENCE_S)
        self._errors.close()
        return self._process.returncode, printed.decode()


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for process in started:
        if not process._errors.closed:
            process.end(signal.SIGKILL)


def test_two_hospitals_train_on_real_rows_through_a_kill(
    tmp_path: Path, processes: list[Process]
) -> None:
    hospitals = ("cleveland", "budapest")
    tables = {name: heart_file(f"{name}-heart") for name in hospitals}
    with Town(tmp_path, hospitals) as town:
        for name in hospitals:
            town.offer(name, tables[name], heart_schema(f"{name}-heart"), epsilon=9.0)
        running = {name: Process(town, name) for name in hospitals}
        processes.extend(running.values())
        assert running["cleveland"].ready["node"] == "cleveland-node"
        asked = {"datasets": [f"{name}-heart" for name in hospitals], "rounds": 4, "quorum": 2}
        experiment = town.propose(heart_spec(federation=asked, privacy={"epsilon": 8}))
        for name in hospitals:
            town.approve(experiment, f"{name}-heart")
        town.until(lambda: town.experiment(experiment).next_round >= 2)
        assert running["budapest"].end(signal.SIGKILL)[0] == -signal.SIGKILL
        running["budapest"] = Process(town, "budapest")
        processes.append(running["budapest"])
        town.until(lambda: town.experiment(experiment).status == "released")
        town.until(
            lambda: all(r.settled_at for r in town.experiment(experiment).reservations.values())
        )
        for name in hospitals:
            used = dict(town.experiment(experiment).reservations[f"{name}-heart"].used)
            assert used["evaluate"] == 1
            assert 4 <= used["train"] <= 5
        first = next(op for _, op in said(town, UpdateSubmitted))
        data = town.coordinator.blobs.get(first.update)
        update = decode_update(data, town.experiment(experiment).plan.parameters)
        assert np.any(update != 0)
        for process in running.values():
            code, printed = process.end(signal.SIGTERM)
            assert code == 0
            assert printed.strip() == "False", "the service process has imported torch"
            assert not (process.home / LOCAL_FILE).exists()


def test_a_node_process_tells_its_address_and_serves_it(
    tmp_path: Path, processes: list[Process]
) -> None:
    with Town(tmp_path, ("basel",)) as town:
        town.offer("basel", small_table(tmp_path / "t.csv"), small_schema("basel-heart"))
        process = Process(town, "basel")
        processes.append(process)
        told = json.loads((process.home / LOCAL_FILE).read_text())
        assert told["url"] == process.ready["local"]
        with httpx.Client(base_url=told["url"], trust_env=False, timeout=PATIENCE_S) as client:
            town.until(lambda: client.get("/readyz").status_code == 200)
            (dataset,) = client.get("/status").json()["datasets"]
            assert dataset["dataset"] == "basel-heart"
        assert process.end(signal.SIGTERM)[0] == 0
        lines = [json.loads(line) for line in (process.home / "log.txt").read_text().splitlines()]
        assert {line["event"] for line in lines} >= {"node.started", "node.stopped"}

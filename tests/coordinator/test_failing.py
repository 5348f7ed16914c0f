"""What is nobody's refusal: a mistake of ours, no memory, a store that fails. Everybody gets an answer."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from coordinator.errors import Mishap, NotSequencing, RolledBack
from coordinator.rounds.conduct import Conductor
from coordinator.sequencing.cosignatures import Cosignatures
from coordinator.sequencing.history import History
from ledger.copies.store import LogStore
from ledger.entries.entry import Entry
from ledger.entries.operations.log import TimeNoted
from ledger.errors import LedgerError
from ledger.exchange.messages import Receipt
from ledger.rules import log as log_rules
from tests.coordinator.sequenced import reviewed, sequencing, verified
from tests.coordinator.serving import Serving
from tests.federation import Federation, steward_of
from tests.patience import PATIENCE_S


def poison(monkeypatch: pytest.MonkeyPatch, author: str, error: Exception) -> None:
    """Let the fold fall over what one member says."""
    step = log_rules.step

    def falling(state: Any, entry: Entry) -> Any:
        if entry.body.author == author:
            raise error
        return step(state, entry)

    monkeypatch.setattr(log_rules, "step", falling)


@pytest.mark.parametrize("error", [OverflowError("too large"), MemoryError(), KeyError("gone")])
def test_an_entry_that_the_fold_falls_over_is_answered_no_and_hinders_nobody_else(
    federation: Federation, home: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    leaves = {
        name: federation.entry(steward_of(name), reviewed(federation)).leaf
        for name in ("basel", "bern", "chur")
    }
    with sequencing(federation, home) as sequencer:
        poison(monkeypatch, steward_of("bern"), error)
        before = sequencer.view.size
        answers = {name: sequencer.submit(leaf) for name, leaf in leaves.items()}
        with pytest.raises(Mishap, match="nothing of it was taken"):
            answers["bern"].result(PATIENCE_S)
        others = {answers[name].result(PATIENCE_S).index for name in ("basel", "chur")}
        assert others == {before, before + 1}
        assert sequencer.view.stopped is None
        assert sequencer.say(TimeNoted(type="time.noted")).result(PATIENCE_S)[0].applied
    monkeypatch.undo()
    assert verified(federation, home).size == before + 3
    with sequencing(federation, home) as sequencer:
        assert sequencer.submit(leaves["bern"]).result(PATIENCE_S).index == before + 3


def test_a_call_that_falls_over_is_answered_and_the_next_one_is_done(
    federation: Federation, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def falling(*_: object) -> None:
        raise MemoryError

    with sequencing(federation, home) as sequencer:
        monkeypatch.setattr(Cosignatures, "add", falling)
        with pytest.raises(Mishap, match="see the coordinator's log"):
            sequencer.cosign(sequencer.view.size, b"").result(PATIENCE_S)
        monkeypatch.undo()
        entry = federation.entry(steward_of("basel"), reviewed(federation))
        assert sequencer.submit(entry.leaf).result(PATIENCE_S).applied
        with pytest.raises(LedgerError, match="signature"):
            sequencer.cosign(sequencer.view.size, b"").result(PATIENCE_S)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_whatever_fails_after_the_commit_stops_the_log_and_leaves_nobody_waiting(
    federation: Federation, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where those who are told of it fall over in turn."""

    def falling(*_: object) -> None:
        raise RuntimeError("a mistake")

    leaf = federation.entry(steward_of("basel"), reviewed(federation)).leaf
    other = federation.entry(steward_of("bern"), reviewed(federation)).leaf
    with sequencing(federation, home) as sequencer:
        before = sequencer.view
        monkeypatch.setattr(History, "observe", falling)
        sequencer.on_change(lambda: falling())
        waiting: list[Future[Receipt]] = [sequencer.submit(leaf), sequencer.submit(other)]
        for future in waiting:
            with pytest.raises(NotSequencing):
                future.result(PATIENCE_S)
        with pytest.raises(NotSequencing):
            sequencer.submit(other).result(PATIENCE_S)
        assert sequencer.view == replace(before, stopped=sequencer.view.stopped, failed=True)
    monkeypatch.undo()
    with sequencing(federation, home) as sequencer:
        assert sequencer.submit(leaf).result(PATIENCE_S).applied


def test_a_rollback_that_was_shown_is_not_forgotten_by_a_restart(
    federation: Federation, home: Path
) -> None:
    """Signing on would fork the log, as soon as nobody remembers but the one who showed it."""
    for _ in range(2):
        federation.say(steward_of("basel"), reviewed(federation))
    newer = federation.checkpoint()
    with sequencing(federation, home) as sequencer:
        with pytest.raises(RolledBack):
            sequencer.examine(newer).result(PATIENCE_S)
        assert not sequencer.view.failed  # a restart mends nothing
    with pytest.raises(RolledBack, match="was signed"), sequencing(federation, home):
        pass


PROGRAM = """
import sys
from pathlib import Path
from consilium.cli import explain_failure
from coordinator.service import run
from coordinator.settings import load_settings
from ledger.copies.store import LogStore
from ledger.errors import StoreUnusable
from tests.federation import ring_of
import coordinator.service, time

append = LogStore.append

def failing(self, first, rows, checkpoint=None):
    if any(b"ledger.reviewed" in row.body for row in rows):
        fail()
    return append(self, first, rows, checkpoint)

def fail():
    {fault}

LogStore.append = failing
try:
    run(load_settings(Path(sys.argv[1]), port=0), ring_of("hub", "coordinator"))
except Exception as error:
    code, message = explain_failure(error)
    print(message, file=sys.stderr)
    sys.exit(code)
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ('raise StoreUnusable("ledger.db", "the disk is gone")', "start it again"),
        (
            "coordinator.service.STUCK_S = 1.0; time.sleep(3600)",
            "the database has not answered for 1 seconds",
        ),
    ],
    ids=["fails", "hangs"],
)
def test_a_coordinator_whose_store_fails_answers_everybody_and_ends_with_an_exit_code(
    tmp_path: Path, fault: str, says: str
) -> None:
    federation = Federation.found(("basel", "bern"))
    federation.persist(tmp_path).close()
    (tmp_path / "coordinator.json").write_text(json.dumps({"federation": federation.id}))
    leaf = federation.entry(steward_of("basel"), reviewed(federation)).leaf
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("{fault}", fault), str(tmp_path)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        with httpx.Client(timeout=PATIENCE_S) as http:
            assert http.get(url + "/readyz").status_code == 200
            answer = http.post(url + "/v1/entries", content=leaf)
            assert (answer.status_code, answer.json()["error"]) == (503, "NotSequencing")
        _, said = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == 1
    assert says in said.splitlines()[-1]


def test_a_mishap_is_a_500_that_says_that_nothing_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = Federation.found(("basel", "bern"), now_ms=time.time_ns() // 1_000_000)
    with Serving(federation, tmp_path) as serving:
        poison(monkeypatch, steward_of("bern"), OverflowError("9 patients"))
        leaf = federation.entry(steward_of("bern"), reviewed(federation)).leaf
        with httpx.Client(timeout=PATIENCE_S) as http:
            answer = http.post(serving.url + "/v1/entries", content=leaf)
            assert (answer.status_code, answer.json()["error"]) == (500, "Mishap")
            assert "nothing of it was taken" in answer.json()["reason"]
            assert "patients" not in answer.text
            assert http.get(serving.url + "/readyz").status_code == 200
        assert serving.say(steward_of("basel"), reviewed(federation)).applied


def test_health_is_red_once_the_store_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> int:
        raise MemoryError

    federation = Federation.found(("basel", "bern"), now_ms=time.time_ns() // 1_000_000)
    with Serving(federation, tmp_path) as serving:
        monkeypatch.setattr(LogStore, "append", failing)
        leaf = federation.entry(steward_of("basel"), reviewed(federation)).leaf
        with httpx.Client(timeout=PATIENCE_S) as http:
            assert http.post(serving.url + "/v1/entries", content=leaf).status_code == 503
        assert serving.coordinator.failed is not None
        monkeypatch.undo()


def test_a_conductor_that_falls_over_says_so_and_begins_again_from_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Conductor.step

    def falling(self: Conductor) -> bool:
        raise OverflowError("a mistake")

    federation = Federation.found(("basel", "bern"), now_ms=time.time_ns() // 1_000_000)
    monkeypatch.setattr("coordinator.rounds.conduct.PAUSE_S", 0.01)
    with Serving(federation, tmp_path) as serving:
        monkeypatch.setattr(Conductor, "step", falling)
        serving.say(steward_of("basel"), reviewed(federation))
        serving.until(
            lambda: httpx.get(serving.url + "/readyz", timeout=PATIENCE_S).status_code == 503
        )
        red = httpx.get(serving.url + "/readyz", timeout=PATIENCE_S).json()
        assert not red["ready"]
        assert "no round moves" in red["rounds"]
        assert red["stopped"] is None
        monkeypatch.setattr(Conductor, "step", step)
        serving.until(
            lambda: httpx.get(serving.url + "/readyz", timeout=PATIENCE_S).status_code == 200
        )
        assert httpx.get(serving.url + "/readyz", timeout=PATIENCE_S).json()["rounds"] is None

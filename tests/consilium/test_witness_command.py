"""An auditor from outside witnesses a log by one command, over what a server shows."""

from __future__ import annotations

import functools
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ledger.entries.operations.audits import LedgerReviewed
from ledger.formats.note import parse_vkey, verify_note
from ledger.formats.witness import checkpoint_path
from tests.consilium.conftest import Run
from tests.coordinator.serving import Serving
from tests.federation import Federation, node_of, steward_of
from tests.patience import PATIENCE_S

HOSPITALS = ("basel", "bern", "chur")
NAME = "auditor.example.org/witness"


def reviewed(size: int) -> LedgerReviewed:
    return LedgerReviewed(type="ledger.reviewed", size=size, root="0" * 64, finding="in_order")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A web server that knows nothing of logs, and the folder that it hands out."""
    folder = tmp_path / "web"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def secret(tmp_path: Path) -> tuple[str, Path]:
    path = tmp_path / "passphrase"
    path.write_text("open sesame\n")
    return "--passphrase-file", path


def exported(run: Run, federation: Federation, out: Path, home: Path) -> None:
    federation.persist(home).close()
    assert run("ledger", "tiles", "--at", home, "--out", out).code == 0


def test_a_coordinator_is_witnessed_and_the_cosignature_travels_with_a_proof(
    run: Run, tmp_path: Path, secret: tuple[str, Path]
) -> None:
    federation = Federation.found(HOSPITALS, now_ms=time.time_ns() // 1_000_000 - 60_000)
    state = tmp_path / "w"
    with Serving(federation, tmp_path / "hub") as serving:
        serving.cosign(*map(node_of, HOSPITALS))
        serving.until(lambda: serving.coordinator.sequencer.view.final_size == federation.log.size)
        first = run("ledger", "witness", "--state", state, "--name", NAME, "--once",
                    "--follow", serving.url, "--trust", federation.id, *secret)  # fmt: skip
        assert first.code == 0, first.err
        ready = json.loads(first.out)
        assert ready["logs"] == [federation.origin]
        vkey = ready["witness"]
        assert vkey.startswith(f"{NAME}+")
        assert f"{federation.log.size} entries, cosigned" in first.err
        serving.say(steward_of("basel"), reviewed(1))
        serving.cosign(*map(node_of, HOSPITALS))
        serving.until(lambda: serving.coordinator.sequencer.view.final_size == federation.log.size)
        again = run("ledger", "witness", "--state", state, "--once", *secret)
        assert (again.code, json.loads(again.out)["witness"]) == (0, vkey)
        cosigned = state / "cosigned" / checkpoint_path(federation.origin)
        proof, leaf, policy = (tmp_path / name for name in ("p", "l", "policy"))
        home = ("--at", serving.home)
        assert run("ledger", "proof", 3, *home, "--checkpoint", cosigned, "--out", proof).code == 0
        assert run("ledger", "leaf", 3, *home, "--out", leaf).code == 0
        assert run("ledger", "policy", *home, "--witness", vkey, "--out", policy).code == 0
    said = run("ledger", "check", proof, "--leaf", leaf, "--policy", policy, "--json")
    assert said.code == 0, said.err
    assert NAME in json.loads(said.out)["cosigned"]
    assert len(json.loads(said.out)["cosigned"]) == 4
    away = run("ledger", "witness", "--state", state, "--once", *secret)
    assert away.code == 3


def test_a_log_that_shows_another_history_ends_with_one_and_the_evidence(
    run: Run, tmp_path: Path, secret: tuple[str, Path], web: tuple[Path, str]
) -> None:
    folder, url = web
    honest, forked = Federation.found(HOSPITALS), Federation.found(HOSPITALS)
    assert honest.id == forked.id
    honest.say(steward_of("basel"), reviewed(1))
    for size in range(1, 4):
        forked.say(steward_of("bern"), reviewed(size))
    exported(run, honest, tmp_path / "a", tmp_path / "home-a")
    exported(run, forked, tmp_path / "b", tmp_path / "home-b")
    (tmp_path / "a").rename(folder / "log")
    state = tmp_path / "w"
    options = ("ledger", "witness", "--state", state, "--once", *secret)
    first = run(*options, "--name", NAME, "--follow", f"{url}/log")
    assert first.code == 0, first.err
    assert f"taking {url}/log's word that it is federation {honest.id}" in first.err
    (folder / "log").rename(folder / "before")
    (tmp_path / "b").rename(folder / "log")
    for _ in range(2):  # a restart does not heal it
        said = run(*options)
        assert said.code == 1
        assert "REFUTED: a log has signed two histories; both notes are in" in said.err
    (place,) = (state / "evidence").iterdir()
    assert {file.name for file in place.iterdir()} == {"ours.note", "theirs.note", "ours.proof"}
    assert (place / "theirs.note").read_bytes() == (folder / "log" / "checkpoint").read_bytes()


def test_another_federation_than_the_one_trusted_is_refused(
    run: Run, tmp_path: Path, secret: tuple[str, Path], web: tuple[Path, str]
) -> None:
    folder, url = web
    federation = Federation.found(HOSPITALS)
    exported(run, federation, folder / "log", tmp_path / "home")
    options = ("ledger", "witness", "--state", tmp_path / "w", "--once", *secret)
    said = run(*options, "--name", NAME, "--follow", f"{url}/log", "--trust", "0" * 64)
    assert said.code == 2
    assert f"{url}/log is federation {federation.id}, and you trust 000" in said.err
    said = run("ledger", "witness", "--state", tmp_path / "x", "--once", *secret)
    assert said.code == 2
    assert "holds no witness yet; give it a --name" in said.err
    said = run("ledger", "witness", "--state", tmp_path / "w", "--listen", "nowhere", *secret)
    assert said.code == 2


@pytest.mark.process
def test_a_witness_that_listens_follows_answers_and_ends_on_sigterm(
    run: Run, tmp_path: Path, secret: tuple[str, Path], web: tuple[Path, str]
) -> None:
    folder, url = web
    federation = Federation.found(HOSPITALS)
    exported(run, federation, folder / "log", tmp_path / "home")
    command = [
        sys.executable, "-m", "consilium", "ledger", "witness", "--state", tmp_path / "w",
        "--name", NAME, "--follow", f"{url}/log", "--listen", "127.0.0.1:0", *secret,
    ]  # fmt: skip
    environment = os.environ | {"CONSILIUM_KEY_STRENGTH": "interactive"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    monitored = f"{ready['listening']}/{checkpoint_path(federation.origin)}"
    deadline = time.monotonic() + PATIENCE_S
    while (answer := httpx.get(monitored, timeout=PATIENCE_S)).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    verify_note(answer.content, (parse_vkey(ready["witness"]),))
    assert httpx.get(f"{ready['listening']}/healthz", timeout=PATIENCE_S).text == "ok\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0
    process.stdout.close()
    assert process.stderr is not None
    process.stderr.close()

"""The demo, from founding to reports: real processes, real HTTP, real rows."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ledger.copies.store import LogStore, exclusive_lock
from tests.consilium.conftest import Run

pytestmark = pytest.mark.process


def test_the_demo_ends_with_a_verified_ledger_a_model_and_reports(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    said = run("demo", "--out", out, "--hospitals", 3, "--rounds", 3, "--epsilon", 4, "--json")
    assert said.code == 0, said.err
    result = json.loads(said.out.splitlines()[-1])
    assert result["verify"]["ok"]
    assert set(result["verify"]["checks"].values()) == {"proved"}
    assert [h["name"] for h in result["hospitals"]] == ["basel", "bern", "chur"]
    for hospital in result["hospitals"]:
        assert 0 < hospital["epsilon_spent"] <= hospital["epsilon_budget"] == 4
        assert hospital["epsilon_pld"] <= 4.001
        assert (hospital["rounds_trained"], hospital["rounds_measured"]) == (3, 2)
        assert hospital["contribution"]["shapley"] is not None
    assert sum(h["contribution"]["shapley"] for h in result["hospitals"]) == pytest.approx(1)
    assert len(result["round_seconds"]) == result["rounds"] == 3
    model = Path(result["model"]["path"]).read_bytes()
    assert hashlib.sha256(model).hexdigest() == result["model"]["sha256"]
    for path in (*result["reports"].values(), result["bundle"]):
        assert Path(path).stat().st_size > 0

    # Everything has stopped, and what is left can still be read and verified.
    genesis = out / "genesis.leaf"
    verified = run("audit", "verify", out, "--trust", genesis)
    assert verified.code == 0, verified.out
    assert "the one that you trust" in verified.out
    listed = run("dataset", "list", "--at", out, "--json")
    assert [d["dataset"] for d in json.loads(listed.out)] == [
        "basel-cells", "bern-cells", "chur-cells",
    ]  # fmt: skip
    downloads = run("ledger", "list", "--at", out, "--type", "model.downloaded", "--json")
    assert len(json.loads(downloads.out)) == 1
    again = run("demo", "--out", out)
    assert again.code == 2
    assert "is not empty" in again.err


def test_a_folder_without_the_files_is_named_and_nothing_starts(run: Run, tmp_path: Path) -> None:
    said = run("demo", "--data", tmp_path, "--out", tmp_path / "out")
    assert said.code == 2
    assert "holds no processed.cleveland.data" in said.err
    assert not (tmp_path / "out").exists()


def test_a_demo_that_is_told_to_stop_takes_its_services_with_it(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    demo = subprocess.Popen(
        [sys.executable, "-m", "consilium", "demo", "--out", str(out), "--hospitals", "2"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert demo.stderr is not None
    for line in demo.stderr:
        if "dataset register" in line:  # the coordinator runs, and nodes are about to
            break
    demo.send_signal(signal.SIGTERM)
    rest = demo.stderr.read()
    assert demo.wait() == 130
    assert "Traceback" not in rest
    url = f"sqlite:///{out / 'coordinator' / 'ledger.db'}"
    with closing(LogStore.open(url)) as store, exclusive_lock(url):
        assert store.size() > 1  # nobody else holds the lock: the coordinator has ended


def test_an_epsilon_that_is_no_number_starts_nothing(run: Run, tmp_path: Path) -> None:
    said = run("demo", "--epsilon", "nan", "--out", tmp_path / "out")
    assert said.code == 2
    assert "--epsilon" in said.err
    assert not (tmp_path / "out").exists()

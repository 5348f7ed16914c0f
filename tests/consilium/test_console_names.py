"""The console answers to the names that browsers reach it by, and to no other."""

from __future__ import annotations

import os
import subprocess
import sys

import httpx
import pytest

from tests.consilium.conftest import Finished, Run


@pytest.mark.process
def test_it_answers_to_a_proxys_name_when_it_was_told_that(finished: Finished) -> None:
    console = [sys.executable, "-m", "consilium", "audit", "console", str(finished.home)]
    with subprocess.Popen(
        [*console, "--port", "0", "--host-name", "ledger.basel.example"],
        stderr=subprocess.PIPE,
        env=os.environ,
        text=True,
    ) as process:
        assert process.stderr is not None
        url = process.stderr.readline().split()[0]
        found = {
            name: httpx.get(url, headers={"host": name}, timeout=30).status_code
            for name in ("localhost", "ledger.basel.example", "evil.example")
        }
        process.terminate()
    assert found == {"localhost": 200, "ledger.basel.example": 200, "evil.example": 400}


def test_a_port_that_cannot_be_is_bad_usage(run: Run, finished: Finished) -> None:
    said = run("audit", "console", finished.home, "--port", "70000")
    assert said.code == 2
    assert "--port" in said.err

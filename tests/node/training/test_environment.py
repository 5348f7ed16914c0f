"""The environment of a training process, and that the engines keep their promises under it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from node.training.process.environment import process_environment

TESTS = Path(__file__).parent


def test_only_what_a_process_needs_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENBLAS_CORETYPE", "PYTHONPATH", "OMP_NUM_THREADS", "CONSILIUM_PASSPHRASE_FILE"):
        monkeypatch.setenv(name, "of the caller")
    monkeypatch.setenv("PATH", "/bin")
    found = process_environment()
    assert found["PATH"] == "/bin"
    assert found["OMP_NUM_THREADS"] == "1"
    assert (Path(found["PYTHONPATH"]) / "node").is_dir()
    assert "of the caller" not in found.values()


def test_the_engines_equal_opacus_and_keep_the_sensitivity_under_it() -> None:
    """This process has loaded its libraries, perhaps as others than a node's: so a new one."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *(str(TESTS / "test_dense.py"), str(TESTS / "test_bookkeeping.py")),
            *("-k", "(removing or equal) and (mlp or gru or residual) and None"),
        ],
        env=process_environment(),
        cwd=TESTS.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout

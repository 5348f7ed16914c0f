"""What a training process tells its libraries, and that the engines keep their promises under it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from node.training.process import libraries
from node.training.process.libraries import library_environment

TESTS = Path(__file__).parent
WIDE = "avx2 avx512f avx512dq avx512cd avx512bw avx512vl avx512_vnni"


def told(monkeypatch: pytest.MonkeyPatch, folder: Path, description: str) -> dict[str, str]:
    file = folder / "cpuinfo"
    file.write_text(description)
    monkeypatch.setattr(libraries, "_PROCESSORS", file)
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    return library_environment()


def described(maker: str, flags: str) -> str:
    return f"processor\t: 0\nvendor_id\t: {maker}\nflags\t\t: fpu {flags}\n\nprocessor\t: 1\n"


def test_wide_products_are_asked_for_where_the_processor_has_their_instructions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    wide = told(monkeypatch, tmp_path, described("AuthenticAMD", WIDE))
    assert wide == threads | {"OPENBLAS_CORETYPE": "SkylakeX"}
    for maker, flags in (
        ("AuthenticAMD", WIDE.replace("avx512vl", "")),
        ("AuthenticAMD", "avx2 fma"),
        ("GenuineIntel", WIDE),  # which OpenBLAS knows
    ):
        assert told(monkeypatch, tmp_path, described(maker, flags)) == threads
    assert told(monkeypatch, tmp_path, "") == threads


def test_nothing_is_asked_for_where_there_is_no_description(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(libraries, "_PROCESSORS", tmp_path / "missing")
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    assert "OPENBLAS_CORETYPE" not in library_environment()


def test_what_was_chosen_already_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert library_environment()["OPENBLAS_CORETYPE"] == "Haswell"


def test_the_engines_equal_opacus_and_keep_the_sensitivity_under_it() -> None:
    """This process has loaded its libraries, perhaps as others than a node's: so a new one."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *(str(TESTS / "test_dense.py"), str(TESTS / "test_bookkeeping.py")),
            *("-k", "(removing or equal) and (mlp or gru or residual) and None"),
        ],
        env=os.environ | library_environment(),
        cwd=TESTS.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout

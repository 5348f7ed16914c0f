"""The outermost shell: help that is quick, codes that mean something, messages and no tracebacks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from consilium.cli import app, explain_failure
from consilium.errors import RefusedByFederation
from coordinator.errors import Halted, HomeUnusable
from ledger.errors import (
    CoordinatorUnreachable,
    ForkDetected,
    MalformedInput,
    RequestRefused,
    StoreUnusable,
)
from tests.consilium.conftest import Finished, Run

HEAVY = ("torch", "opacus", "fastapi", "uvicorn", "sqlalchemy", "scipy", "polars", "numpy", "httpx")
READ = (
    "federation show",
    "member list",
    "coordinator status",
    "node status",
    "dataset check",
    "dataset list",
    "dataset show",
    "dataset budget",
    "experiment check",
    "experiment rehearse",
    "experiment list",
    "experiment show",
    "experiment watch",
    "model list",
    "model metrics",
    "ledger list",
    "ledger show",
    "ledger verify",
    "audit verify",
)


def commands() -> list[tuple[str, ...]]:
    """Every command, as its words."""
    return list(_commands(typer.main.get_command(app), ()))


def _commands(command: object, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    inside = getattr(command, "commands", None)
    if inside is None:
        yield words
        return
    for name, each in inside.items():
        yield from _commands(each, (*words, name))


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    code = f"import sys, consilium.cli\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_package_loads_its_client_only_when_it_is_asked_for() -> None:
    code = (
        "import sys, consilium\n"
        "before = 'ledger' in sys.modules\n"
        "from consilium import Client, Experiment\n"
        "print(before, Client.__name__, Experiment.__name__, 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "Client", "Experiment", "False"]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_explains_itself(words: tuple[str, ...], run: Run) -> None:
    said = run(*words, "--help")
    assert said.code == 0
    assert "Usage: consilium" in said.out
    if words != ("demo",):
        assert "Examples:" in said.out


def test_there_are_the_groups_that_the_documents_name() -> None:
    groups = {words[0] for words in commands()}
    assert groups == {
        "federation", "member", "coordinator", "node", "dataset", "experiment", "model", "ledger",
        "audit", "demo",
    }  # fmt: skip


@pytest.mark.parametrize("words", READ)
def test_every_command_that_reads_can_speak_json(words: str, run: Run) -> None:
    assert "--json" in run(*words.split(), "--help").out


def test_a_mistyped_command_is_a_usage_error_that_says_so(run: Run) -> None:
    said = run("dataset", "chekc")
    assert said.code == 2
    assert "No such command 'chekc'" in said.err
    assert said.out == ""


def test_an_unreachable_coordinator_ends_with_three_and_advice(run: Run) -> None:
    said = run("coordinator", "status", "--url", "http://127.0.0.1:9")
    assert said.code == 3
    assert "http://127.0.0.1:9" in said.err
    assert "Traceback" not in said.err


def test_errors_of_all_packages_have_their_exit_codes() -> None:
    fork = ForkDetected("log", ours=b"a", theirs=b"b", reason="two roots for 3 entries")
    refused = RequestRefused("u", status=409, error="NotAdmitted", where="seq", reason="is 4")
    void = RefusedByFederation("experiment.approved", 7, "stale", "it was too old")
    cases = [
        (MalformedInput("entry", "is empty"), 2, "entry: is empty"),
        (CoordinatorUnreachable("http://hub", "connection refused"), 3, "http://hub"),
        (refused, 4, "is 4"),
        (void, 4, "experiment.approved (entry 7) has no effect: it was too old (stale)"),
        (fork, 1, "two roots for 3 entries"),
        # A service manager tries again after 1, and not after 2.
        (StoreUnusable("log", "cannot be reached"), 1, "log: cannot be reached"),
        (Halted("a write failed"), 1, "start it again"),
        (HomeUnusable(Path("hub"), "is none"), 2, "hub: is none"),
        (ZeroDivisionError("division by zero"), 1, "unexpected ZeroDivisionError"),
    ]
    for error, code, words in cases:
        found, message = explain_failure(error)
        assert found == code
        assert words in message


def test_debug_lets_a_failure_through_with_its_traceback(run: Run) -> None:
    with pytest.raises(CoordinatorUnreachable):
        run("--debug", "coordinator", "status", "--url", "http://127.0.0.1:9")


def test_a_missing_home_is_bad_input_that_says_how_to_get_one(run: Run, tmp_path: object) -> None:
    said = run("experiment", "list", "--home", f"{tmp_path}/nowhere")
    assert said.code == 2
    assert "is no member's home" in said.err
    assert "consilium member join" in said.err


def test_json_is_one_document_on_standard_output_alone(run: Run, finished: Finished) -> None:
    said = run("experiment", "list", "--at", finished.home, "--json")
    assert said.code == 0
    assert [e["status"] for e in json.loads(said.out)] == ["released"]
    assert said.err == ""

"""A stranger's auditor, with the standard library alone, recomputes the budget and catches changes."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.reports.privacy_events import events_json, privacy_events
from audit.standalone import recompute_budget
from audit.standalone.recompute_budget import Refused, recompute
from audit.verification.sources import close_copies, open_copies
from audit.verification.verify import verify
from benchmarks.stdlib_auditor import make
from privacy.calibrate import epsilon_of
from privacy.events import FULL_BATCH, Gaussian
from privacy.filters import step_charge
from tests.audit.conftest import World

SCRIPT = Path(recompute_budget.__file__)


@pytest.fixture(scope="module")
def listed(world: World) -> dict[str, Any]:
    copies = open_copies(str(world.home))
    try:
        found = verify(copies[0])
        assert json.loads(events_json(found)) == json.loads(json.dumps(privacy_events(found)))
        return json.loads(events_json(found))
    finally:
        close_copies(copies)


def test_the_auditor_imports_the_standard_library_alone() -> None:
    imported = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            imported.add(node.module)
    assert imported <= sys.stdlib_module_names | {"__future__"}


def test_it_runs_isolated_over_a_real_ledger_and_refutes_nothing(
    listed: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "events.json"
    path.write_text(json.dumps(listed), encoding="utf-8")
    command = [sys.executable, "-I", "-S", str(SCRIPT), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["events"] == len(listed["events"]) > 0
    assert answer["largest_difference"] <= 1e-9
    assert listed["size"] > 0
    assert len(listed["root"]) == 64, "the list names the ledger that it is of"


def test_a_thousand_events_of_both_lanes_differ_by_no_more_than_a_billionth() -> None:
    found = recompute(make(1000, 20))
    assert found["faults"] == []
    assert found["largest_difference"] <= 1e-9


def _cheaper(document: dict[str, Any]) -> None:
    document["mechanisms"][0]["g"] -= 1


def _cheaper_r(document: dict[str, Any]) -> None:
    document["mechanisms"][0]["r"] //= 2


def _fewer_steps(document: dict[str, Any]) -> None:
    document["events"] = document["events"][1:]


def _less_epsilon(document: dict[str, Any]) -> None:
    document["cells"][0]["epsilon"] -= 1e-6


def _wider_gate(document: dict[str, Any]) -> None:
    document["cells"][0]["g_max"] = int(document["cells"][0]["g_max"] * 1.01)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_cheaper, "in lane G a step; its noise costs"),
        (_cheaper_r, "in lane R a step; its noise costs"),
        (_fewer_steps, "its events sum to"),
        (_less_epsilon, "is stated; recomputed"),
        (_wider_gate, "its gate in lane G admits more than its promise"),
    ],
)
def test_a_changed_list_is_refuted_with_the_place(
    listed: dict[str, Any], change: Callable[[dict[str, Any]], None], said: str
) -> None:
    document = json.loads(json.dumps(listed))
    change(document)
    assert any(said in fault for fault in recompute(document)["faults"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "its format is not"),
        ('{"format": "consilium-privacy-events-v1"}', "it has no list of cells"),
        (
            '{"format": "consilium-privacy-events-v1", "cells": [], "mechanisms": [], '
            '"events": [[0, 0, 1]]}',
            "an event is [cell, mechanism, steps]",
        ),
        ('{"format": NaN}', "NaN is no number"),
        ('{"format"', "Expecting"),
    ],
)
def test_what_is_no_such_list_is_refused_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "events.json"
    path.write_text(text, encoding="utf-8")
    command = [sys.executable, "-I", "-S", str(SCRIPT), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@given(
    st.integers(1, 2**30),
    st.floats(0.25, 200),
    st.integers(1, FULL_BATCH),
    st.integers(101, 6000),
)
def test_both_quadratures_agree_on_any_step(
    sensitivity: int, multiplier: float, sampling: int, order_centi: int
) -> None:
    noise_sd = max(1, int(sensitivity * multiplier))
    if sensitivity / noise_sd > 8:
        return
    event = Gaussian(sensitivity, noise_sd, 1, sampling)
    ours = step_charge(event, order_centi)
    theirs = recompute_budget.renyi(sensitivity, noise_sd, sampling, order_centi)
    assert abs(theirs - ours.r) <= max(3, ours.r * 1e-8)


@given(st.integers(0, 2**46), st.integers(0, 2**46), st.integers(105, 5000))
def test_both_epsilons_agree_on_any_sums(g: int, r: int, order_centi: int) -> None:
    theirs = recompute_budget.lanes_epsilon(g, r, order_centi / 100, 1e-5)
    assert theirs == pytest.approx(epsilon_of(g, r, order_centi, 1e-5), abs=1e-9)


def test_a_list_that_is_not_one_raises_its_own_refusal() -> None:
    with pytest.raises(Refused, match="its format is not"):
        recompute({"format": "something else"})

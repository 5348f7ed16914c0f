"""What an auditor says of cells whose patients have accounts inside the hospital: not recomputable."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from audit.reports.budget import cell_budget, dataset_budget
from audit.reports.certificate import certificate
from audit.reports.privacy_events import events_json
from audit.standalone import recompute_budget
from audit.verification.sources import close_copies, open_copies
from audit.verification.verify import Verification, verify
from tests.audit.conftest import write
from tests.federation import Federation
from tests.one_by_one import start_one_by_one


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Verification, str]:
    federation = Federation.found()
    experiment = start_one_by_one(federation)
    federation.play(experiment)
    world = write(federation, experiment, tmp_path_factory.mktemp("individual"))
    copies = open_copies(str(world.home))
    try:
        return verify(copies[0]), experiment
    finally:
        close_copies(copies)


def test_verification_says_what_it_cannot_recompute_and_what_is_promised_instead(
    played: tuple[Verification, str],
) -> None:
    checks = played[0].report.checks
    said = [check.detail for check in checks if check.step == 11 and "basel-train" in check.detail]
    assert len(said) == 1
    assert "kept inside the hospital, and not recomputable from here" in said[0]
    assert "Promised to each: epsilon 5 at delta 1e-05" in said[0]
    verdicts = {check.verdict for check in checks if check.step == 11}
    assert verdicts == {"proved", "not_checkable"}  # the other cells are
    assert all(check.verdict == "proved" for check in checks if check.step in (9, 10))
    assert not [check for check in checks if check.verdict == "refuted"]


def test_the_budget_shows_the_most_that_any_patient_can_have_lost(
    played: tuple[Verification, str],
) -> None:
    found, _ = played
    budget = cell_budget(found.history, found.state, "basel-train")
    assert budget.individual
    assert 1.5 < budget.epsilon <= 2.0
    assert [event.event.steps for event in budget.events] == [2]
    assert budget.curve == ()
    assert dataset_budget(found.history, found.state, "basel-heart").more_like_last is not None


def test_the_certificate_says_so_too(played: tuple[Verification, str]) -> None:
    made = certificate(played[0], played[1], now_ms=0, by="a test")
    said = [line for line in made.limits if "not recomputable from here" in line]
    assert len(said) == 2
    assert said[0].startswith("Patients of basel-train are accounted for one by one")
    cell = next(cell for cell in made.cells if cell.cell == "basel-train")
    assert 1.5 < cell.epsilon <= 2.0


def test_the_strangers_auditor_names_them_and_recomputes_the_rest(
    played: tuple[Verification, str], tmp_path: Path
) -> None:
    path = tmp_path / "events.json"
    path.write_bytes(events_json(played[0]))
    script = recompute_budget.__file__
    command = [sys.executable, "-I", "-S", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert sum("not recomputable from here" in line for line in lines) == 2
    assert json.loads(lines[-1])["not_recomputable"] == 2
    listed = json.loads(path.read_bytes())
    assert {cell["cell"] for cell in listed["cells"]} == {"basel-test", "bern-test", "chur-all"}

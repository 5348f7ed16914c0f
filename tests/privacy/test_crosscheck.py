"""Our numbers beside other people's accountants, and theirs beside the published table."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import Any

import pytest

from privacy.calibrate import compose_epsilon, plan_noise
from privacy.crosscheck import (
    grid_interval,
    opacus_epsilons,
    pld_epsilon,
    rdp_epsilon_dp_accounting,
)
from privacy.errors import InvalidParameter
from privacy.events import FULL_BATCH, GRID, Gaussian
from privacy.filters import limit_for, step_charge
from privacy.opacus_probe import probe
from privacy.selfaudit.known_answers import SAMPLED

A_FIFTH = Gaussian(GRID, GRID, 100, FULL_BATCH // 5)


@pytest.mark.parametrize(("sampling", "pld", "rdp"), SAMPLED)
def test_a_hundred_steps_at_sigma_one_cost_what_the_table_says(
    sampling: int, pld: float, rdp: float
) -> None:
    event = Gaussian(GRID, GRID, 100, sampling)
    assert pld_epsilon([event], 1e-4) == pytest.approx(pld, abs=1e-3)
    assert rdp_epsilon_dp_accounting([event], 1e-4) == pytest.approx(rdp, abs=1e-3)
    assert pld < compose_epsilon([event], 1e-4) < rdp


def test_the_closed_form_and_pld_agree_on_full_batches() -> None:
    events = [Gaussian(GRID, 4 * GRID, 20), Gaussian(10, 32, 2), Gaussian(GRID, 50 * GRID, 3)]
    closed = compose_epsilon(events, 1e-5)
    assert closed <= pld_epsilon(events, 1e-5) < closed * (1 + 1e-5)
    assert closed < rdp_epsilon_dp_accounting(events, 1e-5) < closed * 1.1


@pytest.mark.parametrize("sampling", [FULL_BATCH, FULL_BATCH // 5])
@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_a_plan_calibrated_to_a_budget_stays_inside_it_by_pld(
    sampling: int, epsilon: float
) -> None:
    limit = limit_for(epsilon, 1e-5)
    metrics = Gaussian(GRID, 6 * GRID, 1)
    noise_sd = plan_noise(limit, [step_charge(metrics, limit.order_centi)], GRID, 20, sampling)
    events = [metrics, Gaussian(GRID, noise_sd, 20, sampling)]
    # At the lane's own delta PLD's grid may end a little above the exact value, never far.
    assert pld_epsilon(events, 5e-6) < epsilon * (1 + 1e-5)
    assert pld_epsilon(events, 1e-5) < epsilon


def test_equal_mechanisms_in_two_events_are_one_for_the_accountant() -> None:
    half = Gaussian(GRID, GRID, 50, FULL_BATCH // 5)
    assert pld_epsilon([half, half], 1e-4) == pytest.approx(pld_epsilon([A_FIFTH], 1e-4), rel=1e-12)


def test_nothing_released_costs_nothing() -> None:
    for events in ([], [Gaussian(GRID, GRID, 0)]):
        assert pld_epsilon(events, 1e-5) == 0.0
        assert rdp_epsilon_dp_accounting(events, 1e-5) == 0.0
        assert opacus_epsilons(events, 1e-5) == {"rdp": 0.0, "gdp": 0.0, "prv": 0.0}


def test_the_loss_grid_is_a_tenth_of_the_smallest_events_sd_within_its_bounds() -> None:
    assert grid_interval([]) == 1e-3
    assert grid_interval([Gaussian(GRID, GRID)]) == 1e-3
    assert grid_interval([Gaussian(1, 1000, 1), Gaussian(1, 1)]) == pytest.approx(1e-4)
    assert grid_interval([Gaussian(1, 1000, 100)]) == pytest.approx(1e-3)
    assert grid_interval([Gaussian(1, 10, 100, FULL_BATCH // 100)]) == pytest.approx(1e-4, rel=0.01)
    assert grid_interval([Gaussian(1, 10**9)]) == 1e-5


@pytest.mark.parametrize("check", [pld_epsilon, rdp_epsilon_dp_accounting, opacus_epsilons])
def test_a_delta_out_of_range_is_refused(check: Any) -> None:
    with pytest.raises(InvalidParameter, match="delta = 1"):
        check([A_FIFTH], 1)


@pytest.mark.skipif(
    importlib.util.find_spec("opacus") is None, reason="opacus (extra 'train') is not installed"
)
def test_opacus_answers_from_a_process_of_its_own() -> None:
    answers = opacus_epsilons([A_FIFTH], 1e-4)
    assert answers["rdp"] == pytest.approx(14.146, abs=1e-3)
    assert answers["prv"] == pytest.approx(12.679, abs=1e-3)
    # The reason why it may never judge: below PLD's lower bound of 12.663.
    assert answers["gdp"] == pytest.approx(12.568, abs=1e-3)
    assert answers["rdp"] == pytest.approx(compose_epsilon([A_FIFTH], 1e-4), rel=1e-3)


def test_an_absent_opacus_is_a_reason_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus.accountants", None)
    answers = probe([(1.0, 0.2, 100)], 1e-4)
    assert set(answers) == {"rdp", "gdp", "prv"}
    assert all("opacus is not installed" in str(reason) for reason in answers.values())


@pytest.mark.parametrize(
    ("happens", "reason"),
    [
        (subprocess.TimeoutExpired("probe", 9), "no answer within 9 s"),
        (subprocess.CalledProcessError(1, "probe", stderr="x\nBoom: y"), "probe failed: Boom: y"),
        (OSError("no fork"), "could not be read: no fork"),
    ],
)
def test_a_probe_that_fails_is_a_reason_for_each_accountant(
    monkeypatch: pytest.MonkeyPatch, happens: Exception, reason: str
) -> None:
    def run(*_: object, **__: object) -> None:
        raise happens

    monkeypatch.setattr("privacy.crosscheck.subprocess.run", run)
    answers = opacus_epsilons([A_FIFTH], 1e-4, timeout_s=9)
    assert all(reason in str(answer) for answer in answers.values())
    assert set(answers) == {"rdp", "gdp", "prv"}


def test_an_answer_without_a_number_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = subprocess.CompletedProcess("probe", 0, json.dumps({"rdp": 1.5, "gdp": None}), "")
    monkeypatch.setattr("privacy.crosscheck.subprocess.run", lambda *_, **__: answer)
    expected = {"rdp": 1.5, "gdp": "no answer", "prv": "no answer"}
    assert opacus_epsilons([A_FIFTH], 1e-4) == expected


def test_the_package_imports_neither_torch_nor_dp_accounting() -> None:
    modules = "events filters curves calibrate noise histogram crosscheck opacus_probe"
    code = (
        f"import sys; [__import__('privacy.' + m) for m in '{modules}'.split()]; "
        "print([m for m in ('torch', 'opacus', 'dp_accounting') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""The page of privacy numbers says what the code computes: the cheap columns, all of them."""

from __future__ import annotations

import pytest

from benchmarks.privacy_chart import chart
from benchmarks.privacy_numbers import Case, cases, least_promise, lifetime
from privacy.calibrate import compose_epsilon
from tests.docs.pages import DOCS

PAGE = (DOCS / "privacy-numbers.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_the_page_states_what_the_lanes_make_of_a_case(case: Case) -> None:
    line = next(line for line in PAGE.splitlines() if line.startswith(f"| {case.name} |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    promise = least_promise(case.events, case.delta, lanes="both")
    assert isinstance(promise, float)
    assert cells[4] == f"{promise:.3f}"
    assert cells[5] == f"{compose_epsilon(case.events, case.delta):.3f}"
    assert float(cells[6]) <= float(cells[5]) + 0.001, "PLD is the tightest, or equal"
    assert float(cells[5]) <= promise


def test_the_filter_admits_what_the_page_says_and_thrice_what_adding_would() -> None:
    five, ten = lifetime(5.0), lifetime(10.0)
    for fit in (five, ten):
        assert (
            f"| ({fit['epsilon']:g}, {fit['delta']:g}) | {fit['mu2_each']} | {fit['experiments']} |"
            in PAGE
        )
    assert five["experiments"] >= 16
    assert ten["experiments"] >= 52
    assert five["experiments"] > 3 * five["by_adding"]


def test_the_picture_shows_the_page_s_own_figures() -> None:
    assert (DOCS / "privacy-numbers.svg").read_text(encoding="utf-8") == chart(PAGE)

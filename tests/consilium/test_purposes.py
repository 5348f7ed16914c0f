"""What the commands make of ``--purpose-budget``, and what they show of purposes."""

from __future__ import annotations

import json

import pytest

from consilium.actions.dataset.purposes import read_parts
from consilium.errors import InputError
from tests.consilium.conftest import Finished, Run


def test_parts_are_read_as_millionths() -> None:
    assert read_parts(["research=2.5", "development=0"]) == {
        "research": 2_500_000,
        "development": 0,
    }


@pytest.mark.parametrize(
    ("written", "why"),
    [
        (["research"], "write PURPOSE=EPSILON"),
        (["science=1"], "is none of: research, public_health"),
        (["research=much"], "'much' is not a number"),
        (["research=-1"], "give an epsilon from 0 to 1000"),
        (["research=NaN"], "give an epsilon from 0 to 1000"),
        (["research=1", "research=2"], "names research twice"),
        (["research=1e-30"], "the least part there is, is research=0.000001"),
    ],
)
def test_a_part_that_is_none_is_refused(written: list[str], why: str) -> None:
    with pytest.raises(InputError, match=why):
        read_parts(written)


def test_a_budget_shows_what_each_purpose_used(run: Run, finished: Finished) -> None:
    found = json.loads(run("dataset", "budget", "basel-heart", "--at", finished.home, "--json").out)
    (cell,) = found["cells"]
    (part,) = cell["purposes"]
    assert part["purpose"] == "research"
    assert part["epsilon"] is None
    assert part["epsilon_spent"] == pytest.approx(cell["epsilon_spent"])
    assert not part["closed"]
    assert "research" in run("dataset", "budget", "basel-heart", "--at", finished.home).out


def test_limiting_nothing_is_refused_with_an_example(run: Run, finished: Finished) -> None:
    said = run("dataset", "limit", "basel-heart", "--home", finished.home)
    assert said.code == 2
    assert "--purpose-budget research=3" in said.err


@pytest.mark.parametrize(
    "words",
    [
        ("dataset", "limit", "basel-heart", "--purpose-budget", "research=3"),
        ("dataset", "describe", "basel-heart", "--epsilon", "0.3"),
        ("member", "revoke", "basel-node"),
    ],
)
def test_what_cannot_be_undone_is_asked_for_first(
    words: tuple[str, ...], run: Run, finished: Finished
) -> None:
    before = json.loads(run("ledger", "list", "--at", finished.home, "--json").out)
    said = run(*words, "--home", finished.home)
    assert said.code == 2
    assert "for good" in said.err
    assert "say --yes" in said.err
    assert json.loads(run("ledger", "list", "--at", finished.home, "--json").out) == before

"""The state's bytes and digest: the same for the same entries, whatever the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from immutables import Map
from msgspec.structs import fields

from ledger.rules import experiment_state
from ledger.rules import state as whole_state
from ledger.rules.encoding import digest, encode
from ledger.rules.state import State, TimeMark, replace
from privacy.filters import Spend
from tests.federation import Federation, node_of
from tests.ledger.facts import HOSPITALS, base, cell_of, experiment_of, fold, reserve_op

ROOT = Path(__file__).parents[3]
PRINT = "from tests.ledger.rules.test_state import digest, story; print(digest(story()))"


def story() -> State:
    """Members, datasets, an experiment that was played to its end."""
    federation = Federation.found(HOSPITALS)
    federation.play(federation.start())
    return federation.state


def test_two_who_folded_the_same_entries_hold_the_same_digest() -> None:
    first, second = story(), story()
    assert first == second
    assert encode(first) == encode(second)
    assert digest(first) == digest(second)


def test_the_digest_does_not_depend_on_a_processes_hash_seed() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", PRINT],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "77")
    }
    assert digests == {digest(story()) + "\n"}


def test_maps_and_sets_are_written_in_order_whatever_order_they_grew_in() -> None:
    state = base()
    for name in ("members", "keys", "cells", "datasets", "experiments"):
        items = list(getattr(state, name).items())
        turned: Map[str, object] = Map()
        for key, value in reversed(items):
            turned = turned.set(key, value)
        other = replace(state, **{name: turned})  # type: ignore[arg-type]
        assert encode(other) == encode(state)
    plain = json.loads(encode(state))
    assert list(plain) == sorted(plain)
    assert list(plain["members"]) == sorted(plain["members"])


def test_every_field_is_in_the_bytes() -> None:
    state = base()
    assert digest(replace(state, log_time=state.log_time + 1)) != digest(state)
    marks = (*state.time_marks, TimeMark(9, 9))
    assert digest(replace(state, time_marks=marks)) != digest(state)
    assert digest(fold(state, node_of("basel"), reserve_op(state, experiment_of(state)))) != digest(
        state
    )
    plain = json.loads(encode(state))
    assert set(plain) == {field.name for field in fields(State)}
    terms = plain["datasets"]["basel-heart"]["terms"]
    assert "schema" in terms  # the name that entries use


def test_an_integer_that_json_cannot_hold_is_written_as_its_digits() -> None:
    state = fold(Federation.found(HOSPITALS).state, node_of("basel"), cell_of("basel"))
    cell = state.cells["basel-all"]
    for g, written in ((2**53 - 1, 2**53 - 1), (2**53, str(2**53)), (2**90, str(2**90))):
        spend = Spend(g, 0, g_overflowed=True)
        huge = replace(state, cells=state.cells.set("basel-all", replace(cell, spend=spend)))
        assert json.loads(encode(huge))["cells"]["basel-all"]["spend"]["g"] == written


def test_an_older_state_stays_as_it_was() -> None:
    state = base()
    before = digest(state)
    fold(state, node_of("basel"), reserve_op(state, experiment_of(state)))
    assert digest(state) == before


def test_a_copy_of_a_record_keeps_what_is_not_changed_and_refuses_what_it_has_not() -> None:
    state = story()
    for record in (state, *state.experiments.values(), *state.keys.values()):
        name, *others = (field.name for field in fields(record))
        copy: Any = replace(record, **{name: "other"})  # type: ignore[arg-type]
        assert getattr(copy, name) == "other"
        assert all(getattr(copy, other) is getattr(record, other) for other in others)
        with pytest.raises(TypeError):
            replace(record, misspelt=1)  # type: ignore[call-arg]


def test_an_experiment_s_sites_are_those_of_its_plan_and_of_no_other() -> None:
    experiment = next(iter(story().experiments.values()))
    assert list(experiment.sites) == [site.dataset for site in experiment.plan.sites]
    assert experiment.sites is replace(experiment, reason="other").sites
    fewer = replace(experiment.plan, sites=experiment.plan.sites[:1])
    for _ in range(100):  # a plan that is gone leaves its place in memory to others
        copied = replace(fewer)
        assert len(replace(experiment, plan=copied).sites) == 1
    assert len(experiment.sites) == len(experiment.plan.sites) > 1


def test_no_record_that_is_copied_checks_itself_when_made() -> None:
    found = [
        value
        for module in (whole_state, experiment_state)
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
    ]
    assert len(found) > 20
    assert not [record for record in found if hasattr(record, "__post_init__")]

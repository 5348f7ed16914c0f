"""Hospitals with promises of three kinds come into a new log from the middle of a masked round."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.experiment.privacy_spec import Privacy
from ledger.experiment.schema import PatientColumn, Schema
from ledger.rules.individual import is_individual
from node.data.renewal import Asked
from tests.node.service.played import Misbehaving, finish
from tests.node.service.test_succession import move, succeed
from tests.node.town import Town, small_schema, small_spec, small_table
from tests.one_by_one import STRETCHED

HOSPITALS = ("basel", "bern", "chur", "davos")
DATASETS = [f"{name}-heart" for name in HOSPITALS]


@pytest.fixture
def town(tmp_path: Path, quick_keys: None) -> Iterator[Town]:
    with Town(tmp_path, HOSPITALS) as built:
        yield built


def numbered(path: Path) -> tuple[Path, Schema]:
    """The small table with a number for each patient, and its schema."""
    plain = small_table(path).read_text().splitlines()
    lines = [f"patient,{plain[0]}", *(f"p{n},{row}" for n, row in enumerate(plain[1:]))]
    path.write_text("\n".join(lines) + "\n")
    schema = small_schema("basel-heart")
    number = PatientColumn(type="patient_id", name="patient")
    return path, schema.model_copy(update={"columns": (number, *schema.columns)})


def ask(town: Town, name: str, privacy: Privacy = STRETCHED) -> str:
    """A masked experiment of all, each with its own noise."""
    asked = small_spec(
        DATASETS, name=name, privacy=privacy, rounds=1, secure_aggregation=True, quorum=3
    )
    experiment = town.propose(asked)
    for dataset in DATASETS:
        town.approve(experiment, dataset)
    return experiment


def test_accounts_and_periods_come_along_and_the_next_masked_rounds_are_paid(town: Town) -> None:
    town.offer("basel", *numbered(town.directory / "basel.csv"), individual=True)
    town.offer("bern", renewing=Asked(30, time.time_ns() // 10**6))
    for name in HOSPITALS[2:]:
        town.offer(name)
    slow = {name: Misbehaving(before=[1.5]) for name in HOSPITALS}
    for name in HOSPITALS:
        town.start_node(name, slow[name])
    first = ask(town, "first")
    town.until(lambda: len(town.experiment(first).reservations) == len(HOSPITALS))
    town.until(lambda: all(trainer.jobs for trainer in slow.values()))
    size = town.state.size
    town.until(lambda: town.coordinator.sequencer.view.final_size >= size)
    for person in town.people.values():
        person.follow()
    for name in HOSPITALS:
        town.stop_node(name)
    town.stop_coordinator()

    before = town.state.cells
    move(town, succeed(town))
    assert {n: c.spend for n, c in town.state.cells.items()} == {
        n: c.spend for n, c in before.items()
    }
    nodes = {name: town.start_node(name) for name in HOSPITALS}
    town.until(lambda: all(town.state.members[f"{h}-node"].ready for h in HOSPITALS))
    for name, node in nodes.items():
        cells = node.register.view.cells
        if name == "basel":
            (alone,) = (cell for cell in cells.values() if is_individual(cell.terms))
            assert alone.spend.g > 0, "a round was under way: its worst case, for all"
        elif name == "bern":
            (cell,) = cells.values()
            assert cell.periods is not None
            assert (cell.periods.open_g, cell.periods.open_r) == (0, 0)
            assert cell.spend == before["bern-all"].spend, "in full, in this period"
        else:
            assert cells[f"{name}-all"].spend == before[f"{name}-all"].spend
    second = ask(town, "second")
    finish(town, second)
    assert town.state.cells["bern-all"].spend.g > before["bern-all"].spend.g

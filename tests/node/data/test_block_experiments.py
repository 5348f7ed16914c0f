"""Experiments on calendar blocks: which cells they charge, whose rows they read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ledger.entries.operations.datasets import CellUse
from ledger.errors import PlanRefused
from ledger.experiment.plan.check import check_plan
from ledger.experiment.plan.compilation import compile_plan
from ledger.experiment.plan.sites import Site
from ledger.experiment.spec import ExperimentSpec
from ledger.formats.documents import encode_document
from ledger.formats.value import replace
from node.data.holdings import Holdings, RowsAsked
from node.data.registration import Prepared
from tests.federation import RESEARCHER, Federation
from tests.node.data.registered import KEY, schema
from tests.node.data.yearly import YEARS, Hospital, people


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path)


def two_blocks(hospital: Hospital) -> tuple[Federation, Prepared]:
    hospital.register(people(0, 100), YEARS[0])
    later = hospital.register(
        people(0, 200), YEARS[2], declared=200, calendar={"new_patients": 100}
    )
    return hospital.saying.federation, later


def spec_of(federation: Federation, **changed: Any) -> ExperimentSpec:
    spec = federation.spec(["basel-heart"], privacy=None, **changed)
    return spec.model_copy(update={"features": ("age",)})


def test_an_experiment_charges_the_blocks_that_it_declares(hospital: Hospital) -> None:
    federation, _ = two_blocks(hospital)
    dataset = federation.state.datasets["basel-heart"]
    cells = {use.cell: federation.state.cells[use.cell].terms for use in dataset.terms.cells}
    place = Site(dataset.registration, dataset.terms, cells, schema(declared=200, ids=True))
    for blocks, divisor in (((), 140), (("2026",), 70), (("2027",), 70), (("2026", "2027"), 140)):
        spec = spec_of(federation, blocks=blocks)
        plan = compile_plan(spec, [place], federation.put(b"model"))
        check_plan(spec, [place], plan)
        site = plan.sites[0]
        charged = {charge.cell for release in site.releases for charge in release.charges}
        wanted = blocks or ("2026", "2027")
        assert charged == {f"basel-{b}-{h}" for b in wanted for h in ("train", "test")}
        assert site.divisor == divisor
        other = spec_of(federation, blocks=("2027",) if blocks != ("2027",) else ("2026",))
        with pytest.raises(PlanRefused):
            check_plan(other, [place], plan)
    with pytest.raises(PlanRefused, match="it has: 2026, 2027"):
        compile_plan(spec_of(federation, blocks=("2030",)), [place], federation.put(b"model"))


def test_patients_of_other_blocks_are_dropped(hospital: Hospital) -> None:
    federation, later = two_blocks(hospital)
    declared = schema(declared=200, ids=True)
    spec = encode_document(spec_of(federation))

    def units(*blocks: str) -> tuple[int, int]:
        train, test = Holdings().halves(
            RowsAsked(
                Path(later.record.path),
                encode_document(declared),
                KEY,
                spec,
                later.record.sha256,
                blocks=frozenset(blocks),
                patients=hospital.file,
                snapshot=later.record.snapshot,
            )
        )
        return train.units, test.units

    first, second, both = units("2026"), units("2027"), units("2026", "2027")
    assert sum(first) == sum(second) == 100
    assert tuple(np.add(first, second)) == both
    assert sum(units("2030")) == 0


def test_the_fold_takes_a_plan_that_charges_whole_blocks_only(hospital: Hospital) -> None:
    federation, _ = two_blocks(hospital)
    op = federation.proposal(spec_of(federation, blocks=("2027",)))
    site = op.plan.sites[0]
    cut = replace(
        site.releases[0],
        charges=tuple(replace(c, cell="basel-2026-train") for c in site.releases[0].charges),
    )
    mixed = replace(site, releases=(cut, *site.releases[1:]))
    bad = replace(op, plan=replace(op.plan, sites=(mixed,)))
    assert federation.take(federation.entry(RESEARCHER, bad)).outcome.void == "plan_invalid"
    assert federation.take(federation.entry(RESEARCHER, op)).outcome.void is None


def test_a_use_of_a_cell_is_what_its_half_says(hospital: Hospital) -> None:
    made = hospital.register(people(0, 20), YEARS[0])
    assert CellUse(cell="basel-2026-train", use="train") in made.dataset.cells

"""A patient with very many rows, in the fast engine: others' sums stay, and the patient moves them by C at most."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from ledger.experiment.fast_clip import ROWS_EACH
from ledger.experiment.schema import Schema
from ledger.experiment.spec import ExperimentSpec
from ledger.formats.documents import encode_document
from ledger.formats.strict import canonical
from ledger.formats.value import replace
from node.data.holdings import Holdings
from node.errors import JobRefused
from node.training.process.frames import Job
from node.training.rounds.one_round import PreparedRound
from node.training.rounds.train import start_torch
from privacy.noise import TestRng
from tests.node.cases import CLIP, NOISE, SPLIT_KEY, first_model, heart_spec, schema, site_plan

start_torch()
PEOPLE = 10
WARD = schema(
    {"name": "person", "type": "patient_id"},
    {"name": "age", "type": "number", "low": 0, "high": 100, "unit": "years"},
    {"name": "ill", "type": "category", "values": ["0", "1"]},
    test_percent=0,
)


def spec_of(clipping: str) -> ExperimentSpec:
    return heart_spec(
        task={"kind": "binary", "target": "ill", "positive": ["1"]},
        features=["age"],
        federation={"datasets": ["ward"], "strategy": {"name": "fedsgd", "learning_rate": 2}},
        privacy={"epsilon": 1, "engine": "fast", "clipping": clipping},
    )


def prepared(
    path: Path, visits: int, clipping: str, declared: Schema = WARD, **site: int
) -> PreparedRound:
    """A round over ten patients with two rows each, and one more with so many."""
    rows = [f"p{number},{30 + 5 * number},1" for number in range(PEOPLE) for _ in range(2)]
    rows += [f"last,{20 + number % 60},0" for number in range(visits)]
    path.write_text("\n".join(["person,age,ill", *rows]) + "\n")
    spec = spec_of(clipping)
    planned = site_plan(spec, declared, **site)
    releases = [replace(r, engine="fast") for r in planned.releases]
    job = Job(
        kind="train",
        round=1,
        spec=encode_document(spec),
        schema_document=encode_document(declared),
        site=canonical(replace(planned, releases=tuple(releases))),
        model=first_model(spec, declared),
        path=str(path),
        sha256=sha256(path.read_bytes()).hexdigest(),
        split_key=SPLIT_KEY,
    )
    return PreparedRound(job, Holdings(), lambda _: TestRng(1), lambda _purpose, _steps: None)


def exact_sum_of(
    path: Path, visits: int, clipping: str = "flat", declared: Schema = WARD
) -> np.ndarray:
    """The sum of ten patients with two rows each, and of one more with so many."""
    work = prepared(path, visits, clipping, declared)
    source = TestRng(1)
    source.poisson_mask(2**32, PEOPLE + (visits > 0))
    noisy = work.train()
    return noisy - source.gaussian_integers(NOISE, len(noisy))


@pytest.mark.parametrize("clipping", ["flat", "per_layer"])
@pytest.mark.parametrize("visits", [1, ROWS_EACH + 1, 5000])
def test_a_patient_with_many_rows_moves_the_fast_sum_by_the_clip_norm_at_most(
    tmp_path: Path, visits: int, clipping: str
) -> None:
    without = exact_sum_of(tmp_path / "without.csv", 0, clipping)
    together = exact_sum_of(tmp_path / "with.csv", visits, clipping)
    assert without.any()
    moved = int(((together - without) ** 2).sum())
    assert 0 < moved <= CLIP * CLIP


@pytest.mark.parametrize("most", [1, 4, 200])
def test_a_declared_bound_of_rows_is_what_is_read_of_a_patient(tmp_path: Path, most: int) -> None:
    bounded = WARD.model_copy(update={"rows_per_patient": most})
    few = exact_sum_of(tmp_path / "few.csv", most, declared=bounded)
    many = exact_sum_of(tmp_path / "many.csv", most + 7, declared=bounded)
    np.testing.assert_array_equal(few, many)
    assert few.any()


def test_the_rows_that_are_read_are_the_first_ones_of_the_file(tmp_path: Path) -> None:
    """Sorted otherwise, the same patient's other rows are read: the order is the hospital's to choose."""
    work = prepared(
        tmp_path / "all.csv", 40, "flat", WARD.model_copy(update={"rows_per_patient": 3})
    )
    examples = work.training.examples
    assert np.bincount(examples.patients).tolist() == [3, *[2] * PEOPLE]
    ages = (examples.features[:3, 0].astype(np.float64) + 1) * 50
    np.testing.assert_allclose(ages, [20, 21, 22], atol=1e-4)


def test_more_patients_than_registered_are_refused_before_any_intent(tmp_path: Path) -> None:
    """Registration refuses such a table; where it was got round, the node says so before it draws."""
    with pytest.raises(JobRefused, match="more patients or rows than its registration allows"):
        prepared(tmp_path / "eleven.csv", 1, "flat", divisor=5)

"""A patient with very many rows, in the fast engine: others' sums stay, and the patient moves them by C at most."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from ledger.experiment.fast_clip import ROWS_EACH
from ledger.experiment.spec import ExperimentSpec
from ledger.formats.documents import encode_document
from ledger.formats.strict import canonical
from node.data.holdings import Holdings
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


def exact_sum_of(path: Path, visits: int, clipping: str) -> np.ndarray:
    """The sum of ten patients with two rows each, and of one more with so many."""
    rows = [f"p{number},{30 + 5 * number},1" for number in range(PEOPLE) for _ in range(2)]
    rows += [f"last,{20 + number % 60},0" for number in range(visits)]
    path.write_text("\n".join(["person,age,ill", *rows]) + "\n")
    spec = spec_of(clipping)
    planned = site_plan(spec, WARD)
    releases = [r.model_copy(update={"engine": "fast"}) for r in planned.releases]
    job = Job(
        kind="train",
        round=1,
        spec=encode_document(spec),
        schema_document=encode_document(WARD),
        site=canonical(planned.model_copy(update={"releases": tuple(releases)})),
        model=first_model(spec, WARD),
        path=str(path),
        sha256=sha256(path.read_bytes()).hexdigest(),
        split_key=SPLIT_KEY,
    )
    work = PreparedRound(job, Holdings(), lambda _: TestRng(1), lambda _purpose, _steps: None)
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

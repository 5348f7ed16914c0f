"""T1: this node's own training code, run on synthetic rows and held against the plan.

Whole rounds run as in production (``one_round.run_round``: documents, encoding, model, engine, clipping, grid,
noise) for four made-up hospitals whose rows everybody can compute. What comes out is compared with
the clipped sum as a few lines of numpy compute it from the definition, and the difference, in units
of the planned noise, is tested by ``privacy.selfaudit.residuals``: deviation, shape, independence inside a
vector, over rounds and over hospitals. Rounds of several local steps are computed again from the
noise that was drawn and the steps that were *declared*: a step that was taken and not declared, or
declared and not taken, or noise from elsewhere, shows in the first coordinate. The layers that these rounds do not
train have their sums tried without noise (``selftest_networks``).

Promise: no patient's row is touched; an honest node fails with probability at most 1e-7 a run. Not
promised: that the rows of a real table are clipped right (tests compare to the bit, and the proof
does not rest on this), or that the noise is unpredictable.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ledger.entries.operations.datasets import CellCharge
from ledger.entries.operations.plans import Engine, Purpose, Release, SitePlan
from ledger.entries.operations.rounds import RoundKind
from ledger.experiment.network_spec import parameter_shapes
from ledger.experiment.plan.shape import metric_layout, network_of
from ledger.experiment.schema import Schema
from ledger.experiment.spec import ExperimentSpec
from ledger.experiment.tensors import decode_update, pack_model
from ledger.formats.documents import encode_document, parse_document
from ledger.formats.strict import canonical
from node.data.encode import Examples, examples
from node.data.holdings import RowsAsked
from node.data.intake import Table
from node.training.process.frames import Job
from node.training.process.selftest_networks import wrong_sums
from node.training.rounds.one_round import run_round
from privacy.events import FULL_BATCH, GRID
from privacy.noise import Randomness
from privacy.selfaudit.checks import Report, Steps
from privacy.selfaudit.residuals import examine

SITES = ("selftest-a", "selftest-b", "selftest-c", "selftest-d")
ROUNDS_AN_ENGINE = 4
LOCAL_STEPS = 4
_TRAIN, _TEST = 32, 40
_CATEGORIES, _CODES, _NUMBERS, _BINS = 8, 63, 8, 256
_VALUES = 2 * _BINS
"""Values of a vector that are looked at: all of a histogram, all of a gradient but its last."""
_CLIP, _NOISE_SD = GRID // 2, 4 * GRID
_LEARNING_RATE = 0.25
_CHAIN_TOLERANCE = 1e-3
"""Of the planned deviation; float32 and the grid move a chain by a hundredth of it."""

Noise = Callable[[str], Randomness]
Floats = npt.NDArray[np.float64]


def run_selftest(noise: Noise) -> Report:
    """Run the test; about two seconds. torch must have been started (``train.start_torch``).

    Args:
        noise: opens the generators that rounds would use.
    """
    steps = Steps(wrong=wrong_sums())
    vectors = []
    for number, site in enumerate(SITES):
        rows = [
            _residual(site, number, turn, engine, noise, steps)
            for engine in _ENGINES
            for turn in range(ROUNDS_AN_ENGINE)
        ]
        rows.append(_histogram_residual(site, number, noise, steps))
        vectors.append(rows)
        for engine in _ENGINES:
            _chain(site, number, engine, noise, steps)
    return examine(np.array(vectors), steps)


_ENGINES: tuple[Engine, ...] = ("exact", "fast")


class _Rows:
    """A synthetic hospital's halves, where ``Holdings`` would have a file's."""

    def __init__(self, number: int) -> None:
        self._number = number

    def halves(self, asked: RowsAsked) -> tuple[Examples, Examples]:
        schema = parse_document(asked.schema_document, Schema)
        parsed = parse_document(asked.spec, ExperimentSpec)
        table = _table(schema, self._number)
        train = np.arange(table.rows) < _TRAIN
        return examples(table, schema, parsed, train), examples(table, schema, parsed, ~train)


class _Counting:
    """Passes draws on, and counts and keeps them."""

    def __init__(self, rng: Randomness, steps: Steps) -> None:
        self._rng = rng
        self._steps = steps
        self.drawn: list[npt.NDArray[np.int64]] = []

    @property
    def production(self) -> bool:
        return self._rng.production

    def gaussian_integers(self, noise_sd: int, size: int) -> npt.NDArray[np.int64]:
        self._steps.drawn += 1
        values = self._rng.gaussian_integers(noise_sd, size)
        self.drawn.append(values.copy())
        return values

    def expect(self, noise_sd: int, size: int) -> None:
        self._rng.expect(noise_sd, size)

    def poisson_mask(self, sampling: int, size: int) -> npt.NDArray[np.bool_]:
        return self._rng.poisson_mask(sampling, size)

    def below(self, bound: int) -> int:
        return self._rng.below(bound)

    def close(self) -> None:
        self._rng.close()


def _residual(
    site: str, number: int, turn: int, engine: Engine, noise: Noise, steps: Steps
) -> Floats:
    """One gradient round: (sent - clipped sum) / planned deviation."""
    spec = _spec("fedsgd")
    model = _weights(spec, turn)
    round_number = 1 + turn + ROUNDS_AN_ENGINE * _ENGINES.index(engine)
    sent, _ = _run(spec, site, number, "train", round_number, engine, model, noise, steps)
    train, _ = _halves(number, spec)
    return ((sent - _clipped_sum(train, model) * GRID) / _NOISE_SD)[:_VALUES]


def _histogram_residual(site: str, number: int, noise: Noise, steps: Steps) -> Floats:
    """One evaluation of the model of zeros, whose every score is one half."""
    spec = _spec("fedsgd")
    model = np.zeros_like(_weights(spec, 0))
    sent, _ = _run(spec, site, number, "evaluate", 1, "exact", model, noise, steps)
    _, test = _halves(number, spec)
    counts = np.zeros(_VALUES)
    positive = int(test.targets.sum())
    counts[_BINS // 2], counts[_BINS + _BINS // 2] = test.units - positive, positive
    return (sent - counts * GRID) / _NOISE_SD


def _chain(site: str, number: int, engine: Engine, noise: Noise, steps: Steps) -> None:
    """One round of local steps, computed again from its draws and its declared steps."""
    spec = _spec("fedavg")
    model = _weights(spec, number)
    before = steps.declared
    sent, drawn = _run(
        spec, site, number, "train", 1 + _ENGINES.index(engine), engine, model, noise, steps
    )
    declared = steps.declared - before
    train, _ = _halves(number, spec)
    weights = model.copy()
    for step in range(declared):
        own = drawn[step] if step < len(drawn) else np.zeros(len(model), dtype=np.int64)
        noisy = _clipped_sum(train, weights) + own / GRID
        weights = weights - _LEARNING_RATE * noisy / _TRAIN
    scale = _LEARNING_RATE * (_NOISE_SD / GRID) / _TRAIN * np.sqrt(max(1, declared))
    error = float(np.abs(sent / _TRAIN / GRID - (weights - model)).max() / scale)
    steps.broken += not error <= _CHAIN_TOLERANCE


def _run(
    spec: ExperimentSpec,
    site: str,
    number: int,
    kind: RoundKind,
    round_number: int,
    engine: Engine,
    model: Floats,
    noise: Noise,
    steps: Steps,
) -> tuple[Floats, list[npt.NDArray[np.int64]]]:
    """Run a round as a node does; gives what leaves, and the noise that was drawn for it."""
    schema = _schema(site)
    shapes = parameter_shapes(network_of(spec, schema))
    job = Job(
        kind=kind,
        round=round_number,
        spec=encode_document(spec),
        schema_document=encode_document(schema),
        site=canonical(_site(site, engine, spec)),
        model=pack_model(shapes, model),
        path="",
        sha256="0" * 64,
        split_key=bytes(32),
    )
    opened: list[_Counting] = []

    def open_noise(purpose: str) -> Randomness:
        opened.append(_Counting(noise(purpose), steps))
        return opened[-1]

    def before_noise(purpose: Purpose, count: int) -> None:
        steps.declared += count

    update = run_round(job, _Rows(number), open_noise, before_noise)
    layout = metric_layout(spec)
    size = len(model) if kind == "train" or layout is None else layout.size
    values = decode_update(update, size).astype(np.float64)
    return values, [values for one in opened for values in one.drawn]


def _clipped_sum(rows: Examples, weights: Floats) -> Floats:
    """The sum of clipped gradients of logistic regression, from the definition, float64."""
    inputs = np.column_stack([rows.features.astype(np.float64), np.ones(rows.units)])
    error = 1.0 / (1.0 + np.exp(-inputs @ weights)) - rows.targets
    norms = np.abs(error) * np.linalg.norm(inputs, axis=1)
    total: Floats = (error * np.minimum(1.0, _CLIP / GRID / norms)) @ inputs
    return total


@cache
def _halves(number: int, spec: ExperimentSpec) -> tuple[Examples, Examples]:
    schema = encode_document(_schema(SITES[number]))
    return _Rows(number).halves(RowsAsked(Path(), schema, b"", encode_document(spec), ""))


@cache
def _schema(site: str) -> Schema:
    numbers = [{"name": f"n{i}", "type": "number", "low": -1, "high": 1} for i in range(_NUMBERS)]
    codes = [str(code) for code in range(_CODES)]
    categories = [
        {"name": f"c{i}", "type": "category", "values": codes} for i in range(_CATEGORIES)
    ]
    target = {"name": "y", "type": "category", "values": ["0", "1"]}
    return Schema.model_validate(
        {
            "consilium": 1,
            "dataset": site,
            "declared_rows": _TRAIN + _TEST,
            "test_percent": 100 * _TEST // (_TRAIN + _TEST),
            "columns": [*numbers, *categories, target],
        }
    )


@cache
def _spec(strategy: str) -> ExperimentSpec:
    chosen: dict[str, object] = {"name": strategy, "learning_rate": str(_LEARNING_RATE)}
    if strategy == "fedavg":
        chosen["local_steps"] = LOCAL_STEPS
    names = [f"n{i}" for i in range(_NUMBERS)] + [f"c{i}" for i in range(_CATEGORIES)]
    return ExperimentSpec.model_validate(
        {
            "consilium": 1,
            "name": "selftest",
            "title": "Self-test",
            "purpose": "Compare what a node sends with its plan, on synthetic rows.",
            "lawful_basis": "No personal data",
            "until": "2100-01-01",
            "task": {"kind": "binary", "target": "y", "positive": ["1"]},
            "features": names,
            "model": {"preset": "logistic-regression"},
            "federation": {"datasets": list(SITES), "strategy": chosen},
            "privacy": {"epsilon": 1, "metrics": {"bins": _BINS}},
        }
    )


def _site(site: str, engine: Engine, spec: ExperimentSpec) -> SitePlan:
    charges = (CellCharge(cell="selftest", g=1, r=1),)

    def release(purpose: Purpose, sensitivity: int) -> Release:
        return Release(
            purpose=purpose,
            sensitivity=sensitivity,
            noise_sd=_NOISE_SD,
            sampling=FULL_BATCH,
            steps=LOCAL_STEPS,
            engine=engine if purpose == "train" else "exact",
            charges=charges,
        )

    return SitePlan(
        dataset=site,
        registration="0" * 64,
        weight=_TRAIN if spec.federation.strategy.name == "fedavg" else 1,
        divisor=_TRAIN,
        update_bound=2**50,
        epsilon_micro=1,
        releases=(release("train", _CLIP), release("evaluate", GRID)),
    )


def _table(schema: Schema, number: int) -> Table:
    """Rows from a written-down generator: public, and different at each hospital."""
    draw = np.random.default_rng(number)
    rows = _TRAIN + _TEST
    columns: dict[str, npt.NDArray[np.generic]] = {
        f"n{i}": draw.uniform(-1, 1, rows) for i in range(_NUMBERS)
    }
    for i in range(_CATEGORIES):
        columns[f"c{i}"] = draw.integers(0, _CODES, rows).astype(np.int32)
    columns["y"] = draw.integers(0, 2, rows).astype(np.int32)
    return Table(dataset=schema.dataset, rows=rows, columns=columns, patients=None)  # type: ignore[arg-type]


def _weights(spec: ExperimentSpec, turn: int) -> Floats:
    size = _NUMBERS + _CATEGORIES * _CODES + 1
    weights: Floats = np.random.default_rng(1000 + turn).normal(0, 0.2, size)
    return weights

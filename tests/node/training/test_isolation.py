"""One patient whose rows break the computation moves what leaves by no more than is charged.

With the patient a sum that gave up would be zero, without it everybody's: an odd row must not be able to empty a
hospital's vector. Here rows of one patient make losses, products and histograms fail, in every engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ledger.experiment.fast_clip import Limits
from ledger.experiment.plan.shape import metric_layout
from node.data.encode import Examples
from node.data.patient_spend import Allowance, PatientSpend, members_of
from node.training.networks.modules import load_flat
from node.training.rounds import evaluate
from node.training.rounds.evaluate import noisy_histogram
from node.training.rounds.individual import individual_round
from node.training.rounds.train import Training, fedavg_round, noisy_gradient_sum, start_torch
from node.training.sums.bookkeeping import clipped_sum_of
from node.training.sums.dense import DenseSum
from node.training.sums.exact import exact_sum, loss_of
from node.training.sums.isolation import sum_without_failing
from node.training.sums.layerwise import LayerwiseSum
from node.training.sums.noisy_sum import noisy_sum
from privacy.events import FULL_BATCH, GRID
from privacy.filters import g_step
from privacy.noise import TestRng
from tests.node.cases import CLIP, NOISE, heart_spec, random_examples, release
from tests.node.training.test_bookkeeping import case, loss, owners
from tests.node.training.test_train import BINARY, TREES, WIDTH, engine_of

start_torch()
PATIENTS = 40
ODD = 17
"""The patient whose rows make things fail."""
MARK = np.float32(0.123456)


def people(rows: int = 110) -> Examples:
    """Forty patients: each of one row, or of several."""
    made = random_examples(3, rows, WIDTH, patients=None if rows == PATIENTS else PATIENTS)
    features = made.features.copy()
    features[made.patients == ODD, 0] = MARK
    return replace(made, features=features)


def others(batch: Examples) -> Examples:
    stay = np.ones(batch.units, dtype=bool)
    stay[ODD] = False
    return batch.sample(stay)


class OddLoss:
    """Fails after the forward pass of a block that holds the patient, like a kernel that meets its rows."""

    def __init__(self, engine: torch.nn.Module) -> None:
        self._inner = loss_of(BINARY)
        self._odd = False
        engine.register_forward_pre_hook(self._look)

    def _look(self, module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        self._odd = bool((given[0][:, 0] == float(MARK)).any())

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if self._odd:
            raise RuntimeError("a kernel that fails over a row")
        return self._inner(outputs, targets)


class Silent(TestRng):
    """Everybody, and no noise."""

    def gaussian_integers(self, noise_sd: int, size: int) -> Any:
        return np.zeros(size, dtype=np.int64)


def test_a_patient_that_breaks_the_exact_engine_adds_nothing_and_takes_nothing_away() -> None:
    batch = people()
    engine, _ = engine_of(TREES["mlp"])
    plain = exact_sum(engine, others(batch), sensitivity=CLIP, loss=loss_of(BINARY), block=64)
    training = Training(engine, OddLoss(engine), batch, 60)
    found = noisy_gradient_sum(training, release("train"), Silent(1))
    np.testing.assert_array_equal(found, plain)
    assert plain.any()


def test_steps_after_a_failed_pass_are_those_of_the_others_alone() -> None:
    """Opacus' hooks keep what a broken pass stored: it must not be added to the next block or step."""
    batch = people()
    updates = []
    for rows, odd in ((batch, True), (others(batch), False)):
        engine, weights = engine_of(TREES["mlp"])
        training = Training(engine, OddLoss(engine) if odd else loss_of(BINARY), rows, 60)
        updates.append(
            fedavg_round(
                training,
                weights,
                release("train"),
                local_steps=3,
                learning_rate=0.5,
                weight=60,
                update_bound=2**50,
                rng=Silent(1),
                before_noise=lambda purpose, steps: None,
            )
        )
    np.testing.assert_array_equal(*updates)


@pytest.mark.parametrize("kind", [DenseSum, LayerwiseSum])
@pytest.mark.parametrize("rows", [110, PATIENTS])
@pytest.mark.parametrize("fails", ["by raising", "by numbers that are none"])
def test_a_patient_that_breaks_the_fast_engine_moves_it_by_the_clip_norm_at_most(
    kind: type[DenseSum], rows: int, fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = people(rows)
    limits = Limits(2 * PATIENTS, 1000)
    sums = []
    for examples, odd in ((batch, True), (others(batch), False)):
        fast = kind(TREES["mlp"], BINARY, examples, limits)
        fast.load(engine_of(TREES["mlp"])[1])
        if odd:
            _break(fast, examples, fails, monkeypatch)
        sums.append(fast.clipped_sum(None, CLIP))
    together, without = sums
    assert without.any()
    assert ((together - without) ** 2).sum() <= CLIP**2
    # The patient is left out, so what is left of the difference is rounding.
    assert abs(together - without).max() <= 2


def _break(fast: DenseSum, examples: Examples, fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fast._run
    theirs = np.flatnonzero(examples.features[:, 0] == MARK)
    assert len(theirs)

    def broken(rows: Any, weights: Any) -> Any:
        tape = run(rows, weights)
        here = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        if np.isin(theirs, here).any():
            if fails == "by raising":
                raise MemoryError
            tape.gradient[:] = float("nan")
        return tape

    monkeypatch.setattr(fast, "_run", broken)
    if fails != "by raising":  # past what the tape itself makes of such numbers
        summed = fast._sum_units

        def spoilt(units: Any, bound: float) -> Any:
            total = summed(units, bound)
            return total * np.nan if ODD in units else total

        monkeypatch.setattr(fast, "_sum_units", spoilt)


def test_a_failure_that_comes_with_the_size_of_a_set_leaves_nobody_out() -> None:
    asked = []

    def sum_of(units: np.ndarray) -> np.ndarray:
        asked.append(len(units))
        if len(units) > 5:
            raise MemoryError
        return np.array([units.sum()])

    found = sum_without_failing(np.arange(100), sum_of, lambda: np.zeros(1, dtype=np.int64))
    assert found[0] == sum(range(100))
    assert len(asked) < 100


def test_who_fails_alone_is_left_out_whoever_else_is_there() -> None:
    def sum_of(units: np.ndarray) -> np.ndarray:
        if (units % 7 == 3).any():
            raise ValueError
        return np.array([units.sum()])

    for size in (1, 2, 3, 4, 50, 99):
        found = sum_without_failing(np.arange(size), sum_of, lambda: np.zeros(1, dtype=np.int64))
        assert found[0] == sum(one for one in range(size) if one % 7 != 3)


def test_a_patient_that_breaks_the_measurement_counts_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch, spec = people(), heart_spec(task=BINARY.model_dump())
    engine, weights = engine_of(TREES["mlp"])
    load_flat(engine, weights)
    layout = metric_layout(spec)
    assert layout is not None

    def measured(rows: Examples) -> Any:
        planned = release("evaluate", sensitivity=GRID)
        return noisy_histogram(
            engine,
            rows,
            spec,
            planned,
            declared=60,
            rng=Silent(1),
            before_noise=lambda purpose, steps: None,
        )

    expected = measured(others(batch))
    scored: Callable[..., Any] = evaluate.score

    def broken(module: Any, features: np.ndarray, task: Any, *, block: int) -> Any:
        if (features[:, 0] == MARK).any():
            raise MemoryError
        return scored(module, features, task, block=block)

    monkeypatch.setattr(evaluate, "score", broken)
    np.testing.assert_array_equal(measured(batch), expected)
    assert expected.any()


def test_a_patient_that_breaks_an_individual_sum_pays_in_full_and_others_their_own() -> None:
    batch = people()
    step = g_step(CLIP, NOISE)
    allowance = Allowance(100 * step, 100 * step, PatientSpend.nobody(), PatientSpend.nobody())
    recorded: list[dict[bytes, int]] = []
    totals = []
    planned = release("train", engine="individual")
    for rows, odd in ((batch, True), (others(batch), False)):
        engine, weights = engine_of(TREES["mlp"])
        names = [bytes([65 + unit]) * 32 for unit in range(PATIENTS) if odd or unit != ODD]
        training = Training(engine, OddLoss(engine) if odd else loss_of(BINARY), rows, 60)
        total = individual_round(
            training,
            weights,
            planned,
            members_of(names),
            allowance,
            update_bound=2**50,
            rng=Silent(1),
            before_noise=lambda purpose, steps: None,
            record_charges=lambda cost: recorded.append(
                dict(zip(cost.members.tolist(), cost.spent.tolist(), strict=True))
            ),
        )
        totals.append(total)
    np.testing.assert_array_equal(*totals)
    together, without = recorded
    assert together.pop(bytes([65 + ODD]) * 32) == step
    assert together == without
    assert planned.sampling == FULL_BATCH


@pytest.mark.parametrize("name", ["linear and layer norm", "gru", "shared"])
@pytest.mark.parametrize("patients", [None, 60])
@pytest.mark.parametrize("fails", ["by raising", "by numbers that are none"])
def test_a_patient_that_breaks_an_engine_for_any_module_is_left_out(
    name: str, patients: int | None, fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, inputs, targets = case(name, 150)
    owner = np.arange(150) if patients is None else owners(150, patients)
    theirs = torch.from_numpy(owner == ODD)
    inputs[theirs] = 0.123456
    engine: Any = clipped_sum_of(module, loss, inputs[:64])

    def summed(rows: torch.Tensor, room: torch.Tensor | None = None) -> Any:
        chosen = np.unique(owner[rows.numpy()], return_inverse=True)[1].astype(np.int64)
        return noisy_sum(
            engine,
            inputs[rows],
            targets[rows],
            GRID // 4,
            most_patients=300,
            noise_sd=1,
            rng=Silent(1),
            patients=chosen,
            room=room,
        )

    expected = summed(~theirs)
    for way in ("_add_block", "_add_long"):
        add = getattr(engine, way)

        def broken(*given: Any, add: Callable[..., None] = add) -> None:
            add(*given)
            if (given[0] == 0.123456).flatten(1).all(dim=1).any():
                given[-1].fill_(3.0 if fails == "by raising" else torch.nan)
                if fails == "by raising":
                    raise RuntimeError("half of the sum is written")

        monkeypatch.setattr(engine, way, broken)
    room = torch.zeros(engine.parameters, dtype=torch.float64)
    found = summed(torch.ones(150, dtype=torch.bool), room)
    np.testing.assert_array_equal(found, room.view(torch.int64).numpy())
    assert np.abs(found - expected).max() <= 2 + 1e-5 * GRID // 4
    assert expected.any()

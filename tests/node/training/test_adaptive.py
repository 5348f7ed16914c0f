"""Adaptive clipping at the node: one joint vector within the charged sensitivity, whatever norm is stated."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from opacus.optimizers import AdaClipDPOptimizer

from ledger.experiment.adaptive_clip import SPAN, round_shapes, split
from ledger.experiment.average import initial_model, server_step
from ledger.experiment.plan.shape import network_of
from ledger.experiment.spec import ExperimentSpec
from ledger.experiment.tensors import decode_update, pack_model
from ledger.formats.strict import canonical
from node.data.encode import Examples
from node.data.holdings import Holdings
from node.errors import JobRefused
from node.training.networks.modules import load_flat
from node.training.process.frames import Job
from node.training.rounds import one_round
from node.training.rounds.one_round import run_round
from node.training.rounds.train import Training, noisy_gradient_sum
from node.training.sums.clipping import FLAT, Counting
from node.training.sums.exact import exact_sum, loss_of, per_sample
from privacy.noise import TestRng
from tests.node.cases import (
    CLIP,
    first_model,
    heart_schema,
    heart_spec,
    random_examples,
    release,
    site_plan,
)
from tests.node.training.test_rounds import Listener, file, job_for  # noqa: F401
from tests.node.training.test_train import BINARY, TREES, WIDTH, engine_of, stock_network

SHARE = Decimal("0.05")
PARTS = split(CLIP, SHARE)
PRIVACY = {"epsilon": 1, "clipping": {"kind": "adaptive"}, "baseline": {"rounds": 3}}


def summed(name: str, batch: Examples, norm: float) -> Any:
    engine, _ = engine_of(TREES[name])
    return exact_sum(
        engine,
        batch,
        sensitivity=CLIP,
        loss=loss_of(BINARY),
        block=64,
        clipping=Counting(norm, SHARE),
    )


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("norm", [0.05, 0.5, 4.0])
def test_the_sum_and_the_count_equal_opacus_adaptive_optimizer(name: str, norm: float) -> None:
    batch = random_examples(1, 200, WIDTH)
    stock = per_sample(stock_network(TREES[name]))
    load_flat(stock, engine_of(TREES[name])[1])
    optimizer = AdaClipDPOptimizer(
        torch.optim.SGD(stock.parameters(), lr=1.0),
        noise_multiplier=0.0,
        target_unclipped_quantile=0.5,
        clipbound_learning_rate=0.2,
        max_clipbound=100.0,
        min_clipbound=0.001,
        unclipped_num_std=1.0,
        max_grad_norm=norm,
        expected_batch_size=None,
        loss_reduction="sum",
    )
    loss = loss_of(BINARY)(stock(torch.from_numpy(batch.features)), torch.from_numpy(batch.targets))
    with pytest.warns(UserWarning, match="Full backward hook"):
        loss.backward()
    optimizer.clip_and_accumulate()
    theirs = torch.cat([p.summed_grad.ravel() for p in stock.parameters()]).double().numpy()
    ours = summed(name, batch, norm)
    unscaled = ours[:-1] * norm / PARTS.gradient
    atol = 200 * norm * (1 / PARTS.gradient + 1e-6 / norm)
    np.testing.assert_allclose(unscaled, theirs, atol=atol)
    within = int(ours[-1]) / PARTS.count
    assert within == 2 * int(optimizer.unclipped_num) - 200


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("patients", [None, 40])
@pytest.mark.parametrize("norm", [0.5 / SPAN, 0.3, 0.5 * SPAN])
def test_removing_a_patient_moves_the_joint_vector_by_at_most_the_charged_sensitivity(
    name: str, patients: int | None, norm: float
) -> None:
    batch = random_examples(2, 120, WIDTH, patients=patients)
    batch = replace(batch, features=batch.features * 3)
    everybody, longest = summed(name, batch, norm), 0
    for leaver in range(0, batch.units, 7):
        stay = np.ones(batch.units, dtype=bool)
        stay[leaver] = False
        moved = everybody - summed(name, batch.sample(stay), norm)
        assert abs(int(moved[-1])) == PARTS.count
        longest = max(longest, sum(int(value) ** 2 for value in moved))
    assert longest <= CLIP**2
    if norm < 0.01:
        assert longest > 0.99 * CLIP**2


@given(st.floats(0.5 / SPAN, 0.5 * SPAN), st.integers(1000, 2**30), st.integers(0, 2**32))
@settings(max_examples=80, deadline=None)
def test_every_vector_is_within_the_sensitivity_whatever_norm_is_stated(
    norm: float, sensitivity: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    gradients = draw.normal(size=(6, 5)) * 10.0 ** draw.uniform(-12, 30, (6, 1))
    vectors = Counting(norm, SHARE).on_grid(gradients, sensitivity)
    for vector, length in zip(vectors.tolist(), np.linalg.norm(gradients, axis=1), strict=True):
        assert sum(value**2 for value in vector) <= sensitivity**2
        assert (vector[-1] > 0) == (length <= norm)


def test_a_row_that_is_not_finite_is_a_gradient_of_zero() -> None:
    batch = random_examples(4, 30, WIDTH)
    features = batch.features.copy()
    features[7] = np.nan
    stay = np.arange(30) != 7
    expected = summed("mlp", batch.sample(stay), 0.3)
    expected[-1] += PARTS.count
    np.testing.assert_array_equal(summed("mlp", replace(batch, features=features), 0.3), expected)


def test_a_computation_that_fails_over_rows_sends_noise_of_the_same_size() -> None:
    engine, _ = engine_of(TREES["mlp"])
    wrong = random_examples(11, 20, WIDTH + 1)
    training = Training(engine, loss_of(BINARY), wrong, 20, clipping=Counting(0.5, SHARE))
    sent = noisy_gradient_sum(training, release("train"), TestRng(3))
    parameters = sum(p.numel() for p in engine.parameters())
    noise = TestRng(3)
    noise.poisson_mask(release("train").sampling, 20)
    np.testing.assert_array_equal(
        sent, noise.gaussian_integers(release("train").noise_sd, parameters + 1)
    )


def test_the_norm_settles_at_the_quantile_of_the_gradients_norms() -> None:
    batch = random_examples(5, 400, WIDTH)
    asked = {"kind": "adaptive", "quantile": "0.8", "rate": "0.1"}
    spec = adaptive_spec(clipping=asked, rounds=60)
    engine, _ = engine_of(TREES["logistic"])
    model = np.append(np.zeros(WIDTH + 1), 0.5)
    load_flat(engine, model[:-1])
    norms = 0.5 * np.sqrt((batch.features.astype(np.float64) ** 2).sum(axis=1) + 1.0)
    for number in range(60):
        clipping = Counting(float(model[-1]), SHARE)
        sent = exact_sum(
            engine, batch, sensitivity=CLIP, loss=loss_of(BINARY), block=64, clipping=clipping
        )
        noisy = sent + TestRng(number).gaussian_integers(4 * PARTS.count, len(sent))
        model[-1] = server_step(spec, model, noisy, 400)[-1]
    assert np.quantile(norms, 0.75) <= model[-1] <= np.quantile(norms, 0.85)


def adaptive_spec(**changes: Any) -> ExperimentSpec:
    federation = {
        "datasets": ["cleveland-heart"],
        "strategy": {"name": "fedsgd", "learning_rate": 2},
        "rounds": changes.pop("rounds", 20),
    }
    return heart_spec(privacy=PRIVACY | changes, federation=federation)


def test_a_round_sends_one_value_more_and_the_baseline_and_metrics_none(file: Any) -> None:  # noqa: F811
    spec = adaptive_spec()
    for kind, size in (("train", 22), ("baseline", 32)):
        listener = Listener()
        job = job_for(file, kind, spec=spec)  # type: ignore[arg-type]
        update = run_round(job, Holdings(), listener.noise, listener.record)
        assert decode_update(update, size).shape == (size,)
    plain = heart_spec(privacy=PRIVACY | {"clipping": "flat"})
    evaluated = job_for(file, "evaluate", spec=spec, model=first_model(plain, heart_schema()))
    listener = Listener()
    assert len(decode_update(run_round(evaluated, Holdings(), listener.noise, listener.record), 32))


@pytest.mark.parametrize("kind", ["train", "baseline"])
def test_the_norm_of_the_round_is_used_in_training_alone(
    file: Any,  # noqa: F811
    kind: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Training] = []
    honest = one_round.rehearse
    monkeypatch.setattr(one_round, "rehearse", lambda t: (made.append(t), honest(t)))
    run_round(stating(file, 0.25, kind), Holdings(), Listener().noise, Listener().record)
    assert made[0].clipping == (Counting(0.25, SHARE) if kind == "train" else FLAT)


@pytest.mark.parametrize("norm", [0.0, -1.0, 0.5 / 1025, 0.5 * 1025, 1e300])
def test_a_norm_that_no_round_may_have_is_refused_before_any_intent(file: Any, norm: float) -> None:  # noqa: F811
    listener = Listener()
    with pytest.raises(JobRefused, match="within a factor of 1024 of the first one"):
        run_round(stating(file, norm), Holdings(), listener.noise, listener.record)
    assert listener.intents == []


def test_a_plan_of_the_fast_engine_is_refused_before_any_intent(file: Any) -> None:  # noqa: F811
    spec = adaptive_spec()
    planned = site_plan(spec, heart_schema())
    releases = [structs.replace(r, engine="fast") for r in planned.releases]
    site = canonical(structs.replace(planned, releases=tuple(releases)))
    listener = Listener()
    job = job_for(file, "train", spec=spec, site=site)
    with pytest.raises(JobRefused, match="needs the exact engine"):
        run_round(job, Holdings(), listener.noise, listener.record)
    assert listener.intents == []


def stating(file: Any, norm: float, kind: Any = "train") -> Job:  # noqa: F811
    spec = adaptive_spec()
    tree = network_of(spec, heart_schema())
    flat = initial_model(spec, tree)
    flat[-1] = norm
    return job_for(file, kind, spec=spec, model=pack_model(round_shapes(spec, tree), flat))

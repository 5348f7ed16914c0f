"""Attacks on the training code, over made-up rows: honest code passes, broken noise does not."""

from __future__ import annotations

import inspect
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from msgspec import structs

from consilium.experiment import Experiment
from ledger.entries.operations.plans import Plan
from ledger.experiment.schema import Schema
from node.data.encode import Examples
from node.errors import DatasetError, JobRefused
from node.training.attack import canary, one_run
from node.training.attack.canary import CanaryRuns, full_norm, run_canaries, training_release
from node.training.attack.mechanism import AuditedSite, MadeUpRows
from node.training.attack.one_run import run_once
from node.training.attack.shadows import PublicTwins, made_up_pools, train_shadows
from node.training.rounds.train import start_torch
from privacy.noise import Randomness, SecureRandom, TestRng
from privacy.selfaudit.attacks import (
    ONE_RUN_DELTA,
    CanaryFound,
    Proven,
    judge_canaries,
    judge_one_run,
)
from privacy.selfaudit.membership import likelihood_ratios

start_torch()

SCHEMA = Schema.model_validate(
    {
        "consilium": 1,
        "dataset": "alpha",
        "declared_rows": 40,
        "columns": [
            {"name": "a", "type": "number", "low": 0, "high": 10},
            {"name": "b", "type": "number", "low": -1, "high": 1},
            {"name": "c", "type": "category", "values": ["x", "y", "z"]},
            {"name": "y", "type": "category", "values": ["0", "1"]},
        ],
    }
)


ADAPTIVE: Any = {"adaptive": {"kind": "adaptive"}}


@cache
def planned(
    epsilon: int = 10,
    engine: str = "exact",
    strategy: str = "fedsgd",
    clipping: str = "flat",
    views: int = 0,
) -> Any:
    chosen: dict[str, object] = {"name": strategy, "learning_rate": "1"}
    if strategy == "fedavg":
        chosen["local_steps"] = 3
    experiment = Experiment.from_fields(
        {
            "consilium": 1,
            "name": "audited",
            "title": "Audited",
            "purpose": "Try the audit.",
            "lawful_basis": "No personal data",
            "until": "2100-01-01",
            "task": {"kind": "binary", "target": "y", "positive": ["1"]},
            "features": ["a", "b", "c"],
            "model": {"preset": "logistic-regression"},
            "federation": {"datasets": ["alpha", "beta"], "strategy": chosen, "rounds": 2},
            "privacy": {
                "epsilon": epsilon,
                "engine": engine,
                "clipping": ADAPTIVE.get(clipping, clipping),
                "augment": {"copies": views} if views else None,
            },
        }
    )
    schemas = experiment.schemas_for([SCHEMA])
    experiment = experiment.resolved(schemas)
    plan = experiment.check(schemas)
    sites = [
        AuditedSite(experiment.spec, schema, site)
        for schema, site in zip(schemas, plan.sites, strict=True)
    ]
    return plan, sites


class Weak(SecureRandom):
    """A generator that gives half the noise."""

    def gaussian_integers(self, noise_sd: int, size: int) -> npt.NDArray[np.int64]:
        return super().gaussian_integers(max(1, noise_sd // 2), size)


def audited(runs: CanaryRuns, plan: Plan, site: AuditedSite) -> CanaryFound:
    release = training_release(site)
    g = max(charge.g for charge in release.charges) * plan.rounds * plan.steps_per_round
    proven = Proven(float(np.sqrt(g / 2**40)), 100.0, 1e-5)
    return judge_canaries(
        runs.inside,
        runs.outside,
        runs.share,
        runs.steps,
        runs.planned,
        proven,
        only_noise=runs.only_noise,
    )


def open_noise(purpose: str) -> Randomness:
    return SecureRandom()


@pytest.mark.parametrize(
    ("engine", "strategy"), [("exact", "fedsgd"), ("fast", "fedsgd"), ("fast", "fedavg")]
)
def test_honest_code_hides_a_canary_of_the_full_clip_norm(engine: str, strategy: str) -> None:
    plan, (site, _) = planned(10, engine, strategy)
    found = audited(run_canaries(site, plan.rounds, 150, open_noise), plan, site)
    assert not found.contradicts, found.says
    assert 0.99 < found.share <= 1.0 + 1e-9
    assert found.mu_low > 0.2 * found.proven.mu
    assert found.steps.drawn == found.planned == 2 * 150 * plan.rounds * plan.steps_per_round


@pytest.mark.parametrize("clipping", ["per_layer", "adaptive"])
def test_other_ways_to_clip_are_attacked_as_they_train(clipping: str) -> None:
    plan, sites = planned(10, "exact", "fedsgd", clipping)
    found = audited(run_canaries(sites[0], plan.rounds, 150, open_noise), plan, sites[0])
    assert not found.contradicts, found.says
    assert 0.9 < found.share <= 1.0 + 1e-9
    start = np.zeros(plan.parameters)
    if clipping == "adaptive":
        start[-1] = 1.0
    signals, _ = train_shadows(sites, made_up_pools(sites), start, plan.rounds, 8, open_noise)
    assert np.isfinite(signals).all()


def test_views_of_rows_are_left_out_of_an_attack() -> None:
    plan, (site, _) = planned(10, "exact", "fedsgd", "adaptive", 3)
    found = audited(run_canaries(site, plan.rounds, 100, open_noise), plan, site)
    assert not found.contradicts, found.says
    assert found.steps.drawn == found.planned == 2 * 100 * plan.rounds


def test_half_the_noise_is_found() -> None:
    plan, (site, _) = planned()
    found = audited(run_canaries(site, plan.rounds, 300, lambda purpose: Weak()), plan, site)
    assert found.contradicts
    assert found.mu_low > found.proven.mu


def test_a_plan_that_charges_for_fewer_rounds_than_are_run_is_found() -> None:
    plan, (site, _) = planned()
    charged = structs.replace(plan, rounds=1)
    found = audited(run_canaries(site, 8, 300, open_noise), charged, site)
    assert found.mu_low > found.proven.mu


def test_a_step_that_nobody_declared_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, (site, _) = planned(10, "fast", "fedavg")
    from node.training.rounds import one_round

    true = one_round.fedavg_round
    monkeypatch.setattr(
        one_round, "fedavg_round", lambda *a, local_steps, **n: true(*a, local_steps=4, **n)
    )
    found = audited(run_canaries(site, plan.rounds, 100, open_noise), plan, site)
    assert found.steps_differ
    assert found.contradicts


def test_the_canary_of_a_round_of_local_steps_is_as_long_as_the_steps_allow() -> None:
    _, (site, _) = planned(10, "fast", "fedavg")
    release = training_release(site)
    one_step = release.sensitivity / site.plan.divisor * site.plan.weight
    assert full_norm(site) == pytest.approx(3 * one_step)


def test_no_attack_has_a_place_for_a_hospital_s_rows() -> None:
    assert {field.name for field in fields(MadeUpRows)} == {"schema", "rows", "seed"}
    for function in (canary.run_canaries, one_run.run_once):
        kinds = {str(p.annotation) for p in inspect.signature(function).parameters.values()}
        assert not kinds & {"Path", "Table", "Examples", "Halves"}
    assert {field.name for field in fields(AuditedSite)} == {"spec", "schema", "plan"}


def test_made_up_rows_are_the_same_for_everybody_and_within_the_schema() -> None:
    _, (site, _) = planned()
    first, again = (MadeUpRows(SCHEMA, 50, 3).examples(site.spec) for _ in range(2))
    assert first.units == 50
    assert np.array_equal(first.features, again.features)
    assert float(np.abs(first.features).max()) <= 1.0


def test_a_plan_that_trains_nothing_cannot_be_attacked() -> None:
    _, (site, _) = planned()
    measured = structs.replace(site.plan.releases[0], purpose="evaluate")
    idle = AuditedSite(site.spec, site.schema, structs.replace(site.plan, releases=(measured,)))
    with pytest.raises(JobRefused, match="trains nothing"):
        training_release(idle)


@pytest.mark.parametrize("engine", ["exact", "fast"])
def test_the_smoke_alarm_rings_where_there_is_no_noise_to_speak_of(engine: str) -> None:
    plan, (site, _) = planned(10, engine)

    class Next(TestRng):
        def gaussian_integers(self, noise_sd: int, size: int) -> npt.NDArray[np.int64]:
            return super().gaussian_integers(max(1, noise_sd // 1000), size)

    proven = Proven(1.0, 7.0, ONE_RUN_DELTA)
    quiet = judge_one_run(*run_once(site, plan.rounds, 400, open_noise), proven)
    none = judge_one_run(
        *run_once(site, plan.rounds, 400, lambda p: Next(len(p))), Proven(0.2, 1.0, ONE_RUN_DELTA)
    )
    assert not quiet.contradicts
    assert none.contradicts
    assert none.correct == none.guesses


def test_shadows_are_trained_as_the_experiment_is_and_their_members_can_be_told_without_noise() -> (
    None
):
    plan, sites = planned()
    pools = made_up_pools(sites)
    assert [pool.units for pool in pools] == [2 * site.plan.divisor for site in sites]
    told = []
    start = np.zeros(plan.parameters)
    signals, members = train_shadows(
        sites, pools, start, plan.rounds, 8, open_noise, lambda *at: told.append(at)
    )
    assert signals.shape == members.shape == (8, sum(pool.units for pool in pools))
    assert told[-1] == (8, 8)
    assert np.isfinite(likelihood_ratios(signals, members)).any()
    assert 0.3 < members.mean() < 0.7


def test_public_twins_are_divided_among_the_sites_and_checked_like_any_file(tmp_path: Path) -> None:
    _, sites = planned()
    file = tmp_path / "public.csv"
    rows = [f"{i % 10},{(i % 3) - 1},{'xyz'[i % 3]},{i % 2}" for i in range(60)]
    file.write_text("\n".join(["a,b,c,y", *rows]))
    pools = PublicTwins(file).pools(sites)
    assert sum(pool.units for pool in pools) == 60
    assert all(isinstance(pool, Examples) and pool.units > 10 for pool in pools)
    file.write_text("a,b,c,y\n99,0,x,1\n")
    with pytest.raises(DatasetError, match="99"):
        PublicTwins(file).pools(sites)

"""Plans: what a spec implies on given datasets, tight to its target, and nothing else passes."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest

from ledger.entries.operations.plans import Plan
from ledger.errors import PlanRefused
from ledger.experiment.plan.calibration import target_limit
from ledger.experiment.plan.check import check_plan
from ledger.experiment.plan.compilation import compile_plan
from ledger.experiment.plan.quantities import (
    clip_units,
    sampling_units,
    steps_per_round,
)
from ledger.experiment.plan.shape import metric_layout, network_of
from ledger.experiment.plan.sites import cells_of, sites_from
from ledger.formats.strict import canonical
from ledger.rules.experiments import totals
from privacy.events import GRID, Gaussian
from privacy.filters import Limit, step_charge
from tests.federation import Federation
from tests.ledger.experiment.planned import (
    FEDAVG,
    MODEL,
    POISSON,
    VARIANT,
    cell,
    compiled,
    halves,
    release,
    site,
    spec,
)


def fits(limit: Limit, g: int, r: int) -> bool:
    return g <= limit.g_max or r <= limit.r_max


@VARIANT
def test_what_was_compiled_checks_and_compiles_to_the_same_again(name: str) -> None:
    wanted, sites, plan = compiled(name)
    check_plan(wanted, sites, plan)
    assert compile_plan(wanted, sites, MODEL) == plan
    assert Plan.read(canonical(plan)) == plan


@VARIANT
def test_a_plan_meets_its_target_in_every_cell(name: str) -> None:
    wanted, sites, plan = compiled(name)
    for place, planned in zip(sites, plan.sites, strict=True):
        charges = totals(planned.releases)
        assert {charge.cell for charge in charges} == set(place.cells)
        for charge in charges:
            assert fits(target_limit(wanted, place.cells[charge.cell]), charge.g, charge.r)
        assert planned.epsilon_micro <= float(wanted.privacy.epsilon) * 10**6


@VARIANT
def test_a_plan_is_tight_the_next_smaller_noise_exceeds_the_target(name: str) -> None:
    wanted, sites, plan = compiled(name)
    train = release(plan, "train")
    over = []
    for charge in totals(plan.sites[0].releases):
        place = sites[0].cells[charge.cell]
        if charge.cell not in cells_of(sites[0], "train"):
            continue
        order = place.limit.order_centi
        now, less = (
            step_charge(Gaussian(train.sensitivity, sd, 1, train.sampling), order)
            for sd in (train.noise_sd, train.noise_sd - 1)
        )
        g = charge.g + train.steps * (less.g - now.g)
        r = charge.r + train.steps * (less.r - now.r)
        over.append(not fits(target_limit(wanted, place), g, r))
    assert any(over)


def test_a_target_of_the_whole_promise_fits_its_cell_once() -> None:
    place = site("basel", cell("basel-all", epsilon=3.0))
    plan = compile_plan(spec(privacy={"epsilon": "3"}), (place,), MODEL)
    (charge,) = totals(plan.sites[0].releases)
    limit = place.cells["basel-all"].limit
    assert charge.g <= limit.g_max
    assert 2 * charge.g > limit.g_max
    assert 2 * charge.r > limit.r_max


def test_metrics_take_at_most_their_share_of_a_cell_that_training_reads() -> None:
    wanted = spec(privacy={"epsilon": "0.5"})
    place = site()
    plan = compile_plan(wanted, (place,), MODEL)
    evaluation = release(plan, "evaluate")
    limit = target_limit(wanted, place.cells["basel-all"])
    (charge,) = evaluation.charges
    assert evaluation.noise_sd > 3.8 * GRID  # the share asked for more noise than the spec
    assert 5 * charge.g <= limit.g_max or 5 * charge.r <= limit.r_max
    generous = compile_plan(spec(privacy={"epsilon": "8"}), (place,), MODEL)
    assert release(generous, "evaluate").noise_sd == math.ceil(Decimal("3.8") * GRID)


def test_patients_kept_for_evaluation_give_all_of_theirs_and_training_all_of_its_own() -> None:
    wanted = spec(privacy={"epsilon": "0.5", "metrics": {"noise_sd": "0.1"}})
    apart = compile_plan(wanted, (halves(),), MODEL)
    together = compile_plan(wanted, (site(),), MODEL)
    assert release(apart, "train").noise_sd < release(together, "train").noise_sd
    assert release(apart, "evaluate").noise_sd < release(together, "evaluate").noise_sd
    assert [c.cell for c in release(apart, "train").charges] == ["basel-train"]
    assert [c.cell for c in release(apart, "evaluate").charges] == ["basel-test"]
    (test,) = [c for c in totals(apart.sites[0].releases) if c.cell == "basel-test"]
    limit = target_limit(wanted, halves().cells["basel-test"])
    assert limit.g_max * 0.999 < test.g <= limit.g_max


def test_sampling_takes_less_noise_in_lane_r_and_is_charged_in_full_in_lane_g() -> None:
    # Lane R, at the order of a promise of 5, has room for sampling only near that promise.
    alone = {"epsilon": "5", "metrics": None}
    full = compile_plan(spec(privacy=alone), (site(),), MODEL)
    sampled = compile_plan(spec(privacy=alone, federation=POISSON), (site(),), MODEL)
    assert release(sampled, "train").noise_sd < release(full, "train").noise_sd
    train = release(sampled, "train")
    assert train.sampling == int(Decimal("0.1") * 2**32)
    assert train.charges[0].g == step_charge(Gaussian(train.sensitivity, train.noise_sd), 200).g
    assert release(compiled("Poisson")[2], "evaluate").sampling == 2**32


def test_averaging_weighs_by_declared_size_and_reserves_every_local_step() -> None:
    plan = compiled("federated averaging")[2]
    planned = plan.sites[0]
    assert (plan.strategy, plan.steps_per_round) == ("fedavg", 4)
    assert release(plan, "train").steps == (5 + 1) * 4
    assert planned.weight == planned.divisor == 210
    sums = compiled("the house recipe")[2].sites[0]
    assert (sums.weight, sums.divisor) == (1, 210)


def test_a_baseline_is_charged_for_all_its_steps_within_its_share() -> None:
    plan = compiled("a baseline on halves")[2]
    own = release(plan, "baseline_train")
    assert own.steps == 7
    assert own.noise_sd > release(plan, "train").noise_sd
    assert plan.baseline
    assert [r.purpose for r in plan.sites[0].releases] == [
        "train",
        "evaluate",
        "baseline_train",
        "baseline_evaluate",
    ]


@pytest.mark.parametrize(
    ("strategy", "asked", "train", "baseline"),
    [
        ({}, "auto", "exact", "fast"),
        (FEDAVG, "auto", "fast", "fast"),
        (FEDAVG, "exact", "exact", "exact"),
        ({}, "fast", "fast", "fast"),
    ],
)
def test_the_fast_engine_sums_where_a_node_takes_several_steps_in_a_round(
    strategy: dict[str, Any], asked: str, train: str, baseline: str
) -> None:
    wanted = spec(federation=strategy, privacy={"engine": asked, "baseline": {"rounds": 7}})
    sites = (halves(),)
    plan = compile_plan(wanted, sites, MODEL)
    check_plan(wanted, sites, plan)
    engines = {r.purpose: r.engine for r in plan.sites[0].releases}
    assert engines == {
        "train": train,
        "evaluate": "exact",
        "baseline_train": baseline,
        "baseline_evaluate": "exact",
    }


def test_units_of_clip_sampling_and_steps() -> None:
    made = spec(privacy={"clip_norm": "0.75"}, federation=FEDAVG | {"sampling": "0.5"})
    assert clip_units(made) == 3 * GRID // 4
    assert sampling_units(made) == 2**31
    assert steps_per_round(made) == 4
    assert (sampling_units(spec()), steps_per_round(spec())) == (2**32, 1)
    assert sampling_units(spec(federation={"sampling": "0.00000000001"})) == 1


def test_the_histogram_has_a_count_for_each_class_and_bin() -> None:
    layout = metric_layout(spec())
    assert layout is not None
    assert layout.size == 2 * 16
    assert compiled("the house recipe")[2].metric_size == 32
    assert compiled("several classes")[2].metric_size == 9 * 16
    assert metric_layout(spec(privacy={"metrics": None})) is None


def test_the_network_has_an_input_for_each_encoded_feature() -> None:
    tree = network_of(spec(), site().schema)
    assert tree.layers[0].in_features == 3  # type: ignore[union-attr]
    assert compiled("the house recipe")[2].parameters == 4


def test_sites_come_from_the_state_and_must_be_there() -> None:
    federation = Federation.found(("basel",))
    name = federation.register_dataset("basel")
    (place,) = sites_from(federation.state, {name: federation.schema(name)}, [name])
    assert place.registration == federation.state.datasets[name].registration
    assert set(place.cells) == {"basel-all"}
    with pytest.raises(PlanRefused, match="chur-heart is not registered; known: basel-heart"):
        sites_from(federation.state, {}, ["chur-heart"])

"""Plans: what a spec implies on given datasets, tight to its target, and nothing else passes."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from ledger.copies.blobs import blob_ref
from ledger.entries.operations.datasets import CellLimit, CellRegistered, CellUse, DatasetRegistered
from ledger.entries.operations.plans import Plan, Release, SitePlan
from ledger.entries.operations.values import MAX_INT, BlobRef
from ledger.errors import PlanRefused
from ledger.experiment.plan.calibration import target_limit
from ledger.experiment.plan.check import check_plan
from ledger.experiment.plan.compilation import compile_plan
from ledger.experiment.plan.quantities import (
    clip_units,
    sampling_units,
    steps_per_round,
    training_rows,
)
from ledger.experiment.plan.shape import metric_layout, network_of
from ledger.experiment.plan.sites import Site, cells_of, sites_from
from ledger.experiment.schema import Schema
from ledger.experiment.spec import ExperimentSpec
from ledger.formats.documents import encode_document, parse_document
from ledger.rules.experiments import totals
from privacy.events import GRID, Gaussian
from privacy.filters import Limit, limit_for, step_charge
from tests.federation import Federation
from tests.ledger.facts import h

MODEL = BlobRef(sha256=h("model"), bytes=1)
COLUMNS: list[dict[str, Any]] = [
    {"type": "number", "name": "age", "low": "20", "high": "90"},
    {"type": "category", "name": "sex", "values": ["f", "m"]},
    {"type": "category", "name": "sick", "values": ["0", "1", "2"]},
    {"type": "patient_id", "name": "pid"},
]


def cell(
    name: str, half: Any = "both", epsilon: float = 5.0, delta: float = 1e-5
) -> CellRegistered:
    limit = limit_for(epsilon, delta)
    return CellRegistered(
        type="cell.registered",
        cell=name,
        block="all",
        half=half,
        declared_patients=300,
        epsilon_micro=round(epsilon * 10**6),
        delta_e15=round(delta * 10**15),
        limit=CellLimit(g_max=limit.g_max, r_max=limit.r_max, order_centi=limit.order_centi),
    )


def site(
    name: str = "basel",
    *cells: CellRegistered,
    columns: list[dict[str, Any]] | None = None,
    declared_train: int | None = None,
) -> Site:
    """A dataset of 300 patients in one cell, or in those given."""
    schema = Schema.model_validate(
        {"consilium": 1, "dataset": name, "declared_rows": 300, "columns": columns or COLUMNS}
    )
    cells = cells or (cell(f"{name}-all"),)
    terms = DatasetRegistered(
        type="dataset.registered",
        dataset=name,
        schema=blob_ref(b"schema"),
        unit="patient",
        declared_train=declared_train or schema.declared_train,
        declared_test=schema.declared_test,
        cells=tuple(CellUse(cell=c.cell, use=c.half) for c in cells),
        snapshot=h(name),
        card=None,
    )
    return Site(h((name, "registered")), terms, {c.cell: c for c in cells}, schema)


def halves(name: str = "basel") -> Site:
    return site(name, cell(f"{name}-test", "test"), cell(f"{name}-train", "train"))


def spec(datasets: tuple[str, ...] = ("basel",), **changed: Any) -> ExperimentSpec:
    strategy = {"name": "fedsgd", "learning_rate": "2"}
    settings = {"datasets": datasets, "rounds": 5, "strategy": strategy}
    federation = {**settings, **changed.pop("federation", {})}
    privacy = {"epsilon": "1", **changed.pop("privacy", {})}
    plain: dict[str, Any] = {
        "consilium": 1,
        "name": "first",
        "title": "Sick or not",
        "purpose": "To see.",
        "lawful_basis": "consent",
        "until": "2030-01-01",
        "task": {"kind": "binary", "target": "sick", "positive": ["1", "2"]},
        "features": ["age", "sex"],
        "model": {"preset": "logistic-regression"},
    }
    return ExperimentSpec.model_validate(
        plain | changed | {"federation": federation, "privacy": privacy}
    )


FEDAVG = {"strategy": {"name": "fedavg", "local_steps": 4}}
POISSON = {"sampling": "0.1"}
MULTICLASS = {"kind": "multiclass", "target": "sick", "classes": ["0", "1", "2"]}
VARIANTS: dict[str, tuple[ExperimentSpec, tuple[Site, ...]]] = {
    "the house recipe": (spec(), (site(),)),
    "two hospitals": (spec(("basel", "bern")), (site(), site("bern"))),
    "train and test cells": (spec(), (halves(),)),
    "Poisson": (spec(federation=POISSON), (site(),)),
    "federated averaging": (spec(federation=FEDAVG), (site(),)),
    "sampled averaging": (spec(federation=FEDAVG | POISSON), (halves(),)),
    "a baseline": (spec(privacy={"baseline": {}}), (site(),)),
    "a baseline on halves": (spec(privacy={"baseline": {"rounds": 7}}), (halves(),)),
    "no metrics": (spec(privacy={"metrics": None}), (site(),)),
    "no spare round": (spec(federation={"spare_rounds": 0}), (site(),)),
    "a large epsilon": (spec(privacy={"epsilon": "8"}), (site(),)),
    "a small epsilon": (spec(privacy={"epsilon": "0.1"}), (site(),)),
    "several classes": (spec(task=MULTICLASS), (site(),)),
    "regression": (
        spec(task={"kind": "regression", "target": "age"}, features=["sex", "sick"]),
        (site(),),
    ),
    "cells of two promises": (
        spec(),
        (site("basel", cell("a", "train", 3), cell("b", "train", 8, 1e-6), cell("c", "test", 3)),),
    ),
}
VARIANT = pytest.mark.parametrize("name", VARIANTS)


def compiled(name: str) -> tuple[ExperimentSpec, tuple[Site, ...], Plan]:
    wanted, sites = VARIANTS[name]
    return wanted, sites, compile_plan(wanted, sites, MODEL)


def release(plan: Plan, purpose: str, at: int = 0) -> Release:
    return next(r for r in plan.sites[at].releases if r.purpose == purpose)


def fits(limit: Limit, g: int, r: int) -> bool:
    return g <= limit.g_max or r <= limit.r_max


@VARIANT
def test_what_was_compiled_checks_and_compiles_to_the_same_again(name: str) -> None:
    wanted, sites, plan = compiled(name)
    check_plan(wanted, sites, plan)
    assert compile_plan(wanted, sites, MODEL) == plan
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


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


# --- every tampered field -------------------------------------------------------------------------


def in_site(**changed: Any) -> Callable[[Plan], Plan]:
    def change(plan: Plan) -> Plan:
        first = plan.sites[0].model_copy(update=changed)
        return plan.model_copy(update={"sites": (first, *plan.sites[1:])})

    return change


def in_release(at: int, **changed: Any) -> Callable[[Plan], Plan]:
    def change(plan: Plan) -> Plan:
        releases = list(plan.sites[0].releases)
        releases[at] = releases[at].model_copy(update=changed)
        return in_site(releases=tuple(releases))(plan)

    return change


def in_charge(at: int, **changes: int) -> Callable[[Plan], Plan]:
    def change(plan: Plan) -> Plan:
        charge = plan.sites[0].releases[at].charges[0]
        moved = {lane: getattr(charge, lane) + by for lane, by in changes.items()}
        return in_release(at, charges=(charge.model_copy(update=moved),))(plan)

    return change


def in_plan(**changed: Any) -> Callable[[Plan], Plan]:
    return lambda plan: plan.model_copy(update=changed)


def scaled(at: int, factor: float) -> Callable[[Plan], Plan]:
    """Other noise, with the charges that it costs."""

    def change(plan: Plan) -> Plan:
        old = plan.sites[0].releases[at]
        noise = max(1, int(old.noise_sd * factor))
        order = cell("x").limit.order_centi
        step = step_charge(Gaussian(old.sensitivity, noise, 1, old.sampling), order)
        charge = old.charges[0].model_copy(update={"g": step.g, "r": step.r})
        return in_release(at, noise_sd=noise, charges=(charge,))(plan)

    return change


TAMPERINGS: dict[str, tuple[Callable[[Plan], Plan], str, str]] = {
    "strategy": (in_plan(strategy="fedavg"), "plan.strategy", "not what the spec says"),
    "parameters": (in_plan(parameters=9), "plan.parameters", "not what the spec says"),
    "metric size": (in_plan(metric_size=0), "plan.metric_size", "not what the spec says"),
    "rounds": (in_plan(rounds=4), "plan.rounds", "not what the spec says"),
    "steps a round": (in_plan(steps_per_round=2), "plan.steps_per_round", "not what"),
    "spare rounds": (in_plan(spare_rounds=0), "plan.spare_rounds", "not what the spec says"),
    "evaluation": (in_plan(evaluate=False), "plan.evaluate", "not what the spec says"),
    "baseline": (in_plan(baseline=True), "plan.baseline", "not what the spec says"),
    "quorum": (in_plan(quorum=2), "plan.quorum", "not what the spec says"),
    "timeout": (in_plan(round_timeout_ms=5000), "plan.round_timeout_ms", "not what"),
    "noise shares": (in_plan(noise_shares=2), "plan.noise_shares", "not what"),
    "masks": (in_plan(secure_aggregation="local"), "plan.secure_aggregation", "not what"),
    "a site less": (
        lambda plan: plan.model_copy(update={"sites": plan.sites[:1]}),
        "plan.sites",
        "its datasets are not those of the spec",
    ),
    "sites turned": (
        lambda plan: plan.model_copy(update={"sites": plan.sites[::-1]}),
        "plan.sites",
        "in their order",
    ),
    "a dataset": (in_site(dataset="chur"), "plan.sites", "its datasets are not those"),
    "a registration": (in_site(registration=h(5)), "plan.sites.basel", "or registration"),
    "a weight": (in_site(weight=2), "plan.sites.basel", "weight, divisor, bound"),
    "a divisor": (in_site(divisor=1), "plan.sites.basel", "weight, divisor, bound"),
    "a bound": (in_site(update_bound=MAX_INT), "plan.sites.basel", "weight, divisor, bound"),
    "an epsilon": (in_site(epsilon_micro=1), "plan.sites.basel.epsilon_micro", "it states 1, but"),
    "a purpose": (
        in_release(0, purpose="baseline_train"),
        "plan.sites.basel",
        "its releases are not evaluate, train",
    ),
    "a release less": (
        lambda plan: in_site(releases=plan.sites[0].releases[:1])(plan),
        "plan.sites.basel",
        "its releases are not evaluate, train",
    ),
    "a release more": (
        lambda plan: in_site(releases=(*plan.sites[0].releases, plan.sites[0].releases[0]))(plan),
        "plan.sites.basel",
        "its releases are not evaluate, train",
    ),
    "releases turned": (
        lambda plan: in_site(releases=plan.sites[0].releases[::-1])(plan),
        "plan.sites.basel",
        "",
    ),
    "a sensitivity": (in_release(0, sensitivity=1), "plan.sites.basel.train", "not the release"),
    "sampling": (in_release(0, sampling=1), "plan.sites.basel.train", "not the release"),
    "an engine": (in_release(0, engine="fast"), "plan.sites.basel.train", "not the release"),
    "steps": (in_release(0, steps=5), "plan.sites.basel", ""),
    "less noise": (scaled(0, 0.999), "plan.sites.basel.train", "the target epsilon gives"),
    "more noise": (scaled(0, 1.5), "plan.sites.basel.train", "the target epsilon gives"),
    "sharper metrics": (scaled(1, 0.5), "plan.sites.basel.evaluate", "the target epsilon gives"),
    "almost no noise": (
        in_release(0, noise_sd=1),
        "plan.sites.basel.train",
        "it states noise of 1, but the target epsilon gives",
    ),
    "a charge in lane g": (in_charge(0, g=-1), "plan.sites.basel.train", "its charge to basel-all"),
    "a larger charge": (in_charge(1, g=1), "plan.sites.basel.evaluate", "its charge to basel-all"),
    "a charge in lane r": (
        in_charge(0, r=-(10**9)),
        "plan.sites.basel.train",
        "its charge to basel-all is not what its noise costs",
    ),
    "a charged cell": (
        lambda plan: in_release(
            0, charges=(plan.sites[0].releases[0].charges[0].model_copy(update={"cell": "x"}),)
        )(plan),
        "plan.sites.basel.train",
        "it does not charge the cells that it reads",
    ),
    "a cell charged twice": (
        lambda plan: in_release(0, charges=plan.sites[0].releases[0].charges * 2)(plan),
        "plan.sites.basel.train",
        "it does not charge the cells that it reads",
    ),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_changed_plan_is_refused_and_the_place_is_named(name: str) -> None:
    wanted, sites, plan = compiled("two hospitals")
    change, where, reason = TAMPERINGS[name]
    changed = change(plan)
    assert changed != plan
    with pytest.raises(PlanRefused) as caught:
        check_plan(wanted, sites, changed)
    assert caught.value.where.startswith(where)
    assert reason in caught.value.reason


def test_every_field_of_a_plan_is_tampered_with_above() -> None:
    fields = {*Plan.model_fields, *SitePlan.model_fields, *Release.model_fields} - {
        "sites",
        "releases",
        "charges",
        "initial_model",  # recomputed from the spec's seed by whoever holds the average's rules
    }
    names = {
        "strategy", "parameters", "metric_size", "rounds", "steps_per_round", "spare_rounds",
        "evaluate", "baseline", "quorum", "round_timeout_ms", "dataset", "registration", "weight",
        "divisor", "update_bound", "epsilon_micro", "purpose", "sensitivity", "noise_sd",
        "sampling", "steps", "engine", "secure_aggregation",
        "noise_shares",
    }  # fmt: skip
    assert fields == names


def test_a_plan_for_fewer_datasets_than_its_spec_is_refused() -> None:
    wanted, sites, plan = compiled("two hospitals")
    less = plan.model_copy(update={"sites": plan.sites[:1]})
    with pytest.raises(PlanRefused, match="not those of the spec"):
        check_plan(wanted, sites[:1], less)


def test_another_spec_under_the_same_plan_is_refused() -> None:
    _, sites, plan = compiled("the house recipe")
    for other in (
        spec(privacy={"epsilon": "0.9"}),
        spec(privacy={"clip_norm": "1"}),
        spec(federation={"quorum": 1, "round_timeout_s": 7}),
        spec(features=["age"]),
    ):
        with pytest.raises(PlanRefused):
            check_plan(other, sites, plan)


# --- what cannot be planned -----------------------------------------------------------------------


def why_not(wanted: ExperimentSpec, *sites: Site) -> PlanRefused:
    with pytest.raises(PlanRefused) as caught:
        compile_plan(wanted, sites, MODEL)
    return caught.value


@pytest.mark.parametrize(
    ("changed", "where", "reason"),
    [
        ({"features": ["age", "weight"]}, "features", "weight is not a column of basel; there"),
        ({"features": ["pid"]}, "features", "pid is the patient's identifier"),
        (
            {"task": {"kind": "binary", "target": "weight", "positive": ["1"]}},
            "task.target",
            "weight is not a column of basel to learn",
        ),
        (
            {"task": {"kind": "binary", "target": "sick", "positive": ["7"]}},
            "task",
            "'7' is not a value of sick in basel; there are: 0, 1, 2",
        ),
        (
            {"task": {"kind": "regression", "target": "sick"}},
            "task.target",
            "sick of basel is not a number column",
        ),
        (
            {"task": {"kind": "binary", "target": "sick", "above": "1"}},
            "task.target",
            "not a number column",
        ),
        (
            {"task": {"kind": "binary", "target": "age", "positive": ["1"]}, "features": ["sex"]},
            "task.target",
            "not a category column",
        ),
        ({"privacy": {"clip_norm": "0.0000001"}}, "privacy.clip_norm", "below the grid"),
        ({"privacy": {"epsilon": "0.0001"}}, "privacy.epsilon", "must lie in"),
        ({"privacy": {"metrics": {"bins": 5}}}, "privacy.metrics", "bins = 5"),
        (
            {"model": {"_target_": "torch.nn.Sequential", "layers": [
                {"_target_": "torch.nn.Linear", "in_features": 4, "out_features": 1}]}},
            "model",
            "takes 4 inputs, but the features have 3",
        ),
        (
            {"model": {"preset": "mlp", "hidden": [65536, 65536]}},
            "model",
            "over the limit of 5,000,000",
        ),
        (
            {"model": {"_target_": "torch.nn.Sequential", "layers": [
                {"_target_": "torch.nn.LayerNorm", "normalized_shape": 2}]}},
            "model",
            "normalises 2 values, but gets 3",
        ),
    ],
)  # fmt: skip
def test_a_spec_that_does_not_fit_its_datasets_is_refused_with_the_reason(
    changed: dict[str, Any], where: str, reason: str
) -> None:
    error = why_not(spec(**changed), site())
    assert error.where == where
    assert reason in error.reason


def test_more_inputs_than_a_layer_takes_are_refused_in_our_words() -> None:
    wide = [
        {"type": "category", "name": f"code{n}", "values": [f"v{i}" for i in range(4096)]}
        for n in range(17)
    ]
    names = [column["name"] for column in wide]
    error = why_not(spec(features=names), site(columns=[*wide, COLUMNS[2]]))
    assert error.where == "model"
    assert error.reason.startswith("in_features: input should be less than or equal to 65536")


OTHER_COLUMNS = {
    "bounds": {**COLUMNS[0], "high": "95"},
    "unit": {**COLUMNS[0], "unit": "months"},
    "missing": {**COLUMNS[0], "missing": "impute"},
    "fill": {**COLUMNS[0], "missing": "refuse", "fill": "30"},
}


@pytest.mark.parametrize("name", OTHER_COLUMNS)
def test_hospitals_must_declare_the_same_column_alike(name: str) -> None:
    other = site("bern", columns=[OTHER_COLUMNS[name], *COLUMNS[1:]])
    error = why_not(spec(("basel", "bern")), site(), other)
    assert error.where == "features"
    assert "column age is declared differently by basel and bern" in error.reason


def test_hospitals_must_list_the_same_codes_in_the_same_order() -> None:
    turned = {**COLUMNS[2], "values": ["1", "0", "2"]}
    error = why_not(spec(("basel", "bern")), site(), site("bern", columns=[*COLUMNS[:2], turned]))
    assert "column sick is declared differently" in error.reason
    respelt = {**COLUMNS[2], "values": ["0.0", "01", "2"]}
    alike = site("bern", columns=[*COLUMNS[:2], respelt, COLUMNS[3]])
    compile_plan(spec(("basel", "bern")), (site(), alike), MODEL)


def test_what_the_spec_does_not_name_may_differ() -> None:
    other = site("bern", columns=[*COLUMNS[:3], {**COLUMNS[0], "name": "weight"}])
    compile_plan(spec(("basel", "bern")), (site(), other), MODEL)


def test_a_dataset_without_cells_for_a_purpose_is_refused() -> None:
    only = site("basel", cell("basel-train", "train"))
    error = why_not(spec(), only)
    assert error.where in ("dataset basel", "plan.sites.basel")
    assert "no cell of patients for evaluate" in error.reason
    compile_plan(spec(privacy={"metrics": None}), (only,), MODEL)


def test_metrics_that_cost_the_whole_target_are_refused() -> None:
    greedy = {"metrics": {"share": "0.999999"}, "epsilon": "0.01"}
    plan = compile_plan(spec(privacy=greedy), (site(),), MODEL)
    check_plan(spec(privacy=greedy), (site(),), plan)
    assert release(plan, "train").noise_sd > release(plan, "evaluate").noise_sd


# --- hostile hospitals and researchers ------------------------------------------------------------


def test_a_size_beyond_all_bounds_is_refused_and_does_not_raise_another_error() -> None:
    monster = site(declared_train=MAX_INT)
    error = why_not(spec(), monster)
    assert error.where == "plan.sites.basel"
    assert "out of range" in error.reason


def test_charges_that_no_entry_can_say_are_refused() -> None:
    weak = spec(privacy={"epsilon": "100", "clip_norm": "0.000001", "metrics": None})
    place = site("basel", cell("basel-all", epsilon=900.0))
    plan = compile_plan(weak, (place,), MODEL)
    check_plan(weak, (place,), plan)  # one grid unit of sensitivity: still a plan
    one = in_release(0, noise_sd=MAX_INT)(plan)
    with pytest.raises(PlanRefused, match="it states noise of 9007199254740991"):
        check_plan(weak, (place,), one)


def test_the_fast_engine_is_refused_where_rounding_would_eat_the_clip_norm() -> None:
    tiny = {"engine": "fast", "clip_norm": "0.000004"}
    error = why_not(spec(privacy=tiny), site())
    assert error.where == "plan.sites.basel"
    assert "raise the clip norm, or use the exact engine" in error.reason
    compile_plan(spec(privacy=tiny | {"engine": "exact"}), (site(),), MODEL)


def test_clipping_by_layer_is_planned_and_charged_like_flat_clipping() -> None:
    flat, by_layer = spec(), spec(privacy={"clipping": "per_layer"})
    assert compile_plan(by_layer, (site(),), MODEL) == compile_plan(flat, (site(),), MODEL)
    assert b'"clipping"' not in encode_document(flat)
    assert b'"clipping":"per_layer"' in encode_document(by_layer)
    error = why_not(spec(privacy={"clipping": "per_layer", "clip_norm": "0.000001"}), site())
    assert error.where == "privacy.clip_norm"
    assert "no grid unit of it is left for each of 2" in error.reason
    tiny = {"engine": "fast", "clip_norm": "0.000008", "clipping": "per_layer"}
    assert "raise the clip norm" in why_not(spec(privacy=tiny), site()).reason


def test_views_cost_nothing_count_as_rows_for_rounding_and_need_a_number() -> None:
    plain, seen = spec(), spec(privacy={"augment": {"copies": 8}})
    assert compile_plan(seen, (site(),), MODEL) == compile_plan(plain, (site(),), MODEL)
    assert b'"augment"' not in encode_document(plain)
    assert parse_document(encode_document(seen), ExperimentSpec) == seen
    assert (training_rows(plain, 300), training_rows(seen, 300)) == (300, 2400)
    error = why_not(spec(privacy={"augment": {"copies": 8}}, features=["sex"]), site())
    assert error.where == "privacy.augment"
    assert "no feature is one" in error.reason


def test_a_cell_whose_promise_has_no_gate_is_refused() -> None:
    limit = CellLimit(g_max=1, r_max=1, order_centi=1_000_000)
    broken = cell("basel-all").model_copy(update={"delta_e15": 1, "limit": limit})
    error = why_not(spec(), site("basel", broken))
    assert error.where == "privacy.epsilon"
    strange = cell("basel-all").model_copy(update={"limit": limit})
    compile_plan(spec(federation=POISSON), (site("basel", strange),), MODEL)


# --- small questions ------------------------------------------------------------------------------


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

"""Cells whose patients have accounts of their own: what a plan may ask of them, what the fold records."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from ledger.entries.operations.plans import Release
from ledger.entries.operations.statistics import StatisticsReserved
from ledger.errors import MalformedInput, PlanRefused
from ledger.experiment.plan.check import check_plan
from ledger.experiment.plan.sites import sites_from
from ledger.experiment.privacy_spec import AdaptiveClipping, Baseline, Privacy
from ledger.experiment.spec import ExperimentSpec
from ledger.formats.documents import encode_document, parse_document
from ledger.formats.value import replace
from ledger.rules.experiments import site_of
from ledger.rules.individual import shown
from privacy.events import GRID
from privacy.filters import Spend, g_step
from tests.federation import HOSPITALS, RESEARCHER, Federation, node_of, steward_of
from tests.one_by_one import STRETCHED, cell, register_one_by_one, start_one_by_one


@pytest.fixture
def federation() -> Federation:
    assert {"basel", "bern", "chur"} <= set(HOSPITALS)
    return Federation.found()


def train_of(federation: Federation, experiment: str, dataset: str) -> Release:
    site = site_of(federation.experiment(experiment).plan, dataset)
    assert site is not None
    return next(release for release in site.releases if release.purpose == "train")


def test_the_noise_is_for_the_full_rounds_and_the_rounds_are_many_more(
    federation: Federation,
) -> None:
    experiment = start_one_by_one(federation, rounds=40)
    mine = train_of(federation, experiment, "basel-heart")
    other = train_of(federation, experiment, "chur-heart")
    assert (mine.engine, mine.steps, other.engine, other.steps) == ("individual", 40, "exact", 40)
    assert mine.charges[0].g == 2 * g_step(mine.sensitivity, mine.noise_sd)
    assert mine.noise_sd * 4 < other.noise_sd  # sqrt(40 / 2)
    site = site_of(federation.experiment(experiment).plan, "basel-heart")
    assert site is not None
    assert 0 < site.epsilon_micro <= 2_000_000


def test_what_patients_spend_is_recorded_as_the_most_of_any_and_never_summed(
    federation: Federation,
) -> None:
    experiment = start_one_by_one(federation)
    most = train_of(federation, experiment, "basel-heart").charges[0].g
    federation.play(experiment)
    cells = federation.state.cells
    assert cells["basel-train"].spend == Spend()
    assert cells["basel-test"].spend.g > 0
    assert shown(federation.state, "basel-train").spend.g == most
    assert shown(federation.state, "basel-test") == cells["basel-test"]


def test_no_gate_stops_an_experiment_and_nobody_is_shown_more_than_the_promise(
    federation: Federation,
) -> None:
    experiment = start_one_by_one(federation)
    for number in range(8):  # at epsilon 2 each, of a promise of 5
        if number:
            names = ["basel-heart", "bern-heart"]
            privacy = STRETCHED.model_copy(update={"metrics": None})
            spec = federation.spec(names, name=f"more-{number}", privacy=privacy, rounds=5)
            experiment = federation.propose(spec)
            for name in names:
                federation.approve(experiment, name)
        federation.open_round(experiment)
        federation.reserve(experiment, "basel-heart")
    limit = federation.state.cells["basel-train"].terms.limit
    assert shown(federation.state, "basel-train").spend.g == limit.g_max


@pytest.mark.parametrize(
    ("changes", "privacy", "where"),
    [
        ({"strategy": {"name": "fedavg"}}, {}, "federation.strategy"),
        ({"sampling": "0.5"}, {}, "federation.sampling"),
        ({}, {"baseline": Baseline(rounds=3)}, "privacy.baseline"),
        ({}, {"engine": "fast"}, "privacy.engine"),
        ({}, {"clipping": "per_layer"}, "privacy.clipping"),
        ({}, {"clipping": AdaptiveClipping(kind="adaptive")}, "privacy.clipping"),
        ({"rounds": 1, "spare_rounds": 0}, {}, "privacy.full_rounds"),
        (
            {"secure_aggregation": {"noise": "distributed", "colluders": 1}, "quorum": 3},
            {},
            "federation.secure_aggregation",
        ),
    ],
)
def test_only_a_full_batch_fedsgd_sum_is_planned(
    federation: Federation, changes: dict[str, Any], privacy: dict[str, Any], where: str
) -> None:
    names = [register_one_by_one(federation, name) for name in ("basel", "bern", "chur")]
    spec = federation.spec(
        names, privacy=STRETCHED.model_copy(update=privacy), **({"rounds": 5} | changes)
    )
    with pytest.raises(PlanRefused) as refused:
        federation.proposal(spec)
    assert refused.value.where == where


def test_full_rounds_are_for_hospitals_with_accounts_alone(federation: Federation) -> None:
    name = federation.register_dataset("basel")
    with pytest.raises(PlanRefused, match="none of the datasets accounts for its patients"):
        federation.proposal(federation.spec([name], privacy=STRETCHED))


@pytest.mark.parametrize(
    "change",
    [
        {"engine": "exact"},
        {"engine": "fast"},
        {"sampling": 2**31},
        {"purpose": "baseline_train"},
        {"charges": "less in lane R"},
        {"charges": "more than the promise"},
    ],
)
def test_another_release_from_such_a_cell_is_void(
    federation: Federation, change: dict[str, Any]
) -> None:
    names = [register_one_by_one(federation, "basel")]
    op = federation.proposal(federation.spec(names, privacy=STRETCHED))
    site = op.plan.sites[0]
    train = next(release for release in site.releases if release.purpose == "train")
    charge = train.charges[0]
    limit = federation.state.cells["basel-train"].terms.limit
    charges = {
        "less in lane R": (replace(charge, r=charge.r - 1),),
        "more than the promise": (replace(charge, g=limit.g_max + 1, r=limit.r_max * 10),),
    }
    fields = {k: charges[v] if k == "charges" else v for k, v in change.items()}
    wrong = replace(train, **fields)
    releases = tuple(wrong if release is train else release for release in site.releases)
    plan = replace(op.plan, sites=(replace(site, releases=releases),))
    federation.say(RESEARCHER, replace(op, plan=plan), void="plan_invalid")


def test_an_individual_release_from_another_cell_is_void(federation: Federation) -> None:
    op = federation.proposal(federation.spec([federation.register_dataset("basel")]))
    site = op.plan.sites[0]
    releases = tuple(
        replace(r, engine="individual") if r.purpose == "train" else r for r in site.releases
    )
    plan = replace(op.plan, sites=(replace(site, releases=releases),))
    federation.say(RESEARCHER, replace(op, plan=plan), void="plan_invalid")


def test_a_plan_that_lets_a_patient_lose_more_is_not_what_its_spec_implies(
    federation: Federation,
) -> None:
    names = [register_one_by_one(federation, "basel")]
    spec = federation.spec(names, privacy=STRETCHED, rounds=5)
    plan = federation.proposal(spec).plan
    sites = sites_from(federation.state, {names[0]: federation.schema(names[0])}, names)
    check_plan(spec, sites, plan)
    site = plan.sites[0]
    train = site.releases[0]
    more = replace(train.charges[0], g=train.charges[0].g + 1)
    wrong = replace(train, charges=(more,))
    site = replace(site, releases=(wrong, *site.releases[1:]))
    with pytest.raises(PlanRefused, match=r"its charge to basel-train is not what its noise costs"):
        check_plan(spec, sites, replace(plan, sites=(site,)))


def test_statistics_of_such_a_cell_are_void(federation: Federation) -> None:
    name = register_one_by_one(federation, "basel")
    dataset = federation.state.datasets[name]
    charge = train_charge(federation)
    op = StatisticsReserved(
        type="statistics.reserved",
        dataset=name,
        registration=dataset.registration,
        question=federation.put(b"{}"),
        size=1,
        sensitivity=GRID,
        noise_sd=10 * GRID,
        pure=(),
        charges=(charge,),
    )
    federation.say(steward_of("basel"), op, void="individual_cell")


def train_charge(federation: Federation) -> Any:
    spec = federation.spec(["basel-heart"], privacy=STRETCHED)
    return federation.proposal(spec).plan.sites[0].releases[0].charges[0]


def test_the_same_patients_get_no_second_promise_of_the_other_kind(
    federation: Federation,
) -> None:
    register_one_by_one(federation, "basel")
    for half in ("train", "both", "individual"):
        again = replace(cell("basel", half), cell=f"basel-{half}-2")
        federation.say(node_of("basel"), again, void="cell_exists")


def test_a_spec_without_full_rounds_keeps_its_bytes() -> None:
    spec = Federation().spec(["basel-heart"])
    data = encode_document(spec)
    assert b"full_rounds" not in data
    with pytest.raises(MalformedInput):
        parse_document(
            data.replace(b'"epsilon":"1"', b'"epsilon":"1","full_rounds":null'), ExperimentSpec
        )
    stretched = spec.model_copy(update={"privacy": Privacy(epsilon=Decimal(1), full_rounds=3)})
    assert parse_document(encode_document(stretched), ExperimentSpec) == stretched

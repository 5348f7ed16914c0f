"""A plan that was changed anywhere is refused, and the place is named."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest

from ledger.entries.operations.plans import Plan, Release, SitePlan
from ledger.entries.operations.values import MAX_INT
from ledger.errors import PlanRefused
from ledger.experiment.plan.check import check_plan
from ledger.formats.value import replace
from privacy.events import Gaussian
from privacy.filters import step_charge
from tests.ledger.experiment.planned import cell, compiled, spec
from tests.ledger.facts import h


def in_site(**changed: Any) -> Callable[[Plan], Plan]:
    def change(plan: Plan) -> Plan:
        first = replace(plan.sites[0], **changed)
        return replace(plan, sites=(first, *plan.sites[1:]))

    return change


def in_release(at: int, **changed: Any) -> Callable[[Plan], Plan]:
    def change(plan: Plan) -> Plan:
        releases = list(plan.sites[0].releases)
        releases[at] = replace(releases[at], **changed)
        return in_site(releases=tuple(releases))(plan)

    return change


def in_charge(at: int, **changes: int) -> Callable[[Plan], Plan]:
    def change(plan: Plan) -> Plan:
        charge = plan.sites[0].releases[at].charges[0]
        moved = {lane: getattr(charge, lane) + by for lane, by in changes.items()}
        return in_release(at, charges=(replace(charge, **moved),))(plan)

    return change


def in_plan(**changed: Any) -> Callable[[Plan], Plan]:
    return lambda plan: replace(plan, **changed)


def scaled(at: int, factor: float) -> Callable[[Plan], Plan]:
    """Other noise, with the charges that it costs."""

    def change(plan: Plan) -> Plan:
        old = plan.sites[0].releases[at]
        noise = max(1, int(old.noise_sd * factor))
        order = cell("x").limit.order_centi
        step = step_charge(Gaussian(old.sensitivity, noise, 1, old.sampling), order)
        charge = replace(old.charges[0], g=step.g, r=step.r)
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
        lambda plan: replace(plan, sites=plan.sites[:1]),
        "plan.sites",
        "its datasets are not those of the spec",
    ),
    "sites turned": (
        lambda plan: replace(plan, sites=plan.sites[::-1]),
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
            0, charges=(replace(plan.sites[0].releases[0].charges[0], cell="x"),)
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
    named = (kind.__struct_fields__ for kind in (Plan, SitePlan, Release))
    fields = set(chain.from_iterable(named)) - {
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
    less = replace(plan, sites=plan.sites[:1])
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

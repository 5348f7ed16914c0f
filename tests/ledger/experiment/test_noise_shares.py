"""Noise that hospitals add together: never less than what is charged, and one noise for all."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ledger.errors import PlanRefused
from ledger.experiment.noise_shares import SHARED, share_sd, site_in_round
from ledger.experiment.plan.check import check_plan
from ledger.experiment.plan.compilation import compile_plan
from ledger.experiment.spec import Federation as FederationPart
from privacy.noise import SecureRandom
from tests.ledger.experiment.planned import MODEL, cell, site, spec

FOUR = ("basel", "bern", "chur", "davos")
SHARED_NOISE = {"noise": "distributed", "colluders": 1}


def part(**changed: Any) -> FederationPart:
    fields = {"datasets": FOUR, "quorum": 3, "secure_aggregation": True}
    return FederationPart.model_validate(fields | changed)


@given(st.integers(1, 2**53 - 1), st.integers(2, 64))
def test_shares_together_are_never_less_than_the_noise_and_its_unit_and_tight(
    noise: int, shares: int
) -> None:
    share = share_sd(noise, shares)
    assert share**2 * shares >= (noise + 1) ** 2
    assert (share - 1) ** 2 * shares < (noise + 1) ** 2
    assert share_sd(noise, 1) == noise


def test_a_sum_of_shares_has_the_deviation_that_is_charged() -> None:
    """4,000 sums of three shares: within five standard errors of the deviation."""
    share = share_sd(2**20, 3)
    with SecureRandom() as rng:
        sums = np.sum([rng.gaussian_integers(share, 4000) for _ in range(3)], axis=0)
    assert abs(np.std(sums) / 2**20 - 1) < 5 / math.sqrt(2 * 4000)


def test_a_distributed_plan_gives_every_site_one_noise_and_its_node_a_share() -> None:
    wanted = spec(FOUR, federation={"secure_aggregation": SHARED_NOISE, "quorum": 3})
    strict = cell("bern-all", delta=1e-7)
    sites = tuple(site(name, *([strict] if name == "bern" else [])) for name in FOUR)
    plan = compile_plan(wanted, sites, MODEL)
    check_plan(wanted, sites, plan)
    assert (plan.secure_aggregation, plan.noise_shares) == ("distributed", 2)
    for purpose in SHARED & {r.purpose for r in plan.sites[0].releases}:
        noises = {r.noise_sd for s in plan.sites for r in s.releases if r.purpose == purpose}
        assert len(noises) == 1
        (noise,) = noises
        for planned in plan.sites:
            mine = next(r for r in site_in_round(plan, planned).releases if r.purpose == purpose)
            assert mine.noise_sd == share_sd(noise, 2) < noise
    epsilons = {s.dataset: s.epsilon_micro for s in plan.sites}
    assert epsilons["basel"] <= 10**6


def test_local_noise_leaves_a_site_s_part_as_it_is() -> None:
    wanted = spec(FOUR, federation={"secure_aggregation": True, "quorum": 3})
    plan = compile_plan(wanted, tuple(site(name) for name in FOUR), MODEL)
    assert (plan.secure_aggregation, plan.noise_shares) == ("local", 1)
    assert all(site_in_round(plan, planned) is planned for planned in plan.sites)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"datasets": FOUR[:2], "quorum": 2}, "needs 3 to 64 datasets, not 2"),
        ({"quorum": 2}, "needs a quorum of 3 or more, not 2"),
        ({"secure_aggregation": {"noise": "distributed"}}, "needs colluders: 1 or more"),
        ({"secure_aggregation": {"colluders": 1}}, "colluders are for distributed noise"),
        (
            {"secure_aggregation": SHARED_NOISE, "strategy": {"name": "fedavg"}},
            "one linear sum a round",
        ),
        ({"secure_aggregation": SHARED_NOISE, "sampling": "0.5"}, "one linear sum a round"),
        (
            {
                "secure_aggregation": SHARED_NOISE,
                "datasets": (*FOUR, "arosa", "aarau"),
                "quorum": 4,
            },
            "needs a quorum of 5 or more of 6 datasets, not 4",
        ),
        (
            {"secure_aggregation": {"noise": "distributed", "colluders": 2}},
            "2 colluders are too many",
        ),
    ],
)
def test_masks_that_would_hide_too_little_are_refused(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        part(**changed)


def test_secure_aggregation_is_written_as_true_false_or_in_full() -> None:
    assert part().secure_aggregation == part(secure_aggregation={}).secure_aggregation
    assert part(secure_aggregation=False).secure_aggregation is None


def test_a_clip_norm_whose_noise_cannot_be_divided_on_the_grid_is_refused() -> None:
    wanted = spec(
        FOUR,
        federation={"secure_aggregation": SHARED_NOISE, "quorum": 3},
        privacy={"epsilon": "5", "clip_norm": "0.000002", "metrics": None},
    )
    with pytest.raises(PlanRefused, match="too small to be divided"):
        compile_plan(wanted, tuple(site(name) for name in FOUR), MODEL)


def test_a_masked_sum_that_may_leave_int64_is_refused() -> None:
    wanted = spec(FOUR, federation={"secure_aggregation": True, "quorum": 3})
    sites = [site(name) for name in FOUR]
    huge = sites[0].terms.model_copy(update={"declared_test": 2**41})
    sites[0] = type(sites[0])(sites[0].registration, huge, sites[0].cells, sites[0].schema)
    with pytest.raises(PlanRefused, match="masks need less than 2\\^62"):
        compile_plan(wanted, sites, MODEL)

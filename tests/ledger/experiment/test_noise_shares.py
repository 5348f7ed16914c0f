"""Noise that hospitals add together: never less than what is charged, and one noise for all."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.special import ndtr

from ledger.errors import PlanRefused
from ledger.experiment.fast_clip import BLOCK_ROWS, MIXED_ROWS, Limits, clip_norm
from ledger.experiment.network_spec import (
    Linear,
    LogisticRegression,
    Mlp,
    expand,
    parameter_shapes,
)
from ledger.experiment.noise_shares import LEAST_SHARE_SD, SHARED, share_sd, site_in_round
from ledger.experiment.plan.check import check_plan
from ledger.experiment.plan.compilation import compile_plan
from ledger.experiment.plan.quantities import noise_shares
from ledger.experiment.spec import Federation as FederationPart
from ledger.formats.value import replace
from privacy.errors import InvalidParameter
from privacy.noise import SecureRandom
from privacy.rounding import CANCELLATION
from tests.ledger.experiment.planned import MODEL, cell, site, spec

FOUR = ("basel", "bern", "chur", "davos")
LOGISTIC = LogisticRegression(preset="logistic-regression")
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


@given(
    noise=st.integers(64 * 2**10, 2**53 - 1),
    sensitivity=st.integers(1, 2**30),
    sites=st.integers(3, 64),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_the_smallest_sum_holds_at_least_the_charged_variance_with_all_rounding(
    noise: int, sensitivity: int, sites: int, data: st.DataObject
) -> None:
    """Exactly: each share is a rounded Gaussian, whose variance is s^2 + 1/12 up to terms of e^(-2 pi^2 s^2)."""
    t = 2 * sites // 3 + 1
    quorum = data.draw(st.integers(t, sites))
    colluders = data.draw(st.integers(1, max(1, min(sites // 3, quorum - 2))))
    part_of = part(
        datasets=tuple(f"site-{number}" for number in range(sites)),
        quorum=quorum,
        secure_aggregation={"noise": "distributed", "colluders": colluders},
    )
    honest = noise_shares(spec(FOUR).model_copy(update={"federation": part_of}))
    assert honest == quorum - colluders >= 2
    share = share_sd(noise, honest)
    assert share >= LEAST_SHARE_SD
    with mpmath.workdps(60):
        s = mpmath.mpf(share)
        error = 8 * (s**2 + 1) * mpmath.exp(-2 * mpmath.pi**2 * s**2)
        variance = honest * (s**2 + mpmath.mpf(1) / 12 - error)
        assert variance >= mpmath.mpf(noise + 1) ** 2 + mpmath.mpf(honest) / 13
        # What the sum is short of one Gaussian's release, over every step and coordinate of any plan, is less than
        # what the grid unit above the charged deviation leaves of delta.
        mu = mpmath.mpf(sensitivity) / noise
        log_slack = -(mpmath.pi**2) * s**2 / 2 + mpmath.log(mpmath.mpf(2) ** 80)
        smaller = mu * noise / (noise + 1)
        x = mpmath.mpf(8)  # delta of 1e-15 and above: phi(eps / mu - mu / 2) is no further out
        gap = mpmath.npdf(x) * (mu - smaller) * mpmath.mpf(2) ** -60
        assert mpmath.log(gap) > log_slack + 100


def rounded_variance(s: float) -> Any:
    """Of round(N(0, s^2)), summed over its law."""
    with mpmath.workdps(40):
        half, wide = mpmath.mpf(1) / 2, mpmath.mpf(s)
        edges = [
            (k, mpmath.ncdf((half - k) / wide) - mpmath.ncdf((-half - k) / wide))
            for k in range(1, 200)
        ]
        return 2 * mpmath.fsum(k * k * p for k, p in edges)


@pytest.mark.parametrize("s", [0.5, 0.8, 1.0, 2.0, 5.0])
def test_the_variance_of_a_rounded_gaussian_is_what_the_shares_count_on(s: float) -> None:
    with mpmath.workdps(40):
        wide = mpmath.mpf(s)
        error = 8 * (wide**2 + 1) * mpmath.exp(-2 * mpmath.pi**2 * wide**2)
        assert (
            abs(rounded_variance(s) - wide**2 - mpmath.mpf(1) / 12) <= error + mpmath.mpf(10) ** -35
        )


@pytest.mark.parametrize("shares", [2, 3, 5])
@pytest.mark.parametrize("s", [0.6, 0.9, 1.2])
def test_a_sum_of_rounded_gaussians_is_as_near_to_one_rounded_release_as_is_said(
    shares: int, s: float
) -> None:
    """Where the distance can be seen: sums of small shares against round(N(0, h s^2) + uniforms)."""
    reach, fine = 60, 64
    k = np.arange(-reach, reach + 1)
    one = ndtr((k + 0.5) / s) - ndtr((k - 0.5) / s)
    total = one
    for _ in range(shares - 1):
        total = np.convolve(total, one)
    # N + (h - 1) uniforms, rounded: its law is the smoothed density's h-fold box average at the integers.
    grid = np.arange(-shares * reach * fine, shares * reach * fine + 1) / fine
    density = np.exp(-(grid**2) / (2 * shares * s * s)) / math.sqrt(2 * math.pi * shares) / s
    box = np.ones(fine + 1) / fine
    box[[0, -1]] /= 2
    for _ in range(shares):  # h - 1 uniforms, and the rounding
        density = np.convolve(density, box, mode="same")
    smooth = density[::fine]
    distance = np.abs(total - smooth).sum() / 2
    assert distance <= 8 * shares * s * math.exp(-((math.pi * s) ** 2) / 2) + 1e-4


@given(
    patients=st.integers(1, 10**6),
    each=st.integers(1, 1024),
    sensitivity=st.integers(2**10, 2**30),
    hidden=st.lists(st.integers(1, 64), max_size=3),
    width=st.integers(1, 200),
    per_layer=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_what_the_fast_engine_clips_to_leaves_room_for_all_that_rounds_in_exact_arithmetic(
    patients: int, each: int, sensitivity: int, hidden: list[int], width: int, per_layer: bool
) -> None:
    model = Mlp(preset="mlp", hidden=tuple(hidden)) if hidden else LOGISTIC
    tree = expand(model, width, 1)
    limits = Limits(patients, patients * each)
    try:
        norm = Fraction(clip_norm(tree, sensitivity, limits, per_layer))
    except InvalidParameter:
        return  # the plan is refused
    sizes = [math.prod(shape) for _, shape in parameter_shapes(tree)]
    tensors = len(sizes) if per_layer else 1
    depth = BLOCK_ROWS + 8 + limits.rows // 32
    products = sum(
        layer.in_features + layer.out_features + 3
        for layer in tree.layers
        if isinstance(layer, Linear)
    )
    terms = products + 2 * MIXED_ROWS + depth
    moved = Fraction(0)
    for size in sizes if per_layer else [sum(sizes)]:
        share = norm / Fraction(math.isqrt(tensors * 10**24)) * 10**12 if per_layer else norm
        own = share * (1 + exact_gamma(8))
        others = (
            share
            * patients
            * (2 * exact_gamma(terms) * CANCELLATION**2 + 2 * exact_gamma(depth) * CANCELLATION)
        )
        grid = Fraction(math.isqrt(size * 10**12) + 1, 10**6)
        moved += (own + others + grid) ** 2
    assert moved <= sensitivity**2


def exact_gamma(operations: int) -> Fraction:
    """Higham's gamma, without rounding."""
    return Fraction(operations, 2**53 - operations)


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
    huge = replace(sites[0].terms, declared_test=2**41)
    sites[0] = type(sites[0])(sites[0].registration, huge, sites[0].cells, sites[0].schema)
    with pytest.raises(PlanRefused, match="masks need less than 2\\^62"):
        compile_plan(wanted, sites, MODEL)

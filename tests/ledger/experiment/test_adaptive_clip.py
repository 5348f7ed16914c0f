"""A clip norm that adapts: a split of one sensitivity, and a next norm that everybody computes alike."""

from __future__ import annotations

import math
import struct
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ledger.errors import PlanRefused
from ledger.experiment.adaptive_clip import SPAN, allowed, next_norm, round_shapes, split, split_of
from ledger.experiment.average import final_model, initial_model, server_step
from ledger.experiment.network_spec import parameter_shapes
from ledger.experiment.plan.check import check_plan
from ledger.experiment.plan.compilation import compile_plan
from ledger.experiment.plan.shape import network_of
from ledger.experiment.privacy_spec import AdaptiveClipping
from ledger.experiment.spec import ExperimentSpec
from ledger.experiment.tensors import GRID
from ledger.formats.documents import encode_document, parse_document
from tests.ledger.experiment.planned import FEDAVG, MODEL, POISSON, site, spec, why_not

ADAPTIVE = {"clipping": {"kind": "adaptive"}}
SETTINGS = AdaptiveClipping(kind="adaptive")


@given(st.integers(1, 2**30), st.decimals("0.000001", "0.5", places=6))
def test_gradient_and_count_are_together_no_longer_than_the_sensitivity(
    sensitivity: int, share: Decimal
) -> None:
    if sensitivity**2 * Fraction(share) < 1:
        with pytest.raises(ValueError, match="none is left for the count"):
            split(sensitivity, share)
        return
    parts = split(sensitivity, share)
    assert (
        parts.gradient**2 + parts.count**2
        <= sensitivity**2
        < (parts.gradient + 1) ** 2 + (parts.count**2)
    )
    assert parts.count**2 <= sensitivity**2 * share
    assert 1 <= parts.count <= parts.gradient + 1


def test_the_noise_on_the_gradients_is_that_of_the_papers_theorem() -> None:
    sensitivity, share, z = GRID // 2, Decimal("0.05"), 16.7
    parts = split(sensitivity, share)
    on_count = z * sensitivity / (2 * parts.count)
    on_gradients = (z**-2 - (2 * on_count) ** -2) ** -0.5
    assert z * sensitivity / parts.gradient == pytest.approx(on_gradients, rel=1e-5)


def test_a_spec_that_adapts_is_planned_and_charged_like_one_that_does_not() -> None:
    flat, adaptive = spec(), spec(privacy=ADAPTIVE)
    ours, theirs = (compile_plan(one, (site(),), MODEL) for one in (adaptive, flat))
    assert ours.parameters == theirs.parameters + 1
    assert ours.sites[0].releases == theirs.sites[0].releases
    assert ours.sites[0].epsilon_micro == theirs.sites[0].epsilon_micro
    check_plan(adaptive, (site(),), ours)
    with pytest.raises(PlanRefused, match="not what the spec says"):
        check_plan(adaptive, (site(),), theirs)
    assert b'"clipping"' not in encode_document(flat)
    assert parse_document(encode_document(adaptive), ExperimentSpec) == adaptive
    baseline = compile_plan(spec(privacy=ADAPTIVE | {"baseline": {}}), (site(),), MODEL)
    engines = {r.purpose: r.engine for r in baseline.sites[0].releases}
    assert (engines["train"], engines["baseline_train"]) == ("exact", "fast")


def test_where_no_norm_can_adapt_the_spec_is_refused_with_the_reason() -> None:
    with pytest.raises(ValidationError, match="local steps have none"):
        spec(privacy=ADAPTIVE, federation=FEDAVG)
    with pytest.raises(ValidationError, match="use engine exact or auto"):
        spec(privacy=ADAPTIVE | {"engine": "fast"})
    with pytest.raises(ValidationError, match="clipping"):
        spec(privacy={"clipping": "adaptively"})
    error = why_not(spec(privacy=ADAPTIVE | {"clip_norm": "0.000001"}), site())
    assert error.where == "privacy.clipping"
    assert "of 1 grid units none is left for the count" in error.reason


def test_a_round_s_model_carries_the_norm_and_the_released_one_does_not() -> None:
    made = spec(privacy=ADAPTIVE | {"clip_norm": "0.75"})
    tree = network_of(made, site().schema)
    first = initial_model(made, tree)
    assert round_shapes(made, tree) == (*parameter_shapes(tree), ("clip_norm", (1,)))
    assert round_shapes(spec(), tree) == parameter_shapes(tree)
    assert first[-1] == 0.75
    assert not first[:-1].any()
    assert len(final_model(made, [first, first])) == len(first) - 1
    deep = spec(privacy=ADAPTIVE, model={"preset": "mlp", "hidden": [3]})
    plain = spec(model={"preset": "mlp", "hidden": [3]})
    tree = network_of(deep, site().schema)
    np.testing.assert_array_equal(
        initial_model(deep, tree), np.append(initial_model(plain, tree), 0.5)
    )


@pytest.mark.parametrize("federation", [{}, POISSON])
@pytest.mark.parametrize("counted", [-(10**9), -123_456, 0, 77_777_777, 10**9])
def test_the_step_of_norm_and_parameters_is_recomputed_from_the_documentation(
    federation: dict[str, str], counted: int
) -> None:
    made = spec(privacy=ADAPTIVE, federation=federation)
    model = np.array([0.1, -0.2, 0.3, 0.7])
    aggregate = np.array([123_457, -(10**7), 3, counted], dtype=np.int64)
    after = server_step(made, model, aggregate, 300)
    s = 2**19
    count = math.isqrt(s * s * 5 // 100)
    gradient = math.isqrt(s * s - count * count)
    expected = 300.0 * (float(federation["sampling"]) if federation else 1.0)
    scale = (0.7 * 2.0**20) / float(gradient)
    for value, unit, found in zip([0.1, -0.2, 0.3], aggregate.tolist(), after, strict=False):
        assert found == value - (2.0 / expected) * (scale * (float(unit) / 2**20))
    b = 0.5 + 0.5 * ((float(counted) / float(count)) / expected)
    b = min(max(b, 0.0), 1.0)
    x = 0.2 * (0.5 - b)
    norm = 0.7 * ((2.0 + x) / (2.0 - x))
    assert struct.pack("<d", float(after[-1])) == struct.pack("<d", norm)
    assert norm == pytest.approx(0.7 * math.exp(x), rel=1e-3)


@given(
    st.floats(0.5 / SPAN, 0.5 * SPAN),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(1.0, 1e6),
)
def test_a_next_norm_is_always_one_that_a_round_may_have(
    norm: float, within: float, expected: float
) -> None:
    found = next_norm(
        AdaptiveClipping(kind="adaptive", rate=Decimal(1)), 0.5, norm, within, expected
    )
    assert allowed(spec(privacy=ADAPTIVE), found)
    assert math.exp(-1.1) <= found / norm <= math.exp(1.1)


def test_more_patients_within_than_asked_for_lower_the_norm_and_fewer_raise_it() -> None:
    moved = [next_norm(SETTINGS, 0.5, 0.5, within, 100.0) for within in (100.0, 0.0, -100.0)]
    assert moved[0] < moved[1] == 0.5 < moved[2]
    assert split_of(spec(privacy=ADAPTIVE), SETTINGS) == split(GRID // 2, SETTINGS.share)

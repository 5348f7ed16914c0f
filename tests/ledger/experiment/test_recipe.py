"""Settings that a spec leaves open are a public function of epsilon, sizes and parameters."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import PlanRefused
from ledger.experiment.network_spec import parameter_count
from ledger.experiment.plan.check import check_plan
from ledger.experiment.plan.compilation import compile_plan
from ledger.experiment.plan.shape import network_of
from ledger.experiment.privacy_spec import TIGHT
from ledger.experiment.recipe import (
    FASTEST,
    HOUSE,
    LEAST_LENGTH,
    LEAST_ROUNDS,
    LENGTH_PER_SIGNAL,
    LOOSE,
    LOOSE_FROM,
    MOST_LENGTH,
    MOST_ROUNDS,
    NETWORK_LENGTH_PER_SIGNAL,
    Recipe,
    _training_mu2,
    recipe,
    resolve,
    signal,
)
from ledger.experiment.spec import ExperimentSpec
from ledger.formats.documents import encode_document, parse_document
from privacy.curves import mu2_max
from tests.ledger.experiment.planned import MODEL, site, spec

AUTO = {"strategy": {"name": "fedsgd"}, "rounds": "auto"}


def test_the_signal_of_four_hospitals_is_the_number_worked_by_hand() -> None:
    assert signal([100, 100], [0.25, 1.0], 20) == pytest.approx(200 / math.sqrt(20 * 5))
    assert signal([100, 100], [1.0, 1.0], 8, shares=4) == pytest.approx(100)


@settings(deadline=None)
@given(st.floats(0.01, 1e6), st.floats(1.0, 100.0))
def test_a_stronger_signal_never_walks_less_far(weak: float, times: float) -> None:
    one, other = recipe(weak), recipe(weak * times)
    assert one.rounds <= other.rounds
    assert _walk(one) <= _walk(other) * Decimal("1.01")


def _walk(chosen: Recipe) -> Decimal:
    """What the noise goes with: rounds, rate and clip norm, in units of the tight one."""
    return chosen.rounds * chosen.learning_rate * chosen.clip_norm / TIGHT


@settings(deadline=None)
@given(st.floats(0.0, 1e9))
def test_settings_stay_within_what_was_fitted(strength: float) -> None:
    chosen = recipe(strength)
    assert LEAST_ROUNDS <= chosen.rounds <= MOST_ROUNDS
    assert 0 < chosen.learning_rate * chosen.clip_norm <= FASTEST * TIGHT
    assert chosen.clip_norm == (LOOSE if strength >= LOOSE_FROM else TIGHT)
    length = min(max(LENGTH_PER_SIGNAL * strength, LEAST_LENGTH), MOST_LENGTH)
    assert float(_walk(chosen)) == pytest.approx(length, rel=0.01)


def test_a_number_that_is_given_is_kept_and_the_other_follows() -> None:
    assert recipe(100.0, rounds=50) == Recipe(50, Decimal(8))
    assert recipe(100.0, rate=Decimal(5)).rounds == 80
    assert recipe(1e6, rounds=3).learning_rate * 2 == FASTEST
    assert recipe(1e6, rate=Decimal(5)).clip_norm == TIGHT
    assert recipe(100.0, rounds=50, clip=Decimal(2)) == Recipe(50, Decimal(2), Decimal(2))


def test_a_resolved_spec_holds_numbers_compiles_checks_and_resolves_to_itself() -> None:
    open_ = spec(federation=AUTO)
    resolved = resolve(open_, [site()])
    assert not resolved.auto
    assert resolve(resolved, [site()]) == resolved
    assert parse_document(encode_document(resolved), ExperimentSpec) == resolved
    plan = compile_plan(resolved, [site()], MODEL)
    assert plan.rounds == resolved.rounds
    check_plan(resolved, [site()], plan)
    with pytest.raises(PlanRefused, match="it is `auto`"):
        compile_plan(open_, [site()], MODEL)
    with pytest.raises(PlanRefused, match="it is `auto`"):
        check_plan(open_, [site()], plan)


def test_a_higher_epsilon_takes_larger_steps() -> None:
    resolved = [
        resolve(spec(federation=AUTO, privacy={"epsilon": epsilon}), [site()])
        for epsilon in ("1", "3", "8")
    ]
    walks = [one.learning_rate * one.clip_norm for one in resolved]
    assert walks == sorted(set(walks))


def test_a_clip_norm_left_open_beside_a_rate_is_the_one_that_rates_are_meant_for() -> None:
    open_ = spec()
    resolved = resolve(open_, [site()])
    assert (open_.privacy.clip_norm, open_.clip_norm) == ("auto", TIGHT)
    assert (resolved.privacy.clip_norm, resolved.learning_rate) == (TIGHT, open_.learning_rate)
    unresolved = spec(federation=AUTO)
    with pytest.raises(ValueError, match="resolve the spec first"):
        _ = unresolved.clip_norm


LAYERS = {
    "_target_": "torch.nn.Sequential",
    "layers": [
        {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2},
        {"_target_": "torch.nn.Tanh"},
        {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 1},
    ],
}


@pytest.mark.parametrize(
    "changed",
    [
        {"model": {"preset": "mlp"}, "federation": AUTO | {"sampling": "0.5"}},
        {"model": LAYERS, "federation": AUTO},
        {"federation": AUTO | {"sampling": "0.5"}},
        {"federation": AUTO, "privacy": {"epsilon": "1", "clipping": "per_layer"}},
    ],
)
def test_what_nothing_was_fitted_for_gets_the_house_recipe(changed: dict[str, object]) -> None:
    resolved = resolve(spec(**changed), [site()])
    assert (resolved.rounds, resolved.learning_rate) == (HOUSE.rounds, HOUSE.learning_rate)
    assert resolved.clip_norm == HOUSE.clip_norm


def test_a_network_walks_further_for_its_signal_at_the_tight_clip_norm() -> None:
    mlp = {"preset": "mlp", "hidden": [16]}
    for epsilon in ("1", "8"):
        asked = spec(model=mlp, federation=AUTO, privacy={"epsilon": epsilon})
        resolved = resolve(asked, [site()])
        tree = network_of(asked, site().schema)
        sizes, mu2 = [site().terms.declared_train], [_training_mu2(asked, site())]
        strength = signal(sizes, mu2, parameter_count(tree))
        wanted = recipe(strength, clip=TIGHT, per_signal=NETWORK_LENGTH_PER_SIGNAL)
        assert (resolved.rounds, resolved.learning_rate) == (wanted.rounds, wanted.learning_rate)
        assert resolved.privacy.clip_norm == TIGHT


def test_a_local_baseline_gets_a_rate_for_one_site() -> None:
    asked = spec(("basel", "bern"), federation=AUTO, privacy={"epsilon": "8", "baseline": {}})
    resolved = resolve(asked, [site(), site("bern")])
    assert resolved.privacy.baseline is not None
    local = resolved.privacy.baseline.learning_rate
    assert local is not None
    assert local * 20 < resolved.learning_rate * resolved.rounds


def test_what_training_may_cost_leaves_out_the_share_of_metrics_on_the_same_patients() -> None:
    with_metrics = resolve(spec(federation=AUTO, privacy={"epsilon": "3"}), [site()])
    without = resolve(spec(federation=AUTO, privacy={"epsilon": "3", "metrics": None}), [site()])
    ratio = float(without.learning_rate / with_metrics.learning_rate)
    assert ratio == pytest.approx(1 / math.sqrt(0.8), rel=0.02)
    assert mu2_max(3.0, 5e-6) > 0

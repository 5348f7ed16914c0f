"""Which inputs a model's parts read, what does not fit, and where its weights begin."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ledger.errors import PlanRefused
from ledger.experiment.average import initial_model
from ledger.experiment.fast_clip import Limits, clip_norm
from ledger.experiment.network_spec import Network, parameter_shapes
from ledger.experiment.plan.shape import network_of
from ledger.experiment.recipe import is_house
from ledger.experiment.schema import feature_names
from privacy.errors import InvalidParameter
from privacy.events import GRID
from tests.composed_models import CONV, GRU, MODELS, NUMBERS, WARD, schema, series, spec


def test_parts_find_their_inputs_and_the_rest_stays_in_order() -> None:
    asked = spec(MODELS["all"])
    tree = network_of(asked, schema())
    assert isinstance(tree, Network)
    names = feature_names(schema(), asked.features, frozenset(["ward"]))
    assert [names[place] for place in tree.embedded_at] == ["ward"]
    channels = [[names[place] for place in channel] for channel in tree.series_at[0]]
    assert channels == [list(NUMBERS[:8]), list(NUMBERS[8:])]
    assert [names[place] for place in tree.rest] == ["age", "age:missing", "sex=f", "sex=m"]


def test_first_weights_are_within_torch_s_bounds_and_norms_begin_as_one() -> None:
    asked = spec(MODELS["conv1d"] | {"embeddings": [WARD]}, clip_norm="0.5")
    tree = network_of(asked, schema())
    flat, at = initial_model(asked, tree), 0
    found: dict[str, Any] = {}
    for name, shape in parameter_shapes(tree):
        size = math.prod(shape)
        found[name] = flat[at : at + size]
        at += size
    assert list(found)[:3] == ["embeddings.0.weight", "series.0.0.weight", "series.0.0.bias"]
    bounds = {"embeddings.0.weight": 3, "series.0.0.weight": 2 * 3, "series.0.3.bias": 8 * 3}
    for name, fan in bounds.items():
        assert 0.5 < np.abs(found[name]).max() * math.sqrt(fan) <= 1.0, name
    assert set(found["series.0.1.weight"]) == {1.0}
    assert set(found["series.0.1.bias"]) == {0.0}


def test_the_fast_engine_s_norm_falls_with_the_patients_and_is_refused_where_half_is_gone() -> None:
    tree = network_of(spec(MODELS["all"]), schema())
    norms = [clip_norm(tree, GRID, Limits(n, n)) for n in (100, 1000, 10_000)]
    assert GRID > norms[0] > norms[1] > norms[2] > 0.8 * GRID
    with pytest.raises(InvalidParameter, match="use the exact engine"):
        clip_norm(tree, GRID, Limits(100_000, 100_000))


def test_what_is_auto_is_the_house_s_for_a_model_that_nothing_was_fitted_for() -> None:
    assert is_house(spec(MODELS["gru"]))
    assert not is_house(spec({"preset": "mlp"}))


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ({"embeddings": [WARD | {"num_embeddings": 9}]}, "num_embeddings is 9"),
        ({"embeddings": [WARD | {"column": "age"}]}, "no category column among the features"),
        ({"embeddings": [WARD, WARD]}, "column ward is read by two"),
        ({"series": [series(GRU, "last") | {"steps": 12}]}, "bp_00 has 12 steps, and the features end after 9"),
        ({"series": [series(GRU, "last") | {"channels": ["hr_00", "bp_01"]}]}, "sex in channel bp_01"),
        ({"series": [series(GRU, "last") | {"channels": ["ward", "bp_00"]}]}, "ward in channel ward"),
        ({"series": [series(GRU, "last") | {"channels": ["ill", "bp_00"]}]}, "ill is not among"),
        ({"series": [series(CONV[1:], "mean")]}, "layer 0 (GroupNorm) takes 8 channels, but gets 2"),
        ({"series": [series([CONV[0] | {"kernel_size": 11}], "mean")]}, "a kernel of 11 over 10 steps"),
        ({"series": [series([CONV[0], CONV[1] | {"num_groups": 3}], "mean")]}, "into 3 groups"),
        ({"series": [series([GRU[0] | {"hidden_size": 1024}] * 1 + [GRU[0] | {"input_size": 1024, "hidden_size": 1024}], "last")]}, "parameters, over the limit"),
    ],
)  # fmt: skip
def test_a_part_that_does_not_fit_the_columns_is_refused_with_its_place(
    model: dict[str, Any], says: str
) -> None:
    with pytest.raises(PlanRefused) as caught:
        network_of(spec({"preset": "mlp", "hidden": [4]} | model), schema())
    assert says in caught.value.reason


def test_a_spec_without_parts_says_nothing_of_them() -> None:
    plain = spec({"preset": "mlp", "hidden": [4]}).model_dump(mode="json")["model"]
    assert "embeddings" not in plain
    assert "series" not in plain

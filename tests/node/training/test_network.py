"""A tree of layers in torch is the tree that everybody else computes with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ledger.experiment.network_spec import Sequential, parameter_shapes
from node.errors import JobRefused
from node.training.networks.modules import build, flat, load_flat
from node.training.sums.exact import per_sample

_NAMES = ("ReLU", "Tanh", "Sigmoid", "GELU", "SiLU", "ELU", "Softplus")
TREE = Sequential.model_validate(
    {
        "_target_": "torch.nn.Sequential",
        "layers": [
            {"_target_": "torch.nn.Linear", "in_features": 5, "out_features": 4, "bias": False},
            {"_target_": "torch.nn.LayerNorm", "normalized_shape": 4},
            *({"_target_": f"torch.nn.{name}"} for name in _NAMES),
            {"_target_": "torch.nn.Linear", "in_features": 4, "out_features": 3},
        ],
    }
)


def test_names_shapes_and_order_agree_with_those_that_need_no_torch() -> None:
    module = build(TREE)
    found = tuple((name, tuple(p.shape)) for name, p in module.named_parameters())
    assert found == parameter_shapes(TREE)
    assert [type(layer).__name__ for layer in module][2:-1] == list(_NAMES)


def test_weights_survive_the_round_trip_and_land_in_their_place() -> None:
    module = build(TREE)
    weights = np.arange(43, dtype=np.float64)
    load_flat(module, weights)
    np.testing.assert_array_equal(flat(module), weights)
    np.testing.assert_array_equal(flat(per_sample(module)), weights)
    assert module[0].weight[1, 0].item() == 5.0
    assert module[0].weight.dtype == torch.float32


def test_weights_of_another_length_are_refused() -> None:
    with pytest.raises(JobRefused, match="43 parameters"):
        load_flat(build(TREE), np.zeros(42))

"""The fast engines in float64, under a model whose numbers are near the end of what float64 holds."""

from __future__ import annotations

import numpy as np
import pytest

from ledger.experiment.network_spec import Linear, parameter_count
from ledger.experiment.spec import RegressionTask
from node.data.encode import Examples
from node.training.networks.products import PRODUCTS
from node.training.rounds.train import start_torch
from node.training.sums import dense
from node.training.sums.dense import DenseSum
from node.training.sums.layerwise import LayerwiseSum
from tests.node.cases import random_examples
from tests.node.training.test_dense import LIMITS
from tests.node.training.test_train import TREES, WIDTH

start_torch()
RELU = next(
    layer for layer in TREES["normed"].layers if str(getattr(layer, "target", "")).endswith("ReLU")
)
TREE = TREES["mlp"].model_copy(
    update={"layers": tuple(e if isinstance(e, Linear) else RELU for e in TREES["mlp"].layers)}
)


@pytest.mark.parametrize("engine", [DenseSum, LayerwiseSum])
@pytest.mark.parametrize("power", [190, 260, 300, 350, 380, 500, 1000])
def test_no_patients_rows_make_the_sum_of_all_no_number(
    engine: type[DenseSum], power: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "PRODUCTS", PRODUCTS[-1:])
    made = random_examples(1, 12, WIDTH)
    pairs = Examples(made.features, made.targets, np.repeat(np.arange(6), 2), 6)
    task = RegressionTask(kind="regression", target="y")
    fast = engine(TREE, task, pairs, LIMITS)
    weights = np.random.default_rng(1).normal(0, 1, parameter_count(TREE))
    first = TREE.layers[0]
    assert isinstance(first, Linear)
    weights[: first.out_features * WIDTH] *= 2.0**power
    fast.load(weights)
    assert np.isfinite(fast.float_sum(None, 0.5)).all()

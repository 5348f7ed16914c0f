"""The self-test's small networks: both engines' clipped sums against gradients taken row by row.

Whole rounds of the self-test train one linear layer. Here each kind of layer that a spec can name goes the way that
the engines choose for it: dense layers with a norm; a table of codes; convolutions of which one is kept and one has
its norms from places; a group norm; a recurrent cell. Patients have several rows.

Promise: a sum that is not what its patients' gradients make, or that one patient moves by more than the sensitivity, is
named; no patient's row is touched, and nothing is drawn, so once in a process is enough. Not promised: shapes
other than these.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch

from ledger.experiment.fast_clip import Limits, clip_norm
from ledger.experiment.network_spec import Network, Sequential
from ledger.experiment.spec import BinaryTask
from node.data.encode import Examples
from node.training.networks.composed import ComposedNetwork
from node.training.networks.modules import FloatVector, build, load_flat
from node.training.sums.composed import ComposedSum
from node.training.sums.dense import DenseSum
from node.training.sums.exact import exact_sum, loss_of, per_sample
from privacy.events import GRID

_TASK = BinaryTask(kind="binary", target="y", positive=("1",))
_CODES, _STEPS, _REST = 9, 8, 3
_CHANNELS = 2
_INPUTS = 1 + _CHANNELS * _STEPS + _REST
_ROWS, _PATIENTS, _LEAVING = 24, 10, 3
_LIMITS = Limits(_PATIENTS, 2 * _ROWS)
_SENSITIVITY = GRID // 4
_TOLERANCE = 1e-3
"""Of a sum's norm; float32 and the grid move it by a tenth of that."""


@cache
def wrong_sums() -> tuple[str, ...]:
    """Name the engines and networks whose sums are wrong, as ``fast mlp``; none on a good machine. A second."""
    return tuple(
        f"{engine} {name}"
        for name, tree in _networks()
        for engine in ("exact", "fast")
        if not _is_right(engine, tree)
    )


def _is_right(engine: str, tree: Network) -> bool:
    draw = np.random.default_rng(1)
    inputs = draw.uniform(-1, 1, (_ROWS, _INPUTS)).astype(np.float32)
    inputs[:, 0] = draw.integers(0, _CODES, _ROWS)
    patients = np.sort(
        np.append(np.arange(_PATIENTS), draw.integers(0, _PATIENTS, _ROWS - _PATIENTS))
    )
    rows = Examples(inputs, draw.integers(0, 2, _ROWS).astype(np.float32), patients, _PATIENTS)
    plain = ComposedNetwork(tree)
    weights = draw.normal(0, 0.3, sum(p.numel() for p in plain.parameters()))
    load_flat(plain, weights)
    bound = _SENSITIVITY if engine == "exact" else clip_norm(tree, _SENSITIVITY, _LIMITS)
    wanted = _by_rows(plain, rows, bound / GRID)
    everybody = np.ones(_PATIENTS, dtype=np.bool_)
    found = _sum(engine, tree, rows, weights, everybody)
    if not np.linalg.norm(found / GRID - wanted) <= _TOLERANCE * np.linalg.norm(wanted):
        return False
    moved = (
        found - _sum(engine, tree, rows, weights, np.arange(_PATIENTS) != leaver)
        for leaver in range(_LEAVING)
    )
    return all(np.linalg.norm(one) <= _SENSITIVITY for one in moved)


def _sum(
    engine: str, tree: Network, rows: Examples, weights: FloatVector, stay: Any
) -> FloatVector:
    """Grid units, float64 [d]."""
    dense = not (tree.embeddings or tree.series)
    bare = Sequential(layers=tree.layers) if dense else tree
    if engine == "exact":
        module = per_sample(build(bare))
        load_flat(module, weights)
        chosen = rows.of_units(np.flatnonzero(stay))
        total = exact_sum(module, chosen, sensitivity=_SENSITIVITY, loss=loss_of(_TASK), block=64)
    else:
        fast: Any = (
            DenseSum(bare, _TASK, rows, _LIMITS)
            if dense
            else ComposedSum(tree, _TASK, rows, _LIMITS, False)
        )
        fast.load(weights)
        total = fast.clipped_sum(stay, _SENSITIVITY)
    return total.astype(np.float64)


def _by_rows(module: ComposedNetwork, rows: Examples, bound: float) -> FloatVector:
    """The clipped sum from the definition: torch's gradient of each row alone, float64 [d]."""
    means = np.zeros((rows.units, sum(p.numel() for p in module.parameters())))
    counts = np.bincount(rows.patients)
    for at, patient in enumerate(rows.patients):
        inputs, target = (torch.from_numpy(of[at : at + 1]) for of in (rows.features, rows.targets))
        loss = loss_of(_TASK)(module(inputs), target)
        pieces = torch.autograd.grad(loss, list(module.parameters()))
        means[patient] += (
            np.concatenate([p.double().numpy().ravel() for p in pieces]) / counts[patient]
        )
    norms = np.linalg.norm(means, axis=1)
    total: FloatVector = np.minimum(1.0, bound / norms) @ means
    return total


def _networks() -> Iterator[tuple[str, Network]]:
    conv: dict[str, Any] = {
        "_target_": "torch.nn.Conv1d", "in_channels": _CHANNELS, "out_channels": 64, "kernel_size": 3,
        "padding": 1,
    }  # fmt: skip
    wide = {
        **conv,
        "in_channels": 64,
        "out_channels": 128,
        "kernel_size": 5,
        "stride": 2,
        "padding": 2,
    }
    norm = {"_target_": "torch.nn.GroupNorm", "num_groups": 4, "num_channels": 64}
    cell = {"_target_": "torch.nn.GRU", "input_size": _CHANNELS, "hidden_size": 8}
    relu, tanh = {"_target_": "torch.nn.ReLU"}, {"_target_": "torch.nn.Tanh"}
    yield (
        "mlp",
        _network(_INPUTS, hidden=[{"_target_": "torch.nn.LayerNorm", "normalized_shape": 12}]),
    )
    yield "embedding", _network(_INPUTS + 3, table=True)
    yield (
        "convolution",
        _network(128 + 1 + _REST, layers=[conv, norm, relu, wide, tanh], pool="mean"),
    )
    yield "recurrent", _network(8 + 1 + _REST, layers=[cell], pool="last")


def _network(
    width: int,
    *,
    hidden: list[dict[str, Any]] | None = None,
    table: bool = False,
    layers: list[dict[str, Any]] | None = None,
    pool: str = "flatten",
) -> Network:
    """Inputs are a code, two measurements at each step, and a few numbers."""
    series_at = [
        [[1 + kind * _STEPS + step for step in range(_STEPS)] for kind in range(_CHANNELS)]
    ]
    taken = ([0] if table else []) + (
        [at for line in series_at[0] for at in line] if layers else []
    )
    rest = [at for at in range(_INPUTS) if at not in taken]
    dense = [
        {"_target_": "torch.nn.Linear", "in_features": width - table, "out_features": 12},
        *(hidden or []),
        {"_target_": "torch.nn.Tanh"},
        {"_target_": "torch.nn.Linear", "in_features": 12, "out_features": 1},
    ]
    series = {"channels": ["a", "b"], "steps": _STEPS, "layers": layers, "pool": pool}
    return Network.model_validate(
        {
            "_target_": "torch.nn.Sequential",
            "layers": dense,
            "embeddings": [{"column": "c", "num_embeddings": _CODES, "embedding_dim": 3}] * table,
            "series": [series] if layers else [],
            "embedded_at": [0] * table,
            "series_at": series_at if layers else [],
            "rest": rest,
        }
    )

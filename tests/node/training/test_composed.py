"""Networks with embeddings and series: equal to Opacus in both engines, bounded by one patient, plain torch outside."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModule
from opacus.layers import DPGRU
from torch import nn

from ledger.experiment.fast_clip import Limits, clip_norm
from ledger.experiment.network_spec import Network, parameter_shapes
from ledger.experiment.plan.shape import network_of
from node.data.encode import Examples, examples
from node.data.intake import Table
from node.errors import JobRefused
from node.training.networks.modules import FloatVector, build, flat, load_flat
from node.training.rounds.train import start_torch
from node.training.sums import composed
from node.training.sums.composed import ComposedSum
from node.training.sums.exact import exact_sum, loss_of, patient_gradients, per_sample
from privacy.events import GRID
from tests.composed_models import CODES, MODELS, NUMBERS, TASK, schema, spec

start_torch()
LIMITS = Limits(400, 4000)


def tree_of(name: str) -> Network:
    tree = network_of(spec(MODELS[name]), schema())
    assert isinstance(tree, Network)
    return tree


def rows_of(tree: Network, seed: int, rows: int, patients: int | None = None) -> Examples:
    """Encoded rows of no meaning: two inputs for the age, a code or its marks, numbers, two for the sex."""
    draw = np.random.default_rng(seed)
    codes = 1 if tree.embeddings else len(CODES)
    inputs = draw.uniform(-1, 1, (rows, 4 + codes + len(NUMBERS))).astype(np.float32)
    if tree.embeddings:
        inputs[:, 2] = draw.integers(0, len(CODES) + 1, rows)
    targets = draw.integers(0, 2, rows).astype(np.float32)
    if patients is None:
        return Examples(inputs, targets, np.arange(rows), rows)
    owner = np.sort(np.append(np.arange(patients), draw.integers(0, patients, rows - patients)))
    return Examples(inputs, targets, owner, patients)


def weights_of(tree: Network, seed: int = 1) -> FloatVector:
    size = sum(int(np.prod(shape)) for _, shape in parameter_shapes(tree))
    return np.asarray(np.random.default_rng(seed).normal(0, 0.5, size), dtype=np.float64)


def by_opacus(tree: Network, batch: Examples, bound: float) -> FloatVector:
    """The clipped sum of patients' mean gradients, from stock Opacus and torch modules."""
    module = build(tree)
    load_flat(module, weights_of(tree))
    for one in module.modules():
        for name, child in list(one.named_children()):
            if isinstance(child, nn.GRU):
                own: nn.Module = DPGRU(child.input_size, child.hidden_size, batch_first=True)
            elif isinstance(child, nn.Linear):
                own = nn.Linear(child.in_features, child.out_features)
            else:
                continue
            own.load_state_dict(child.state_dict())
            setattr(one, name, own)
    engine: Any = GradSampleModule(module, loss_reduction="sum")
    loss_of(TASK)(
        engine(torch.from_numpy(batch.features)), torch.from_numpy(batch.targets)
    ).backward()
    named = dict(engine.named_parameters())
    pieces = []
    for name, _ in parameter_shapes(tree):
        found = [p for key, p in named.items() if _plain(key) == name and p.grad_sample is not None]
        pieces.append(found[0].grad_sample.reshape(len(batch.targets), -1).double().numpy())
    gradients = np.concatenate(pieces, axis=1)
    means = np.zeros((batch.units, gradients.shape[1]))
    np.add.at(means, batch.patients, gradients)
    means /= np.bincount(batch.patients)[:, None]
    norms = np.linalg.norm(means, axis=1)
    return np.asarray((means * np.minimum(1.0, bound / norms)[:, None]).sum(axis=0))


def _plain(name: str) -> str:
    """A parameter of Opacus' recurrent layer, as torch calls it."""
    name = name.removeprefix("_module.")
    for theirs, ours in (("l0.ih.weight", "weight_ih_l0"), ("l0.hh.weight", "weight_hh_l0"),
                         ("l0.ih.bias", "bias_ih_l0"), ("l0.hh.bias", "bias_hh_l0")):  # fmt: skip
        name = name.replace(theirs, ours)
    return name


@pytest.mark.parametrize("patients", [None, 17])
@pytest.mark.parametrize("name", MODELS)
def test_both_engines_give_what_stock_opacus_gives(name: str, patients: int | None) -> None:
    tree = tree_of(name)
    batch = rows_of(tree, 1, 60, patients)
    wanted = by_opacus(tree, batch, 0.3)
    fast = ComposedSum(tree, TASK, batch, LIMITS, False)
    fast.load(weights_of(tree))
    found = fast.float_sum(None, 0.3)
    assert np.linalg.norm(found - wanted) <= 1e-5 * np.linalg.norm(wanted)
    engine = per_sample(build(tree))
    load_flat(engine, weights_of(tree))
    means = np.concatenate([*patient_gradients(engine, batch, loss=loss_of(TASK), block=64)])
    norms = np.linalg.norm(means, axis=1)
    own = (means * np.minimum(1.0, 0.3 / norms)[:, None]).sum(axis=0)
    assert np.linalg.norm(own - wanted) <= 1e-5 * np.linalg.norm(wanted)


@pytest.mark.parametrize("per_layer", [False, True])
def test_a_machine_that_rounds_by_place_gets_the_same_sums_row_by_row(
    per_layer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tree_of("all")
    batch = rows_of(tree, 6, 40, 11)
    sums = []
    for way in ("book-keeping", "alone"):
        fast = ComposedSum(tree, TASK, batch, LIMITS, per_layer)
        assert fast.path == way
        fast.load(weights_of(tree))
        sums.append(fast.float_sum(None, 0.3))
        monkeypatch.setattr(composed, "clipped_sum_of", _refuse)
    assert np.linalg.norm(sums[0] - sums[1]) <= 1e-5 * np.linalg.norm(sums[0])


def _refuse(*_: object, **__: object) -> None:
    raise JobRefused("this machine rounds a row by its place")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("per_layer", [False, True])
def test_a_patient_moves_the_fast_sum_by_no_more_than_is_charged(
    name: str, per_layer: bool
) -> None:
    tree = tree_of(name)
    batch = rows_of(tree, 2, 90, 24)
    sensitivity = GRID // 50  # everybody is clipped
    fast = ComposedSum(tree, TASK, batch, LIMITS, per_layer)
    fast.load(weights_of(tree))
    everybody = fast.clipped_sum(None, sensitivity)
    longest = 0.0
    for patient in range(batch.units):
        stay = np.arange(batch.units) != patient
        moved = everybody - fast.clipped_sum(stay, sensitivity)
        longest = max(longest, float(np.linalg.norm(moved.astype(np.float64))))
    assert 0.98 * clip_norm(tree, sensitivity, LIMITS, per_layer) < longest <= sensitivity


@pytest.mark.parametrize("name", MODELS)
def test_a_patient_s_vector_of_the_exact_engine_is_the_same_bits_whoever_else_is_there(
    name: str,
) -> None:
    tree = tree_of(name)
    batch = rows_of(tree, 3, 40, 15)
    engine = per_sample(build(tree))
    load_flat(engine, weights_of(tree))

    def sum_of(some: Examples) -> Any:
        return exact_sum(engine, some, sensitivity=GRID // 4, loss=loss_of(TASK), block=64)

    everybody = sum_of(batch)
    alone = [sum_of(batch.of_units(np.array([unit]))) for unit in range(batch.units)]
    assert (np.sum(alone, axis=0) == everybody).all()
    assert all(int((one * one).sum()) <= (GRID // 4) ** 2 for one in alone)


def test_a_row_without_a_number_is_a_row_of_zeros_in_both_engines() -> None:
    tree = tree_of("all")
    batch = rows_of(tree, 4, 30)
    batch.features[7, 5] = np.nan
    others = batch.sample(np.arange(30) != 7)
    for name in ("exact", "fast"):
        sums = []
        for some in (batch, others):
            if name == "fast":
                fast = ComposedSum(tree, TASK, some, LIMITS, False)
                fast.load(weights_of(tree))
                sums.append(fast.clipped_sum(None, GRID))
            else:
                engine = per_sample(build(tree))
                load_flat(engine, weights_of(tree))
                sums.append(exact_sum(engine, some, sensitivity=GRID, loss=loss_of(TASK), block=64))
        assert (sums[0] == sums[1]).all()


@pytest.mark.parametrize("name", MODELS)
def test_weights_load_into_torch_layers_of_the_same_names(name: str) -> None:
    tree = tree_of(name)
    module = build(tree)
    shapes = [(key, tuple(value.shape)) for key, value in module.named_parameters()]
    assert shapes == list(parameter_shapes(tree))
    load_flat(module, weights_of(tree))
    assert flat(module).astype(np.float32).tolist() == weights_of(tree).astype(np.float32).tolist()
    batch = rows_of(tree, 5, 9)
    told = module(torch.from_numpy(batch.features))
    by_hand = _by_hand(tree, dict(module.state_dict()), torch.from_numpy(batch.features))
    assert torch.allclose(told, by_hand, atol=1e-6)


def _by_hand(tree: Network, state: dict[str, torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
    """A reader's own module: layers of torch.nn and the names of the tensors, nothing of ours."""
    parts = []
    for at, place in enumerate(tree.embedded_at):
        parts.append(state[f"embeddings.{at}.weight"][rows[:, place].long()])
    for at, lines in enumerate(tree.series_at):
        values = rows[:, torch.tensor(lines)]
        for number, layer in enumerate(tree.series[at].layers):
            own = {
                k.split(".", 3)[3]: v
                for k, v in state.items()
                if k.startswith(f"series.{at}.{number}.")
            }
            settings = {
                k: v for k, v in layer.model_dump().items() if k not in ("_target_", "target")
            }
            one: Any = getattr(nn, layer.target.rpartition(".")[2])(
                **settings, **({"batch_first": True} if layer.target.endswith("GRU") else {})
            )
            one.load_state_dict(own)
            if layer.target.endswith("GRU"):
                values = one(values.transpose(1, 2))[0].transpose(1, 2)
            else:
                values = one(values)
        pool = tree.series[at].pool
        parts.append(
            values.flatten(1)
            if pool == "flatten"
            else values.mean(2)
            if pool == "mean"
            else values[:, :, -1]
        )
    parts.append(rows[:, list(tree.rest)])
    joined = torch.cat(parts, 1)
    for number, dense in enumerate(tree.layers):
        own = {k.split(".", 2)[2]: v for k, v in state.items() if k.startswith(f"layers.{number}.")}
        settings = {k: v for k, v in dense.model_dump().items() if k not in ("_target_", "target")}
        two: Any = getattr(nn, dense.target.rpartition(".")[2])(**settings)
        two.load_state_dict(own)
        joined = two(joined)
    return cast(torch.Tensor, joined)


def test_codes_become_lines_of_the_table_and_what_is_missing_the_first() -> None:
    asked = spec(MODELS["embedding"])
    rows = 3
    columns: dict[str, Any] = {name: np.full(rows, 100.0) for name in ["age", *NUMBERS]}
    columns["ward"] = np.array([0, 8, -1], dtype=np.int32)
    columns["sex"] = columns["ill"] = np.array([0, 1, 0], dtype=np.int32)
    table = Table(dataset="ward", rows=rows, columns=columns, patients=None)
    found = examples(table, schema(), asked, np.ones(rows, dtype=bool))
    assert found.features.shape == (3, 5 + len(NUMBERS))
    assert found.features[:, 2].tolist() == [1.0, 9.0, 0.0]


@pytest.mark.parametrize("limits", [Limits(39, 400), Limits(40, 39)])
def test_no_engine_is_made_for_more_than_the_registration_allows(limits: Limits) -> None:
    tree = tree_of("embedding")
    with pytest.raises(JobRefused, match="more patients or rows than its registration allows"):
        ComposedSum(tree, TASK, rows_of(tree, 6, 40, None), limits, False)

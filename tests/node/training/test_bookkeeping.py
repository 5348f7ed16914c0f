"""The engine for any module: equal to Opacus for every layer, bounded by one patient."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModule
from opacus.layers import DPGRU
from torch import nn
from torch.nn import functional

from node.training.layers.recurrent import UnrolledGRU
from node.training.rounds.train import start_torch
from node.training.sums import bookkeeping
from node.training.sums.bookkeeping import BookKeeping, clipped_sum_of
from node.training.sums.noisy_sum import clipped_sum, noisy_sum
from privacy.errors import InvalidParameter
from privacy.events import GRID
from privacy.noise import TestRng

start_torch()
Rows = Callable[[int], torch.Tensor]


class Recurrent(nn.Module):
    def __init__(self, kind: Any = nn.GRU, layers: int = 1) -> None:
        super().__init__()
        self.cell = kind(8, 16, num_layers=layers, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.cell(rows)[0][:, -1])
        return scores


class Words(nn.Module):
    def __init__(self, padding: int | None = None) -> None:
        super().__init__()
        self.table = nn.Embedding(30, 12, padding_idx=padding)
        self.mix = nn.Linear(12, 12)
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(torch.tanh(self.norm(self.mix(self.table(rows)))).mean(1))
        return scores


class Shared(nn.Module):
    """A layer used twice, and a parameter of no layer: nothing that book-keeping has a rule for."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        inner = torch.tanh(self.twice(torch.tanh(self.twice(rows))))
        scores: torch.Tensor = self.head(inner * self.scale)
        return scores


class Skip(nn.Module):
    """A small residual network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.inner = nn.Conv2d(8, 8, 3, 1, 1, bias=False)
        self.norm = nn.GroupNorm(4, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.stem(rows))
        x = functional.relu(self.norm(self.inner(x)) + x)
        scores: torch.Tensor = self.head(x.mean(dim=(2, 3)))
        return scores


def images() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.InstanceNorm2d(8, affine=True),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(32, 3),
    )


def signals() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 8, 5, padding=2),
        nn.ReLU(),
        nn.InstanceNorm1d(8, affine=True),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


def specks() -> nn.Module:
    """Images of which most of a kernel meets only padding."""
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, stride=2, padding=1),
        nn.Tanh(),
        nn.Conv2d(5, 6, 5, stride=3, padding=2, bias=False),
        nn.Tanh(),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


def small() -> nn.Module:
    """Images that shrink below their kernels: most of a patch is padding, at last all of it but one place."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.GroupNorm(4, 8),
        nn.Tanh(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1),
        nn.Tanh(),
        nn.Conv2d(12, 6, (5, 3), padding=(2, 1)),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


def table() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.LayerNorm(16), nn.Linear(16, 3))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Rows]] = {
    "linear and layer norm": (table, lambda n: torch.randn(n, 8)),
    "conv2d, group and instance norm": (images, lambda n: torch.randn(n, 2, 12, 12)),
    "conv2d over padding": (specks, lambda n: torch.randn(n, 2, 4, 4)),
    "conv2d over few places": (small, lambda n: torch.randn(n, 3, 4, 4)),
    "conv1d": (signals, lambda n: torch.randn(n, 3, 20)),
    "embedding and places": (Words, lambda n: torch.randint(0, 30, (n, 9))),
    "residual": (Skip, lambda n: torch.randn(n, 3, 12, 12)),
    "gru": (Recurrent, lambda n: torch.randn(n, 7, 8)),
    "two layers of gru": (lambda: Recurrent(layers=2), lambda n: torch.randn(n, 5, 8)),
    "shared": (Shared, lambda n: torch.randn(n, 8)),
}


def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs, targets, reduction="none")


def case(name: str, rows: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    make, draw = NETWORKS[name]
    torch.manual_seed(3)
    return make(), draw(rows), torch.randint(0, 3, (rows,))


def owners(rows: int, patients: int) -> Any:
    drawn = np.sort(np.random.default_rng(0).integers(0, patients, rows))
    return np.unique(drawn, return_inverse=True)[1].astype(np.int64)


def by_opacus(module: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, owner: Any) -> Any:
    """Each patient's mean gradient by ``GradSampleModule``, float64 [m, d]."""
    stock = copy.deepcopy(module)
    for layer in stock.modules():  # which Opacus' hooks do not stand
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    if isinstance(stock, Recurrent):
        named = stock.cell
        stock.cell = DPGRU(8, 16, num_layers=named.num_layers, batch_first=True)
        stock.cell.load_state_dict(named.state_dict())
    if isinstance(stock, Shared):  # a parameter outside any layer is not for Opacus' hooks
        rows = []
        for x, y in zip(inputs, targets, strict=True):
            stock.zero_grad()
            loss(stock(x[None]), y[None]).sum().backward()  # type: ignore[no-untyped-call]
            rows.append(torch.cat([p.grad.flatten() for p in stock.parameters()]))
        gradients = torch.stack(rows).double()
    else:
        wrapped = GradSampleModule(stock, loss_reduction="sum")
        loss(wrapped(inputs), targets).sum().backward()  # type: ignore[no-untyped-call]
        names = [name for name, _ in module.named_parameters()]
        found = dict(stock.named_parameters())
        pieces = [found[name].grad_sample.flatten(1) for name in names]
        gradients = torch.cat(pieces, dim=1).double()
    sums = torch.zeros((int(owner[-1]) + 1, gradients.shape[1]), dtype=torch.float64)
    sums.index_add_(0, torch.from_numpy(owner), gradients)
    return sums / torch.from_numpy(np.bincount(owner))[:, None]


@pytest.mark.filterwarnings("ignore:Full backward hook")
@pytest.mark.parametrize("kept", [2**21, 0])
@pytest.mark.parametrize("patients", [None, 40, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_clipped_sum_equals_opacus_for_every_layer_and_for_several_rows_a_patient(
    name: str, patients: int | None, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bookkeeping, "_KEPT_VALUES", kept)
    module, inputs, targets = case(name, 150)
    owner = np.arange(150) if patients is None else owners(150, patients)
    gradients = by_opacus(module, inputs, targets, owner)
    norms = gradients.norm(dim=1)
    bound = float(norms.median())
    theirs = (gradients * (bound / norms.clamp_min(bound))[:, None]).sum(dim=0)
    engine = clipped_sum_of(module, loss, inputs[:64])
    ours = engine.float_sum(inputs, targets, bound, None if patients is None else owner)
    assert float((ours - theirs).norm() / theirs.norm()) <= 1e-5
    assert engine.path == ("vmap" if name == "shared" else "book-keeping")


@pytest.mark.parametrize("patients", [None, 60])
@pytest.mark.parametrize(
    ("name", "kept"),
    [*((name, 2**21) for name in NETWORKS), ("conv2d over few places", 0), ("residual", 0)],
)
def test_removing_a_patient_moves_the_sum_by_at_most_the_charged_sensitivity(
    name: str, kept: int, patients: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bookkeeping, "_KEPT_VALUES", kept)
    module, inputs, targets = case(name, 150)
    owner = np.arange(150) if patients is None else owners(150, patients)
    units = int(owner[-1]) + 1
    engine = clipped_sum_of(module, loss, inputs[:64])

    def summed(stay: Any) -> Any:
        rows = torch.from_numpy(stay)
        return clipped_sum(
            engine,
            inputs[rows],
            targets[rows],
            sensitivity,
            most_patients=300,
            patients=np.unique(owner[stay], return_inverse=True)[1].astype(np.int64),
        )

    for sensitivity in (GRID // 4, 400):
        everybody = summed(np.ones(150, dtype=bool))
        longest = 0.0
        for leaver in range(0, units, 9):
            without = summed(owner != leaver)
            longest = max(longest, float(np.linalg.norm(everybody - without)))
            alone = summed(owner == leaver)
            # What stays is the same to float32 rounding of the sum of 64 rows, and the grid.
            assert np.abs(everybody - without - alone).max() <= 2 + 1e-5 * sensitivity
        assert 0.8 * engine.clip_norm(sensitivity, 300) < longest <= sensitivity


@pytest.mark.filterwarnings("error")  # one would say something of the rows
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["conv2d, group and instance norm", "gru", "shared"])
def test_a_row_that_is_not_finite_changes_nothing(name: str, broken: float) -> None:
    module, inputs, targets = case(name, 40)
    engine = clipped_sum_of(module, loss, inputs)
    stay = torch.arange(40) != 7
    expected = engine.float_sum(inputs[stay], targets[stay], 0.5)
    inputs[7] = broken
    result = engine.float_sum(inputs, targets, 0.5)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)
    again = engine.float_sum(inputs[stay], targets[stay], 0.5)
    torch.testing.assert_close(again, expected, rtol=0, atol=0)


@pytest.mark.parametrize("patients", [None, 9])
def test_the_padding_of_an_embedding_is_not_trained(patients: int | None) -> None:
    torch.manual_seed(5)
    module, inputs, targets = Words(padding=0), torch.randint(0, 3, (20, 9)), torch.zeros(20).long()
    owner = None if patients is None else owners(20, patients)
    engine = clipped_sum_of(module, loss, inputs)
    ours = engine.float_sum(inputs, targets, 1e9, owner)
    assert not ours[:12].any()
    weights = 1.0 if owner is None else torch.from_numpy(1.0 / np.bincount(owner)[owner])
    (loss(module(inputs), targets) * weights).sum().backward()  # type: ignore[no-untyped-call]
    theirs = torch.cat([p.grad.flatten() for p in module.parameters()]).double()
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("patients", [None, np.zeros(512, dtype=np.int64)], ids=["rows", "long"])
def test_a_row_whose_numbers_overflow_stays_as_it_is_in_the_callers_memory(
    patients: np.ndarray | None,
) -> None:
    """A whole block is not copied before it is used: what is left out of one step is there in the next."""
    torch.manual_seed(3)
    summed = clipped_sum_of(nn.Sequential(nn.Linear(6, 3)), loss, torch.zeros(64, 6))
    assert isinstance(summed, BookKeeping)
    inputs = torch.randn(512, 6, generator=torch.Generator().manual_seed(5))
    inputs[3] = 3e38
    before = inputs.clone()
    targets = torch.zeros(512, dtype=torch.int64)
    first = summed.float_sum(inputs, targets, 1.0, patients)
    assert torch.equal(inputs, before)
    assert torch.equal(summed.float_sum(inputs, targets, 1.0, patients), first)


def test_noise_is_added_in_the_memory_of_the_sum_draw_by_draw() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 3))
    inputs, targets = torch.randn((20, 200)), torch.randint(0, 3, (20,))
    engine = clipped_sum_of(module, loss, inputs)
    room = torch.full((engine.parameters,), 3.0, dtype=torch.float64)
    noisy = noisy_sum(
        engine, inputs, targets, GRID, most_patients=20, noise_sd=GRID, rng=TestRng(1), room=room
    )
    bare = clipped_sum(engine, inputs, targets, GRID, most_patients=20)
    assert len(bare) > 40_000
    np.testing.assert_array_equal(noisy - bare, TestRng(1).gaussian_integers(GRID, len(bare)))
    np.testing.assert_array_equal(noisy, room.view(torch.int64).numpy())


def test_no_rows_are_a_sum_of_zeros_and_too_many_are_refused() -> None:
    module, inputs, targets = case("gru", 20)
    engine = clipped_sum_of(module, loss, inputs)
    assert not engine.float_sum(inputs[:0], targets[:0], 0.5).any()
    with pytest.raises(ValueError, match="more patients than were declared"):
        clipped_sum(engine, inputs, targets, GRID, most_patients=19)
    with pytest.raises(InvalidParameter, match="raise the clip norm"):
        clipped_sum(engine, inputs, targets, 50, most_patients=20)


@pytest.mark.parametrize("layers", [1, 2])
def test_an_unrolled_gru_gives_torchs_outputs_and_gradients(layers: int) -> None:
    torch.manual_seed(4)
    stock = nn.GRU(8, 16, num_layers=layers, batch_first=True)
    unrolled = UnrolledGRU(copy.deepcopy(stock))
    drawn, start = torch.randn(9, 6, 8), torch.randn(layers, 9, 16)
    found = []
    for module in (stock, unrolled):
        inputs, state = drawn.clone().requires_grad_(), start.clone().requires_grad_()
        outputs, last = module(inputs, state)
        again, _ = module(inputs)  # before the first pass went back
        (outputs.square().sum() + last.sum() + again.sum()).backward()
        gradients = [p.grad for p in module.parameters()]
        found.append([outputs, last, again, inputs.grad, state.grad, *gradients])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_a_watched_gru_writes_where_its_last_step_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    module, inputs, targets = case("two layers of gru", 40)
    engine = clipped_sum_of(module, loss, inputs)
    first = engine.float_sum(inputs, targets, 0.5)
    asked = []
    empty = torch.empty
    monkeypatch.setattr(
        torch, "empty", lambda *size, **of: asked.append(size) or empty(*size, **of)
    )
    second = engine.float_sum(inputs, targets, 0.5)
    assert asked == [(engine.parameters,)]
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["conv1d", "conv2d over few places"])
def test_a_module_trains_as_before_after_an_engine_was_made_of_it(name: str) -> None:
    module, inputs, targets = case(name, 20)
    before = copy.deepcopy(module)
    engine = clipped_sum_of(module, loss, inputs)
    engine.float_sum(inputs, targets, 0.5)
    assert isinstance(engine, BookKeeping)
    assert not any("forward" in layer.__dict__ for layer in module.modules())
    for one in (before, module):
        loss(one(inputs), targets).sum().backward()
    for a, b in zip(before.parameters(), module.parameters(), strict=True):
        assert a.grad is not None
        torch.testing.assert_close(a.grad, b.grad)

"""The steps that ``benchmarks.dp_speed`` times: ours, stock Opacus, its ghost mode, and one without privacy.

Each function builds a model, its rows and whatever the step keeps, and gives the step alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import nn
from torch.nn import functional

from benchmarks.dp_models import network, rows_of, tree
from ledger.experiment.fast_clip import Limits
from ledger.experiment.spec import BinaryTask
from node.data.encode import Examples
from node.training.networks.modules import flat
from node.training.sums.bookkeeping import clipped_sum_of
from node.training.sums.dense import DenseSum
from node.training.sums.noisy_sum import noisy_sum
from privacy.events import GRID
from privacy.noise import SecureRandom

CLIP = 1.0
NOISE = 1.0
RATE = 0.01
AT_ONCE = 2**16
"""Parameters that an update changes at once."""
Step = Callable[[], object]


def ours_tabular(model: str, batch: int) -> tuple[Step, Step]:
    """Our step without and with noise and grid."""
    inputs, targets = rows_of(model, 4 * batch)
    examples = Examples(inputs.numpy(), targets.numpy(), np.arange(4 * batch), 4 * batch)
    engine = DenseSum(
        tree(model), BinaryTask(kind="binary", target="y", above=0), examples,
        Limits(4 * batch, 4 * batch),
    )  # fmt: skip
    taken = np.zeros(4 * batch, dtype=bool)
    taken[np.random.default_rng(1).permutation(4 * batch)[:batch]] = True
    weights = flat(network(model, opacus=False))
    rng = SecureRandom()

    def bare() -> None:
        engine.load(weights)
        np.subtract(weights, RATE / batch * engine.float_sum(taken, CLIP), out=weights)

    def secure() -> None:
        engine.load(weights)
        noisy = engine.clipped_sum(taken, int(CLIP * GRID))
        noisy += rng.gaussian_integers(int(NOISE * CLIP * GRID), len(noisy))
        np.subtract(weights, RATE / batch / GRID * noisy, out=weights)

    return bare, secure


def ours_module(model: str, batch: int) -> tuple[Step, Step]:
    """The same for a module."""
    inputs, targets = rows_of(model, batch)
    module = network(model, opacus=False)
    engine = clipped_sum_of(module, row_loss, inputs)
    rng = SecureRandom()

    room = torch.empty(engine.parameters, dtype=torch.float64)

    def update(total: torch.Tensor, unit: float) -> None:
        at = 0
        with torch.no_grad():
            for parameter in module.parameters():
                for piece in parameter.view(-1).split(AT_ONCE):
                    part = total[at : at + len(piece)].to(torch.float32)
                    piece.sub_(part, alpha=RATE / batch / unit)
                    at += len(piece)

    def bare() -> None:
        update(engine.float_sum(inputs, targets, CLIP, into=room), 1.0)

    def secure() -> None:
        noisy = noisy_sum(
            engine, inputs, targets, int(CLIP * GRID), most_patients=2 * batch,
            noise_sd=int(NOISE * CLIP * GRID), rng=rng, room=room,
        )  # fmt: skip
        update(torch.from_numpy(noisy), GRID)

    return bare, secure


def row_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross entropy of each row."""
    return functional.cross_entropy(outputs, targets, reduction="none")


def criterion(model: str, reduction: str = "mean") -> nn.Module:
    """The loss that torch and Opacus use."""
    if model in ("logistic-regression", "mlp"):
        return nn.BCEWithLogitsLoss(reduction=reduction)
    return nn.CrossEntropyLoss(reduction=reduction)


def plain(model: str, batch: int) -> Step:
    """A step of torch without privacy."""
    inputs, targets = rows_of(model, batch)
    module, loss = network(model, opacus=False), criterion(model)
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
    flatten = model in ("logistic-regression", "mlp")

    def step() -> None:
        optimizer.zero_grad()
        outputs = module(inputs)
        loss(outputs.squeeze(1) if flatten else outputs, targets).backward()
        optimizer.step()

    return step


def opacus(model: str, batch: int) -> Step:
    """A step of stock Opacus: every row's gradient by hooks."""
    inputs, targets = rows_of(model, batch)
    module, loss = GradSampleModule(network(model, opacus=True)), criterion(model)
    optimizer = DPOptimizer(
        torch.optim.SGD(module.parameters(), lr=RATE),
        noise_multiplier=NOISE,
        max_grad_norm=CLIP,
        expected_batch_size=batch,
    )
    flatten = model in ("logistic-regression", "mlp")

    def step() -> None:
        optimizer.zero_grad()
        outputs = module(inputs)
        loss(outputs.squeeze(1) if flatten else outputs, targets).backward()
        optimizer.step()

    return step


def ghost(model: str, batch: int) -> Step | None:
    """A step of Opacus' ghost clipping: two backward passes, norms only."""
    inputs, targets = rows_of(model, batch)
    module = GradSampleModuleFastGradientClipping(
        network(model, opacus=True), max_grad_norm=CLIP, use_ghost_clipping=True
    )
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.SGD(module.parameters(), lr=RATE),
        noise_multiplier=NOISE,
        max_grad_norm=CLIP,
        expected_batch_size=batch,
    )
    loss = DPLossFastGradientClipping(module, optimizer, criterion(model))
    flatten = model in ("logistic-regression", "mlp")

    def step() -> None:
        optimizer.zero_grad()
        outputs = module(inputs)
        loss(outputs.squeeze(1) if flatten else outputs, targets).backward()
        optimizer.step()

    try:
        step()
    except (
        NotImplementedError,
        RuntimeError,
        ValueError,
        AttributeError,
        KeyError,
        IndexError,
    ) as why:
        # Opacus fails in many ways on layers that its ghost mode has no rule for: the column is empty.
        print(f"no ghost clipping for {model}: {type(why).__name__}: {why}", file=sys.stderr)
        return None
    return step


def contestants(model: str, batch: int) -> dict[str, Step]:
    """All steps of a case, by the name of their column."""
    tabular = model in ("logistic-regression", "mlp")
    bare, secure = (ours_tabular if tabular else ours_module)(model, batch)
    steps = {"ours_ms": bare, "ours_secure_ms": secure, "plain_ms": plain(model, batch)}
    steps["opacus_ms"] = opacus(model, batch)
    by_ghost = ghost(model, batch)
    return steps if by_ghost is None else steps | {"opacus_ghost_ms": by_ghost}

"""The private mechanism on rows in memory, made once: what ``benchmarks.self_audit`` runs thousands of times.

The same functions as a round runs (``noisy_gradient_sum``, both engines, ``noisy_histogram``'s noise), without
documents and encoding around them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ledger.entries.operations.datasets import CellCharge
from ledger.entries.operations.plans import Engine, Release
from ledger.experiment.fast_clip import Limits
from ledger.experiment.network_spec import Sequential
from ledger.experiment.spec import BinaryTask
from node.data.encode import Examples
from node.training.networks.modules import build
from node.training.rounds.train import Training, load_weights, noisy_gradient_sum
from node.training.sums.dense import DenseSum
from node.training.sums.exact import loss_of, per_sample
from privacy.events import FULL_BATCH, GRID
from privacy.noise import Randomness
from privacy.selfaudit.checks import Report, Steps
from privacy.selfaudit.residuals import examine

_ROWS, _CLIP, _NOISE_SD = 32, GRID // 2, 4 * GRID
_ROUNDS: tuple[Engine, ...] = (
    "fast",
    "fast",
    "fast",
    "fast",
    "fast",
    "fast",
    "fast",
    "exact",
    "exact",
)

Floats = npt.NDArray[np.float64]


class Mechanism:
    """Sites with rows, engines, models and their clipped sums.

    Args:
        sites: how many hospitals.
        parameters: of the model, logistic regression on one number less.
    """

    def __init__(self, sites: int, parameters: int) -> None:
        draw = np.random.default_rng(5)
        self._parameters = parameters
        self._models = [draw.normal(0, 0.2, parameters) for _ in _ROUNDS]
        self._sites = [_training(number, parameters - 1) for number in range(sites)]
        self._sums = [[_clipped_sum(s.examples, m) for m in self._models] for s in self._sites]
        self.residuals = sites * len(_ROUNDS) * parameters

    def report(self, fresh: Callable[[], Randomness]) -> Report:
        """Play every round at every site once, with fresh noise, and judge what comes out."""
        steps = Steps()
        residuals = np.empty((len(self._sites), len(_ROUNDS), self._parameters))
        for site, training in enumerate(self._sites):
            for number, engine in enumerate(_ROUNDS):
                release = _release(engine)
                load_weights(training, release, self._models[number])
                steps.declared += 1
                steps.drawn += 1
                sent = noisy_gradient_sum(training, release, fresh())
                residuals[site, number] = (sent - self._sums[site][number] * GRID) / _NOISE_SD
        return examine(residuals, steps)


def _training(number: int, width: int) -> Training:
    draw = np.random.default_rng(number)
    rows = Examples(
        draw.uniform(-1, 1, (_ROWS, width)).astype(np.float32),
        draw.integers(0, 2, _ROWS).astype(np.float32),
        np.arange(_ROWS, dtype=np.int64),
        _ROWS,
    )
    task = BinaryTask(kind="binary", target="y", positive=("1",))
    tree = Sequential.model_validate(
        {
            "_target_": "torch.nn.Sequential",
            "layers": [{"_target_": "torch.nn.Linear", "in_features": width, "out_features": 1}],
        }
    )
    fast = DenseSum(tree, task, rows, Limits(patients=2 * _ROWS, rows=2 * _ROWS))
    return Training(per_sample(build(tree)), loss_of(task), rows, _ROWS, fast)


def _clipped_sum(rows: Examples, weights: Floats) -> Floats:
    inputs = np.column_stack([rows.features.astype(np.float64), np.ones(rows.units)])
    error = 1.0 / (1.0 + np.exp(-inputs @ weights)) - rows.targets
    norms = np.abs(error) * np.linalg.norm(inputs, axis=1)
    total: Floats = (error * np.minimum(1.0, _CLIP / GRID / norms)) @ inputs
    return total


def _release(engine: Engine) -> Release:
    return Release(
        purpose="train",
        sensitivity=_CLIP,
        noise_sd=_NOISE_SD,
        sampling=FULL_BATCH,
        steps=1,
        engine=engine,
        charges=(CellCharge(cell="selftest", g=1, r=1),),
    )

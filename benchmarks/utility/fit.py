"""Where the constants of ``ledger.experiment.recipe`` come from: synthetic tasks, no patient's row.

    python -m benchmarks.utility.fit --json
    python -m benchmarks.utility.fit --clip --json
    python -m benchmarks.utility.fit --network --tasks 3 --json

Each task is drawn: inputs as a declared schema gives them (clipped normals within [-1, 1], rare and common 0/1
codes), a sparse logistic truth, a size, a number of hospitals, an epsilon. It is trained with the product's clipped
sums and noise at several walks (``length`` = rounds times rate), and the AUC on fresh rows is compared with the best of
them. A line gives, for each multiple k in ``length = k * signal``, the mean AUC lost over all tasks. The constant is
the least k within one standard error of the best: a longer walk costs rounds.

``--network`` does the same for a hidden layer of 16, where half of the truth is products of pairs of inputs, and
adds the house recipe (20 rounds at a rate of 2).

``--clip`` compares the two clip norms at the same noise of a walk instead (rate halved where the norm is doubled), by
bands of signal: the AUC that the loose one gains. The constant is the start of the least band from which on every
band gains more than its standard error.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from benchmarks.utility.federation import Rows, Setting, assemble, network_scores, train
from ledger.experiment.privacy_spec import TIGHT
from ledger.experiment.recipe import HOUSE, LENGTH_PER_SIGNAL, LOOSE, Recipe, recipe

MULTIPLES = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 10.0)
NETWORK_MULTIPLES = (2.0, 4.0, 10.0, 20.0, 40.0)
NETWORK = {"preset": "mlp", "hidden": [16]}
SIZES = (300, 1000, 4000)
EPSILONS = (1.0, 3.0, 8.0)
BANDS = (0, 8, 16, 32, 64, 100, 150, 250, 400, math.inf)
"""Of the signal."""
TEST_PERCENT = 50
DELTA = 1e-5


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, and print one line for each multiple or band."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.utility.fit")
    parser.add_argument("--tasks", type=int, default=20, help="tasks for each size and epsilon")
    parser.add_argument("--clip", action="store_true", help="fit the signal of the loose clip norm")
    parser.add_argument("--network", action="store_true", help="fit the walk of a network")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.clip and options.network:
        parser.error("give --clip or --network")
    tasks = _tasks(options.tasks, options.network)
    for line in _clip_norms(tasks) if options.clip else _multiples(tasks, options.network):
        print(json.dumps(line) if options.json else "  ".join(f"{a} {b}" for a, b in line.items()))
    return 0


def _tasks(each: int, network: bool = False) -> Iterator[tuple[Rows, float]]:
    """Tasks of every size with every epsilon, always the same ones."""
    generator = np.random.default_rng(20)
    for size in SIZES:
        for epsilon in EPSILONS:
            for number in range(each):
                yield _task(generator, size, network), epsilon
                print(f"n {size}, epsilon {epsilon}: task {number + 1}", file=sys.stderr)


def _multiples(
    tasks: Iterable[tuple[Rows, float]], network: bool
) -> Iterator[dict[str, float | str]]:
    """AUC lost by each multiple; for a network by the house recipe, too."""
    ks = NETWORK_MULTIPLES if network else MULTIPLES
    table = np.array([_lost(rows, epsilon, ks, network) for rows, epsilon in tasks])
    for index, k in enumerate([*ks, "house"][: table.shape[1]]):
        yield {"k": k, "tasks": len(table)} | _mean("auc_lost", table[:, index])


def _clip_norms(tasks: Iterable[tuple[Rows, float]]) -> Iterator[dict[str, float | str]]:
    """AUC gained by the loose clip norm in each band of signal."""
    gains = np.array([_gained(rows, epsilon) for rows, epsilon in tasks])
    for low, high in pairwise(BANDS):
        band = gains[(gains[:, 0] >= low) & (gains[:, 0] < high), 1]
        if len(band) > 1:
            yield {"signal_from": low, "tasks": len(band)} | _mean("auc_gained", band)


def _mean(name: str, found: npt.NDArray[np.float64]) -> dict[str, float | str]:
    error = float(found.std(ddof=1) / math.sqrt(len(found)))
    return {name: round(float(found.mean()), 5), f"{name}_se": round(error, 5)}


def _task(generator: np.random.Generator, size: int, network: bool = False) -> Rows:
    """A logistic truth over numbers and codes; half of the rows are for testing."""
    numbers, codes = int(generator.integers(2, 9)), int(generator.integers(4, 33))
    hospitals = int(generator.integers(3, 13))
    rows = 2 * size
    values = np.clip(generator.normal(0.0, 0.5, (rows, numbers)), -1, 1)
    shares = generator.uniform(0.02, 0.6, codes)
    inputs = np.concatenate([values, generator.random((rows, codes)) < shares], axis=1)
    weights = generator.normal(0.0, 1.0, numbers + codes)
    weights *= generator.random(numbers + codes) < 0.5
    centred = inputs - inputs.mean(axis=0)
    logits = centred @ weights
    if network:
        pairs = generator.integers(0, numbers + codes, (2, numbers + codes))
        products = centred[:, pairs[0]] * centred[:, pairs[1]]
        bent = (products - products.mean(axis=0)) @ generator.normal(0.0, 1.0, numbers + codes)
        logits += bent * (float(logits.std()) / max(float(bent.std()), 1e-9))
    logits *= generator.uniform(1.0, 2.0) / max(float(logits.std()), 1e-9)
    logits += generator.normal(0.0, 0.7)
    targets = generator.random(rows) < 1 / (1 + np.exp(-logits))
    sites = generator.integers(0, hospitals, rows)
    columns = [
        {"name": f"x{i}", "type": "number", "low": -1, "high": 1} for i in range(inputs.shape[1])
    ]
    target = {"name": "y", "type": "category", "values": ["0", "1"]}
    names = tuple(str(column["name"]) for column in columns)
    return Rows(
        features=inputs.astype(np.float32),
        targets=targets.astype(np.float32),
        units=np.arange(rows),
        sites=sites,
        names=tuple(f"site-{index}" for index in range(hospitals)),
        declared=tuple(max(2, int(n)) for n in np.bincount(sites, minlength=hospitals)),
        test_percent=TEST_PERCENT,
        schema={"consilium": 1, "columns": [*columns, target]},
        spec={
            "consilium": 1,
            "name": "fit",
            "title": "fit",
            "purpose": "To fit the recipe.",
            "lawful_basis": "Made-up rows",
            "until": "2099-12-31",
            "task": {"kind": "binary", "target": "y", "positive": ["1"]},
            "features": names,
            "model": NETWORK if network else {"preset": "logistic-regression"},
        },
    )


def _lost(rows: Rows, epsilon: float, ks: Sequence[float], network: bool) -> list[float]:
    """AUC below the best, for each multiple, and for the house recipe of a network."""
    strength = assemble(rows, Setting(epsilon, DELTA)).signal
    # The rounds, rate and clip norm that the product would choose were its constant k.
    if network:
        walks = [recipe(strength, clip=TIGHT, per_signal=k) for k in ks] + [HOUSE]
    else:
        walks = [recipe(strength * k / LENGTH_PER_SIGNAL) for k in ks]
    aucs = [_auc(rows, epsilon, chosen) for chosen in walks]
    best = max(aucs)
    return [best - auc for auc in aucs]


def _gained(rows: Rows, epsilon: float) -> tuple[float, float]:
    """The signal, and the AUC that the loose clip norm has above the tight one."""
    strength = assemble(rows, Setting(epsilon, DELTA)).signal
    tight, loose = (_auc(rows, epsilon, recipe(strength, clip=clip)) for clip in (TIGHT, LOOSE))
    return strength, loose - tight


def _auc(rows: Rows, epsilon: float, chosen: Recipe) -> float:
    """On the held-out half; the mean of two draws of the noise."""
    held_out = np.zeros(len(rows.sites), dtype=bool)
    held_out[::2] = True
    federation = assemble(rows, Setting(epsilon, DELTA, recipe=chosen))
    found = [
        roc_auc_score(
            rows.targets[held_out],
            network_scores(rows, federation, train(rows, federation, held_out, True))[held_out],
        )
        for _ in range(2)
    ]
    return float(np.mean(found))


if __name__ == "__main__":
    raise SystemExit(main())

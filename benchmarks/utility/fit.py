"""Where the constants of ``ledger.experiment.recipe`` come from: synthetic tasks, no patient's row.

    python -m benchmarks.utility.fit --json

Each task is drawn: inputs as a declared schema gives them (clipped normals within [-1, 1], rare and common 0/1
codes), a sparse logistic truth, a size, a number of hospitals, an epsilon. It is trained with the product's clipped
sums and noise at several walks (``length`` = rounds times rate), and the AUC on fresh rows is compared with the best of
them. A line gives, for each multiple k in ``length = k * signal``, the mean AUC lost over all tasks. The constant is
the least k within one standard error of the best: a longer walk costs rounds.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.utility.federation import Rows, Setting, assemble, scores, train
from ledger.experiment.recipe import LENGTH_PER_SIGNAL, recipe

MULTIPLES = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 10.0)
SIZES = (300, 1000, 4000)
EPSILONS = (1.0, 3.0, 8.0)
TEST_PERCENT = 50
DELTA = 1e-5


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, and print one line for each multiple."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.utility.fit")
    parser.add_argument("--tasks", type=int, default=20, help="tasks for each size and epsilon")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    generator = np.random.default_rng(20)
    lost: list[list[float]] = []
    for size in SIZES:
        for epsilon in EPSILONS:
            for number in range(options.tasks):
                lost.append(_lost(_task(generator, size), epsilon))
                print(f"n {size}, epsilon {epsilon}: task {number + 1}", file=sys.stderr)
    table = np.array(lost)
    for index, k in enumerate(MULTIPLES):
        line = {
            "k": k,
            "tasks": len(table),
            "auc_lost": round(float(table[:, index].mean()), 5),
            "auc_lost_se": round(float(table[:, index].std(ddof=1) / math.sqrt(len(table))), 5),
        }
        print(json.dumps(line) if options.json else "  ".join(f"{a} {b}" for a, b in line.items()))
    return 0


def _task(generator: np.random.Generator, size: int) -> Rows:
    """A logistic truth over numbers and codes; half of the rows are for testing."""
    numbers, codes = int(generator.integers(2, 9)), int(generator.integers(4, 33))
    hospitals = int(generator.integers(3, 13))
    rows = 2 * size
    values = np.clip(generator.normal(0.0, 0.5, (rows, numbers)), -1, 1)
    shares = generator.uniform(0.02, 0.6, codes)
    inputs = np.concatenate([values, generator.random((rows, codes)) < shares], axis=1)
    weights = generator.normal(0.0, 1.0, numbers + codes)
    weights *= generator.random(numbers + codes) < 0.5
    logits = (inputs - inputs.mean(axis=0)) @ weights
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
            "model": {"preset": "logistic-regression"},
        },
    )


def _lost(rows: Rows, epsilon: float) -> list[float]:
    """AUC below the best of the multiples, for each of them; two draws of the noise each."""
    held_out = np.zeros(len(rows.sites), dtype=bool)
    held_out[::2] = True
    first = assemble(rows, Setting(epsilon, DELTA))
    aucs = []
    for k in MULTIPLES:
        # The rounds and rate that the product would choose were its constant k.
        chosen = recipe(first.signal * k / LENGTH_PER_SIGNAL)
        federation = assemble(rows, Setting(epsilon, DELTA, recipe=chosen))
        found = [
            roc_auc_score(
                rows.targets[held_out],
                scores(rows, train(rows, federation, held_out, True))[held_out],
            )
            for _ in range(2)
        ]
        aucs.append(float(np.mean(found)))
    best = max(aucs)
    return [best - auc for auc in aucs]


if __name__ == "__main__":
    raise SystemExit(main())

"""What accounts for each patient bring: more rounds, and what model, at the same promise to every patient.

    python -m benchmarks.individual --data DIR --runs 20 --json

One JSON line for each setting: epsilon, clip norm, the rounds at the clip norm that the noise is for
(``full_rounds``), the rounds that ran, the mean AUC over random splits with its standard error, and what share
of the patients still took part in the last round at full length, not clipped lower by what they had left. ``accounts: false`` is the usual way: the rounds are the full
rounds, everybody takes part in each. ``rounds_half`` is the round after which half of the patients have retired,
as a multiple of the full rounds: how many more rounds the promise buys for half of them; null where half never retire.

Cases: ``heart`` (four hospitals, with ``--data``: a folder with UCI's ``processed.*.data``) and ``synthetic``
(made-up rows, three hospitals). Every hospital adds its own noise, drawn by the operating system's generator; sums,
clips and charges are the node's own code; network, ledger and metrics are left out. The length of the walk, rounds
times rate, is the same in all settings.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from benchmarks.utility.cases import heart, random_heart
from ledger.experiment.network_spec import LogisticRegression, expand
from ledger.experiment.spec import BinaryTask
from node.data.encode import Examples
from node.training.networks.modules import build, load_flat
from node.training.rounds.individual import individual_sum
from node.training.rounds.train import Training, start_torch
from node.training.sums.exact import block_rows, loss_of, per_sample
from privacy.calibrate import plan_noise
from privacy.events import FULL_BATCH, GRID
from privacy.filters import limit_for
from privacy.individual import MOST_SPEND, allowances, charges
from privacy.noise import SecureRandom

DELTA = 1e-5
WALK = 40.0
"""Rounds times learning rate of every setting: the house recipe's 20 rounds at rate 2."""
LATE = 0.5
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Setting:
    """One way to spend a promise.

    Attributes:
        accounts: whether each patient is charged for the own gradient alone.
    """

    epsilon: float
    clip_norm: float
    full_rounds: int
    rounds: int
    accounts: bool


SETTINGS = tuple(
    setting
    for epsilon in (1.0, 3.0)
    for clip in (0.5, 2.0)
    for setting in (
        Setting(epsilon, clip, 20, 20, False),
        Setting(epsilon, clip, 20, 40, True),
        Setting(epsilon, clip, 20, 80, True),
        Setting(epsilon, clip, 10, 20, True),
        Setting(epsilon, clip, 5, 20, True),
        Setting(epsilon, clip, 5, 80, True),
    )
)


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of several hospitals, one row a patient; ``held_out`` says which are for testing."""

    features: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float32]
    sites: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Played:
    """One run.

    Attributes:
        auc: on the held-out rows of all hospitals.
        took_part: for each round, the share of patients who were not clipped lower by what they had left.
    """

    auc: float
    took_part: tuple[float, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all settings of the cases."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.individual",
        description=(__doc__ or "").split("\n", maxsplit=1)[0],
    )
    parser.add_argument("--data", type=Path, help="folder with UCI's processed.*.data")
    parser.add_argument(
        "--runs", type=int, default=20, help="random splits, one draw of noise each"
    )
    parser.add_argument("--json", action="store_true", help="print JSON lines alone")
    options = parser.parse_args(arguments)
    if options.runs < 2:
        parser.error("--runs must be at least 2")
    start_torch()
    cases = {"synthetic": [synthetic(number) for number in range(options.runs)]}
    if options.data is not None:
        cases["heart"] = list(_heart(options.data, options.runs))
    for case, tables in cases.items():
        for setting in SETTINGS:
            line = {"case": case, **measure(tables, setting)}
            if not options.json:
                print("  ".join(f"{name} {value}" for name, value in line.items()), flush=True)
            else:
                print(json.dumps(line), flush=True)
    return 0


def measure(tables: Sequence[Table], setting: Setting) -> dict[str, object]:
    """Run a setting on every split."""
    played = [play(table, setting) for table in tables]
    aucs = np.array([one.auc for one in played])
    part = np.mean([one.took_part for one in played], axis=0)
    below = np.flatnonzero(part < 0.5)
    half = round(float(below[0]) / setting.full_rounds, 2) if len(below) else None
    return {
        "epsilon": setting.epsilon,
        "delta": DELTA,
        "clip_norm": setting.clip_norm,
        "accounts": setting.accounts,
        "full_rounds": setting.full_rounds,
        "rounds": setting.rounds,
        "learning_rate": WALK / setting.rounds,
        "runs": len(played),
        "auc": round(float(aucs.mean()), 4),
        "auc_se": round(float(aucs.std(ddof=1)) / math.sqrt(len(aucs)), 4),
        "took_part_last": round(float(part[-1]), 3),
        "rounds_half": half,
    }


def play(table: Table, setting: Setting) -> Played:
    """Train over all hospitals, each with its own noise and accounts, and measure."""
    sensitivity = int(setting.clip_norm * GRID)
    noise = plan_noise(limit_for(setting.epsilon, DELTA), (), sensitivity, setting.full_rounds)
    budget = limit_for(setting.epsilon, DELTA).g_max
    width = table.features.shape[1]
    halves = [_half(table, site, width) for site in np.unique(table.sites)]
    left = [
        np.full(half.examples.units, budget if setting.accounts else MOST_SPEND, dtype=np.int64)
        for half in halves
    ]
    weights, late, took_part = np.zeros(width + 1), np.zeros(width + 1), []
    patients = sum(half.examples.units for half in halves)
    first_late = setting.rounds - math.ceil(LATE * setting.rounds)
    rng = SecureRandom()
    for number in range(setting.rounds):
        total, active = np.zeros(width + 1), 0
        for index, half in enumerate(halves):
            load_flat(half.engine, weights)
            most = allowances(left[index], noise_sd=noise, sensitivity=sensitivity)
            block = block_rows(half.declared, FULL_BATCH, width + 1)
            summed, squares = individual_sum(half, half.examples, most, block=block)
            active += int((most == sensitivity).sum() if setting.accounts else len(most))
            if setting.accounts:
                left[index] -= charges(squares, noise_sd=noise, sensitivity=sensitivity)
            total += (summed + rng.gaussian_integers(noise, width + 1)).astype(np.float64) / GRID
        weights = weights - WALK / setting.rounds * total / patients
        took_part.append(active / patients)
        if number >= first_late:
            late += weights
    rng.close()
    final = late / (setting.rounds - first_late)
    tested = table.held_out
    scores = table.features[tested] @ final[:width] + final[width]
    return Played(float(roc_auc_score(table.targets[tested], scores)), tuple(took_part))


def synthetic(seed: int, patients: int = 1200, width: int = 12) -> Table:
    """A logistic truth over inputs within [-1, 1], three hospitals, half of the rows for testing."""
    draw = np.random.default_rng(seed)
    features = np.clip(draw.normal(0, 0.5, (patients, width)), -1, 1).astype(np.float32)
    logits = features @ draw.normal(0, 1.5, width)
    targets = (draw.random(patients) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    sites = draw.integers(0, 3, patients)
    return Table(features, targets, sites, np.arange(patients) % 2 == 0)


def _heart(folder: Path, runs: int) -> Iterator[Table]:
    rows = heart(folder)
    for number in range(runs):
        held_out = random_heart(rows, number)
        yield Table(rows.features, rows.targets, rows.sites, held_out)


def _half(table: Table, site: int, width: int) -> Training:
    here = (table.sites == site) & ~table.held_out
    units = int(here.sum())
    examples = Examples(table.features[here], table.targets[here], np.arange(units), units)
    engine = per_sample(build(expand(LogisticRegression(preset="logistic-regression"), width, 1)))
    task = BinaryTask(kind="binary", target="y", positive=("1",))
    return Training(engine, loss_of(task), examples, units)


if __name__ == "__main__":
    raise SystemExit(main())

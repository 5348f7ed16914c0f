"""T3: many canaries in one run, each in it by a coin of its own (Steinke et al. 2023, arXiv:2305.08846).

The mechanism is a site's: clip norm, noise, sampling, engine and number of steps are those of its plan. The
model is logistic regression over a made-up schema of eight code columns, wide enough that each canary has eight
coordinates to itself; it starts at zero each round, where every gradient is clipped. The score of a canary is
the sum of the released vectors along its own coordinates.

A smoke alarm only: one run bounds epsilon loosely, so it finds noise that is missing or far too small, and its silence
says little. Rows are made up here; there is no way to give any.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ledger.experiment.schema import Schema
from ledger.experiment.spec import ExperimentSpec
from ledger.formats.value import replace
from node.data.encode import Examples, examples
from node.data.intake import Table
from node.training.attack.canary import Progress, steps_a_round, training_release
from node.training.attack.mechanism import AuditedSite, Floats, Noise
from privacy.selfaudit.checks import Steps

MOST_CANARIES: Final = 4000
_COLUMNS: Final = 8
_NAME: Final = "one-run"


def run_once(
    site: AuditedSite,
    rounds: int,
    canaries: int,
    noise: Noise,
    progress: Progress = lambda _, __: None,
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Play one run.

    Args:
        site: whose mechanism.
        rounds: training rounds of the experiment; each counts the steps of one.
        canaries: how many, 8 .. ``MOST_CANARIES``.
        noise: opens the generators that a node would use.
        progress: told after each step.

    Returns:
        The canaries' scores, float64 [m], and whether each was in the run, [m].
    """
    wide = _wide_site(site, canaries)
    everybody = _everybody(wide, canaries)
    with_coin = noise(f"{_NAME}/coins")
    coins = [with_coin.below(2) for _ in range(canaries)]
    with_coin.close()
    taken = np.array(coins, dtype=bool)
    size = _COLUMNS * canaries + 1
    played = wide.prepare(everybody.sample(taken), np.zeros(size), noise, Steps())
    total = np.zeros(size)
    count = rounds * steps_a_round(site.spec)
    for step in range(count):
        total += played.train()
        progress(step + 1, count)
    along = total[:-1].reshape(_COLUMNS, canaries).sum(axis=0)
    # At zero the error is 1/2 - y, and the gradient the error times the inputs.
    return along * np.where(everybody.targets > 0, -1.0, 1.0), taken


def _wide_site(site: AuditedSite, canaries: int) -> AuditedSite:
    codes = [str(number) for number in range(canaries)]
    schema = Schema.model_validate(
        {
            "consilium": 1,
            "dataset": site.plan.dataset,
            "declared_rows": canaries,
            "test_percent": 0,
            "columns": [
                *({"name": f"c{i}", "type": "category", "values": codes} for i in range(_COLUMNS)),
                {"name": "y", "type": "category", "values": ["0", "1"]},
            ],
        }
    )
    spec = ExperimentSpec.model_validate(
        {
            "consilium": 1,
            "name": _NAME,
            "title": "One run with many canaries",
            "purpose": "A smoke alarm over made-up rows.",
            "lawful_basis": "No personal data",
            "until": "2100-01-01",
            "task": {"kind": "binary", "target": "y", "positive": ["1"]},
            "features": [f"c{i}" for i in range(_COLUMNS)],
            "model": {"preset": "logistic-regression"},
            "federation": {
                "datasets": [site.plan.dataset],
                "strategy": {"name": "fedsgd", "learning_rate": "1"},
            },
            "privacy": {"epsilon": 1},
        }
    )
    plan = replace(
        site.plan,
        releases=(training_release(site),),
        divisor=canaries,
        weight=1,
        update_bound=2**50,
    )
    return AuditedSite(spec, schema, plan)


def _everybody(wide: AuditedSite, canaries: int) -> Examples:
    """Canary j has code j in every column, and every other one is positive."""
    columns: dict[str, npt.NDArray[np.int32]] = {
        f"c{i}": np.arange(canaries, dtype=np.int32) for i in range(_COLUMNS)
    }
    columns["y"] = (np.arange(canaries) % 2).astype(np.int32)
    table = Table(dataset=wide.plan.dataset, rows=canaries, columns=columns, patients=None)
    return examples(table, wide.schema, wide.spec, np.ones(canaries, dtype=bool))

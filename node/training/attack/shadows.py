"""T4: twins of a released model, each trained on its own half of rows that are nobody's.

A shadow federation is what an experiment is: the same sites, releases, noise, rounds, server's step and
final model. Its rows are made up from the public schemas, or a public file's; every unit is in each shadow by a
coin of its own, and signals say how sure each final model is of each unit's target. What an attacker makes of them
is ``privacy.selfaudit.membership`` and ``.population``.

**No model here was trained on a hospital's patients.** How well an attack does on real members is
itself a statistic of them, so it would have to be charged, or stay inside. Twins answer the same question about the
mechanism and cost nobody anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit

from ledger.experiment.average import ExactSum, final_model, server_step
from ledger.experiment.plan.shape import network_of
from ledger.experiment.spec import ExperimentSpec
from node.data.encode import Examples, examples
from node.data.intake import read_table
from node.training.attack.canary import Progress
from node.training.attack.mechanism import AuditedSite, Floats, MadeUpRows, Noise
from node.training.networks.modules import build, load_flat
from privacy.selfaudit.checks import Steps

MOST_UNITS: Final = 400
"""Made-up units of a site, half of them in each shadow; more say nothing new about one of them."""
_APART: Final = 5
"""One unit of so many is of the population."""
_SURE: Final = 30.0
"""Signals are cut here: a model surer than e^-30 is sure."""


@dataclass(frozen=True)
class PublicTwins:
    """A public file with the columns of the experiment's schema; whoever names it says that it is public."""

    path: Path

    def pools(self, sites: Sequence[AuditedSite]) -> list[Examples]:
        """Divide the file's units among the sites, each to one, by a written-down generator.

        Raises:
            DatasetError: the file does not fit the schema.
        """
        first = sites[0]
        table = read_table(self.path, first.schema)
        everybody = examples(table, first.schema, first.spec, np.ones(table.rows, dtype=bool))
        where = np.random.default_rng(0).integers(0, len(sites), everybody.units)
        return [everybody.sample(where == number) for number in range(len(sites))]


def made_up_pools(sites: Sequence[AuditedSite]) -> list[Examples]:
    """Made-up units for each site: twice as many as it declares for training, so that half is as many."""
    return [
        MadeUpRows(s.schema, min(MOST_UNITS, 2 * s.plan.divisor), seed=number).examples(s.spec)
        for number, s in enumerate(sites)
    ]


def population(pools: Sequence[Examples]) -> npt.NDArray[np.bool_]:
    """Units that no shadow is trained with, a part of each site's by a written-down generator; [units]."""
    drawn = np.random.default_rng(1)
    return np.concatenate([drawn.permuted(np.arange(p.units) % _APART == 0) for p in pools])


def likelihoods(spec: ExperimentSpec, signals: Floats) -> Floats:
    """How likely each unit's target is to a model, from ``train_shadows``' signals; above 0.

    For a regression, up to a factor, under a normal law of variance 1/2 on the range mapped to [-1, 1].
    """
    return np.asarray(np.exp(signals) if spec.task.kind == "regression" else expit(signals))


def train_shadows(
    sites: Sequence[AuditedSite],
    pools: Sequence[Examples],
    start: Floats,
    rounds: int,
    models: int,
    noise: Noise,
    progress: Progress = lambda _, __: None,
    apart: npt.NDArray[np.bool_] | None = None,
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Train ``models`` shadows and ask each about every unit.

    Args:
        sites: of the experiment, each with the noise that its node adds itself.
        pools: units of each site, in the order of ``sites``.
        start: the experiment's initial model, as round 1 has it, float64.
        rounds: training rounds.
        models: how many shadows, >= 8.
        noise: opens the generators that a node would use.
        progress: told after each shadow.
        apart: units that are in no shadow, as ``population`` chose them; None for none.

    Returns:
        Signals, float64 [models, units], and membership, bool [models, units]; units in the order of pools.
    """
    units = sum(pool.units for pool in pools)
    coins = np.random.default_rng().integers(0, 2, (models, units)).astype(bool)
    if apart is not None:
        coins[:, apart] = False
    signals = np.zeros((models, units))
    for number in range(models):
        released = _federate(sites, pools, coins[number], start, rounds, noise)
        asked = [_signals(s, pool, released) for s, pool in zip(sites, pools, strict=True)]
        signals[number] = np.concatenate(asked)
        progress(number + 1, models)
    return signals, coins


def _federate(
    sites: Sequence[AuditedSite],
    pools: Sequence[Examples],
    members: npt.NDArray[np.bool_],
    start: Floats,
    rounds: int,
    noise: Noise,
) -> Floats:
    """Train one federation as the coordinator and its nodes do; its final model."""
    played, at = [], 0
    for site, pool in zip(sites, pools, strict=True):
        chosen = pool.sample(members[at : at + pool.units])
        played.append(site.prepare(chosen, start, noise, Steps()))
        at += pool.units
    spec, divisor = sites[0].spec, sum(site.plan.divisor for site in sites)
    model, after = start, []
    for _ in range(rounds):
        total = ExactSum(len(model))
        for one in played:
            one.move_to(model)
            total.add(one.train())
        model = server_step(spec, model, total.total(), divisor)
        after.append(model)
    return final_model(spec, after)


def _signals(site: AuditedSite, pool: Examples, model: Floats) -> Floats:
    """How sure a model is of each unit's target: the mean over its rows of log odds, or of minus the square."""
    network = build(network_of(site.spec, site.schema))
    load_flat(network, model)
    with torch.no_grad():
        outputs = network(torch.from_numpy(pool.features)).numpy().astype(np.float64)
    sure = np.clip(np.nan_to_num(_sureness(site.spec, outputs, pool)), -_SURE, _SURE)
    counts = np.bincount(pool.patients, minlength=pool.units)
    means: Floats = np.bincount(pool.patients, weights=sure, minlength=pool.units) / counts
    return means


def _sureness(spec: ExperimentSpec, outputs: Floats, pool: Examples) -> Floats:
    if spec.task.kind == "binary":
        sign = np.where(pool.targets > 0, 1.0, -1.0)
        return np.asarray(outputs[:, 0] * sign)
    if spec.task.kind == "regression":
        return np.asarray(-((outputs[:, 0] - pool.targets) ** 2))
    index = pool.targets.astype(np.int64)
    own = outputs[np.arange(len(index)), index]
    rest = outputs.copy()
    rest[np.arange(len(index)), index] = -np.inf
    top = rest.max(axis=1)
    return np.asarray(own - top - np.log(np.exp(rest - top[:, None]).sum(axis=1)))

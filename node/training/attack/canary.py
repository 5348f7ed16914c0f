"""T2: the private mechanism with and without one person, many times: does it hide as much as is charged.

White box: the auditor is the worst coordinator. It chooses the model of every round, so that the canary (a
made-up row at the corner of its columns' bounds) has a gradient of the full clip norm in each, knows every
other row, and sees every vector that leaves. From each vector it takes away what the others' rows make without noise and
measures what is left along the canary's own contribution; the sum over rounds is the score of a run. For one
Gaussian release a round no statistic tells the two kinds of run apart better (Neyman-Pearson), and the scores' spread
is the noise's alone (``privacy.selfaudit.spread``).

Promise: rows are made up (``MadeUpRows``); the vectors come from the code that trains. Not promised: that no
other canary would do better against local steps or sampling, where this statistic is good and not the best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ledger.entries.operations.plans import Release
from ledger.experiment.adaptive_clip import extra_values, first_norm
from ledger.experiment.schema import CategoryColumn, NumberColumn, Schema
from ledger.experiment.spec import ExperimentSpec, FedAvg
from node.data.encode import Examples, examples
from node.data.intake import Array, Table
from node.errors import JobRefused
from node.training.attack.mechanism import AuditedSite, Floats, MadeUpRows, Noise, Silence
from node.training.rounds.one_round import PreparedRound
from privacy.events import FULL_BATCH
from privacy.selfaudit.checks import Steps

BACKGROUND_ROWS: Final = 16
_CORNERS: Final = 32
_SCALES: Final = (0.3, 1.0, 3.0, 10.0)
_DRAWS: Final = 3
_ENOUGH: Final = 0.995
"""Of the clip norm; the fast engine clips a little lower on purpose."""

Progress = Callable[[int, int], None]
"""Told how many of how many runs are done."""


@dataclass(frozen=True)
class CanaryRuns:
    """What the runs gave.

    Attributes:
        inside: score of each run with the canary, float64 [runs]; its expectation is 1 for a full batch.
        outside: of each run without it; its expectation is 0.
        share: least part of the clip norm that the canary has in a round.
        steps: as declared and as drawn, over all runs of both kinds.
        planned: steps that the plan charges for so many runs.
        only_noise: whether nothing but noise varies between runs of a kind: one full batch a round.
    """

    inside: Floats
    outside: Floats
    share: float
    steps: Steps
    planned: int
    only_noise: bool


def run_canaries(
    site: AuditedSite, rounds: int, runs: int, noise: Noise, progress: Progress = lambda _, __: None
) -> CanaryRuns:
    """Play an experiment's training ``runs`` times with a canary, and as often without it.

    Args:
        site: whose mechanism.
        rounds: training rounds of one run.
        runs: pairs of runs.
        noise: opens the generators that a node would use.
        progress: told after each pair.

    Raises:
        JobRefused: spec, schema and plan do not fit together.
    """
    people = MadeUpRows(site.schema, BACKGROUND_ROWS, seed=0).examples(site.spec)
    canary = _corner(site.schema, site.spec)
    steps = Steps()
    size = sum(math.prod(shape) for _, shape in site.shapes)
    parameters = size - extra_values(site.spec)
    start = np.full(size, first_norm(site.spec))
    start[:parameters] = 0.0
    silent = [
        site.prepare(rows, start, lambda _: Silence(), Steps())
        for rows in (people, _joined(people, canary))
    ]
    loud = [site.prepare(rows, start, noise, steps) for rows in (people, _joined(people, canary))]
    full = full_norm(site)
    tour = [_hardest_model(silent, start, parameters, number, full) for number in range(rounds)]
    total = sum(float(own @ own) for _, _, own in tour)
    scores = np.zeros((2, runs))
    for run in range(runs):
        for model, others, own in tour:
            for kind, round_ in enumerate(loud):
                round_.move_to(model)
                scores[kind, run] += float((round_.train() - others) @ own) / total
        progress(run + 1, runs)
    return CanaryRuns(
        inside=scores[1],
        outside=scores[0],
        share=min(float(np.linalg.norm(own)) for _, _, own in tour) / full,
        steps=steps,
        planned=2 * runs * rounds * steps_a_round(site.spec),
        only_noise=training_release(site).sampling == FULL_BATCH
        and not isinstance(site.spec.federation.strategy, FedAvg),
    )


def training_release(site: AuditedSite) -> Release:
    """The release that training makes."""
    for release in site.plan.releases:
        if release.purpose == "train":
            return release
    raise JobRefused(f"the plan trains nothing at {site.plan.dataset}")


def steps_a_round(spec: ExperimentSpec) -> int:
    """Noisy steps of one training round."""
    strategy = spec.federation.strategy
    return strategy.local_steps if isinstance(strategy, FedAvg) else 1


def full_norm(site: AuditedSite) -> float:
    """The most that one person moves a vector, grid units, when every step takes the person."""
    release = training_release(site)
    strategy = site.spec.federation.strategy
    if not isinstance(strategy, FedAvg):
        return float(release.sensitivity)
    expected = site.plan.divisor * release.sampling / FULL_BATCH
    moved = strategy.local_steps * float(strategy.learning_rate) / expected
    return release.sensitivity * moved * site.plan.weight


def _hardest_model(
    silent: Sequence[PreparedRound], start: Floats, parameters: int, number: int, full: float
) -> tuple[Floats, Floats, Floats]:
    """A model at which the canary's gradient is long; what the others make of it; what the canary adds."""
    best: tuple[Floats, Floats, Floats] | None = None
    draw = np.random.default_rng(1000 + number)
    for _ in range(_DRAWS):
        direction = draw.normal(0.0, 1.0, parameters)
        for towards in (sign * scale * direction for scale in _SCALES for sign in (1.0, -1.0)):
            weights = start.copy()
            weights[:parameters] = towards
            for round_ in silent:
                round_.move_to(weights)
            others, together = (round_.train().astype(np.float64) for round_ in silent)
            own = together - others
            if best is None or own @ own > best[2] @ best[2]:
                best = weights, others, own
            if np.linalg.norm(best[2]) >= _ENOUGH * full:
                return best
    assert best is not None
    return best


def _corner(schema: Schema, spec: ExperimentSpec) -> Examples:
    """One row at the ends of its columns' bounds: as long as a row can be."""
    draw = np.random.default_rng(7)
    columns: dict[str, Array] = {}
    for column in schema.columns:
        if isinstance(column, NumberColumn):
            ends = (float(column.low), float(column.high))
            columns[column.name] = draw.choice(ends, _CORNERS)
        elif isinstance(column, CategoryColumn):
            coded = draw.integers(0, len(column.values), _CORNERS)
            columns[column.name] = coded.astype(np.int32)
    table = Table(dataset=schema.dataset, rows=_CORNERS, columns=columns, patients=None)
    found = examples(table, schema, spec, np.ones(_CORNERS, dtype=bool))
    if not found.units:
        raise JobRefused(f"no made-up row of {schema.dataset} has a target that the task knows")
    longest = np.zeros(found.units, dtype=bool)
    longest[int(np.argmax((found.features**2).sum(axis=1)))] = True
    return found.sample(longest)


def _joined(people: Examples, canary: Examples) -> Examples:
    return Examples(
        np.concatenate([people.features, canary.features]),
        np.concatenate([people.targets, canary.targets]),
        np.concatenate([people.patients, canary.patients + people.units]),
        people.units + canary.units,
    )

"""What do attacks on the private mechanism see, and how often do they cry wolf? ``python -m benchmarks.attack``.

Canary runs of the training code (``consilium audit attack --kind canary``) over a mechanism that is right, one with
half or seven tenths of its noise, and ones that make more steps than are charged; the smoke alarm over a mechanism that
is right and ones with a tenth of the noise and none to speak of; who trained twins of the model, by LiRA and by RMIA
(``attack_twins``). All rows are made up. One audit is ``--runs`` pairs
of runs; each is repeated ``--audits`` times.

The plan is an experiment of epsilon ``--epsilon`` on one site, two rounds, logistic regression of six parameters. Power
depends on the noise of a step and on steps in all: a plan of the same epsilon over more rounds takes as many runs and
more time. A part of the audits may be judged by false alarms alone (``--honest``), which the bound says are 1 in 10,000.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.attack_twins import twins
from consilium.actions.audit.attack_target import Target, target_of_experiment
from consilium.experiment import Experiment
from ledger.experiment.schema import Schema
from node.training.attack.canary import run_canaries
from node.training.attack.mechanism import AuditedSite
from node.training.attack.one_run import run_once
from node.training.rounds.train import start_torch
from privacy.noise import Randomness, SecureRandom
from privacy.selfaudit.attacks import ALPHA, ONE_RUN_DELTA, judge_canaries, judge_one_run

CANARIES = 1000


@dataclass(frozen=True)
class Fault:
    """A mechanism that is wrong.

    Attributes:
        name: in words.
        noise: part of the planned deviation that is drawn.
        rounds: rounds that are run, over those that are charged.
    """

    name: str
    noise: float = 1.0
    rounds: float = 1.0


HONEST = Fault("none")
CANARY_FAULTS = (
    Fault("noise x0.5", noise=0.5),
    Fault("noise x0.7", noise=0.7),
    Fault("noise x0.9", noise=0.9),
    Fault("twice the rounds that are charged", rounds=2.0),
)
TWIN_FAULTS = (HONEST, Fault("noise x0.01", noise=0.01))
SMOKE_FAULTS = (Fault("noise x0.1", noise=0.1), Fault("noise x0.01", noise=0.01))


def main() -> int:
    """Run it; 0 if no honest audit raised an alarm."""
    arguments = argparse.ArgumentParser(prog="benchmarks.attack", description=__doc__)
    arguments.add_argument("--epsilon", type=int, default=1)
    arguments.add_argument("--runs", type=int, default=2000, help="pairs of runs of an audit")
    arguments.add_argument("--audits", type=int, default=5, help="audits of each fault")
    arguments.add_argument("--honest", type=int, default=10, help="audits without a fault")
    arguments.add_argument("--shadows", type=int, default=64, help="twins of a model; 0 for none")
    arguments.add_argument("--references", type=int, default=4, help="a target's few shadows")
    arguments.add_argument("--json", action="store_true")
    chosen = arguments.parse_args()
    start_torch()
    target = made_up_target(chosen.epsilon)
    found: dict[str, Any] = {
        "epsilon": chosen.epsilon,
        "mu_proven": target.proven(target.plan.sites[0]).mu,
        "pairs_of_runs": chosen.runs,
        "false_alarm_rate_stated": ALPHA,
        "canary": [
            audits(target, fault, chosen.runs, chosen.honest if fault is HONEST else chosen.audits)
            for fault in (HONEST, *CANARY_FAULTS)
        ],
        "one_run": [
            smoke(target, fault, chosen.honest if fault is HONEST else chosen.audits)
            for fault in (HONEST, *SMOKE_FAULTS)
        ],
        "twins": [
            one
            for fault in TWIN_FAULTS * bool(chosen.shadows)
            for one in twins(target, fault.name, _noise(fault), chosen.shadows, chosen.references)
        ],
    }
    if chosen.json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        for part in ("canary", "one_run"):
            for one in found[part]:
                sys.stdout.write(
                    f"{part}: {one['fault']}: {one['alarms']} of {one['audits']}; {one}\n"
                )
        for one in found["twins"]:
            sys.stdout.write(f"{one['attack']}, {one['references']} references: {one}\n")
    wrong = any(found[part][0]["alarms"] for part in ("canary", "one_run"))
    wrong = wrong or any(one["alarm"] for one in found["twins"] if one["fault"] == HONEST.name)
    return int(wrong)


def audits(target: Target, fault: Fault, runs: int, count: int) -> dict[str, Any]:
    """Audit a mechanism by canary runs, many times."""
    begin = time.perf_counter()
    site, proven = _site(target), target.proven(target.plan.sites[0])
    lows, alarms, by_steps, guessed = [], 0, 0, 0
    for _ in range(count):
        rounds = round(target.plan.rounds * fault.rounds)
        played = run_canaries(site, rounds, runs, _noise(fault))
        # Whoever hides rounds declares none of them either: judged by the scores alone.
        planned = played.steps.drawn
        judged = judge_canaries(
            played.inside,
            played.outside,
            played.share,
            played.steps,
            planned,
            proven,
            only_noise=played.only_noise,
        )
        guessed += judged.mu_guessed > proven.mu
        lows.append(judged.mu_low)
        alarms += judged.contradicts
        by_steps += played.steps.drawn != 2 * runs * target.plan.rounds
    return {
        "fault": fault.name,
        "audits": count,
        "alarms": alarms,
        "seen_by_guesses_alone": guessed,
        "seen_by_counting_steps": by_steps,
        "mu_observed_at_least": round(float(np.median(lows)), 4) if lows else None,
        "seconds_each": round((time.perf_counter() - begin) / max(1, count), 1),
    }


def smoke(target: Target, fault: Fault, count: int) -> dict[str, Any]:
    """Audit a mechanism by one run, many times."""
    begin = time.perf_counter()
    site, proven = _site(target), target.proven(target.plan.sites[0], ONE_RUN_DELTA)
    lows, alarms = [], 0
    for _ in range(count):
        scores, taken = run_once(site, target.plan.rounds, CANARIES, _noise(fault))
        judged = judge_one_run(scores, taken, proven)
        lows.append(judged.epsilon_low)
        alarms += judged.contradicts
    return {
        "fault": fault.name,
        "audits": count,
        "alarms": alarms,
        "epsilon_observed_at_least": round(float(np.median(lows)), 3) if lows else None,
        "epsilon_proven": round(proven.epsilon, 3),
        "seconds_each": round((time.perf_counter() - begin) / max(1, count), 1),
    }


def made_up_target(epsilon: int) -> Target:
    """A small experiment that nobody proposed."""
    schema = Schema.model_validate(
        {
            "consilium": 1,
            "dataset": "made-up",
            "declared_rows": 200,
            "columns": [
                *({"name": f"n{i}", "type": "number", "low": -1, "high": 1} for i in range(5)),
                {"name": "y", "type": "category", "values": ["0", "1"]},
            ],
        }
    )
    experiment = Experiment.from_fields(
        {
            "consilium": 1,
            "name": "attacked",
            "title": "Attacked",
            "purpose": "Measure what attacks see.",
            "lawful_basis": "No personal data",
            "until": "2100-01-01",
            "task": {"kind": "binary", "target": "y", "positive": ["1"]},
            "features": [f"n{i}" for i in range(5)],
            "model": {"preset": "logistic-regression"},
            "federation": {
                "datasets": ["made-up"],
                "rounds": 2,
                "strategy": {"name": "fedsgd", "learning_rate": "1"},
            },
            "privacy": {"epsilon": epsilon, "engine": "fast"},
        }
    )
    return target_of_experiment(experiment, [schema])


class _Scaled(SecureRandom):
    """A generator whose noise is too small."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def gaussian_integers(self, noise_sd: int, size: int) -> npt.NDArray[np.int64]:
        return super().gaussian_integers(max(1, round(noise_sd * self._factor)), size)


def _noise(fault: Fault) -> Callable[[str], Randomness]:
    return lambda purpose: _Scaled(fault.noise)


def _site(target: Target) -> AuditedSite:
    return AuditedSite(target.spec, target.schemas[0], target.plan.sites[0])


if __name__ == "__main__":
    sys.exit(main())

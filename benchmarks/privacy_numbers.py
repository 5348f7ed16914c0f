"""Ten mechanisms by every accountant at hand, and how many experiments fit a lifetime promise.

    python -m benchmarks.privacy_numbers --json
    python -m benchmarks.privacy_numbers --write docs/privacy-numbers.md

Each case is a list of mechanism events as a ledger holds them. Ours are the two lanes that judge: the
least lifetime promise of a cell that admits the case, by lane G alone, by lane R alone at the order that
this promise fixes, and by the filter with both lanes at half of delta each. Beside them what is shown
to people (the curve at the whole delta), dp-accounting's PLD and RDP, and Opacus' RDP and PRV from a
process of their own. Every figure is an upper bound on the same thing: the epsilon of one patient's
rows replaced by nothing, at the case's delta.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.privacy_chart import chart
from privacy.calibrate import compose_epsilon, plan_noise
from privacy.crosscheck import opacus_epsilons, pld_epsilon, rdp_epsilon_dp_accounting
from privacy.curves import mu2_max
from privacy.errors import BudgetExceeded, InvalidParameter
from privacy.events import CHARGE_UNIT, FULL_BATCH, GRID, Gaussian
from privacy.filters import Charge, Limit, Spend, limit_for, reserve, step_charge

RUN_DELTA = 1e-5
ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Case:
    """Releases that happened to one cell of patients.

    Attributes:
        name: what they were, in words.
        delta: at which all epsilons of the case are stated.
        events: the mechanisms.
    """

    name: str
    delta: float
    events: tuple[Gaussian, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """One accountant's answer: an epsilon, or the reason why there is none, and how long it took."""

    value: float | str
    ms: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute, print a table and one line of JSON, and write the page where asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="write the page as Markdown, and its chart"
    )
    options = parser.parse_args(arguments)
    rows = []
    for case in cases():
        if not options.json:
            print(f"  {case.name} ...", file=sys.stderr)
        rows.append((case, figures(case)))
    fits = [lifetime(5.0), lifetime(10.0)]
    text = page(rows, fits)
    if options.write is not None:
        options.write.write_text(text, encoding="utf-8")
        options.write.with_suffix(".svg").write_text(chart(text), encoding="utf-8")
    if not options.json:
        print(text)
    result = {
        "cases": [
            {
                "name": case.name,
                "delta": case.delta,
                **{
                    name: {"epsilon": found.value, "ms": round(found.ms, 2)}
                    for name, found in answers.items()
                },
            }
            for case, answers in rows
        ],
        "lifetime": fits,
    }
    print(json.dumps(result))
    return 0


def cases() -> tuple[Case, ...]:
    """Ten cases, from one release to a table's whole life."""
    one = training(1.0)
    metrics = Gaussian(GRID, 32 * GRID // 10, 1)
    mixed = tuple(
        Gaussian(GRID, (10 + k) * GRID // 10, 40 + 10 * k, FULL_BATCH * (1 + k) // 100)
        for k in range(10)
    )
    return (
        Case(
            "one full-batch release, noise 4 times the clip", RUN_DELTA, (Gaussian(GRID, 4 * GRID),)
        ),
        Case("20 full-batch rounds, calibrated to epsilon 1", RUN_DELTA, (one,)),
        Case("20 full-batch rounds, calibrated to epsilon 8", RUN_DELTA, (training(8.0),)),
        Case("epsilon 1, and a score histogram of the same patients", RUN_DELTA, (one, metrics)),
        Case(
            "epsilon 1 where a patient had 4 rows, each clipped by itself",
            RUN_DELTA,
            (Gaussian(4 * one.sensitivity, one.noise_sd, one.steps),),
        ),
        Case("10 experiments of epsilon 1", RUN_DELTA, (one,) * 10),
        Case("50 experiments of epsilon 1", RUN_DELTA, (one,) * 50),
        Case("100 Poisson steps, q 64/303, noise 1", 1e-4, (sampled(1.0, 64 / 303, 100),)),
        Case("1,500 Poisson steps, q 1/50, noise 1", RUN_DELTA, (sampled(1.0, 0.02, 1500),)),
        Case("850 Poisson steps of ten kinds, and 20 full-batch rounds", RUN_DELTA, (*mixed, one)),
    )


def training(epsilon: float) -> Gaussian:
    """20 full-batch rounds that are together (epsilon, 1e-5)-DP, by the closed form."""
    mu2 = math.floor(mu2_max(epsilon, RUN_DELTA) * CHARGE_UNIT)
    noise = plan_noise(Limit(mu2, 0, 200), (), GRID, ROUNDS)
    return Gaussian(GRID, noise, ROUNDS)


def sampled(noise_multiplier: float, q: float, steps: int) -> Gaussian:
    """``steps`` Poisson-sampled releases."""
    return Gaussian(GRID, int(noise_multiplier * GRID), steps, int(q * FULL_BATCH))


def figures(case: Case) -> dict[str, Figure]:
    """Every accountant's epsilon for a case."""
    events, delta = case.events, case.delta
    answers = {
        "lane_g": _timed(lambda: least_promise(events, delta, lanes="g")),
        "lane_r": _timed(lambda: least_promise(events, delta, lanes="r")),
        "filter": _timed(lambda: least_promise(events, delta, lanes="both")),
        "shown": _timed(lambda: compose_epsilon(events, delta)),
        "pld": _timed(lambda: pld_epsilon(events, delta)),
        "rdp": _timed(lambda: rdp_epsilon_dp_accounting(events, delta)),
    }
    begin = time.perf_counter()
    by_opacus = opacus_epsilons(events, delta)
    ms = (time.perf_counter() - begin) * 1e3
    answers["opacus_rdp"] = Figure(by_opacus["rdp"], ms)
    answers["opacus_prv"] = Figure(by_opacus["prv"], ms)
    return answers


def least_promise(events: Sequence[Gaussian], delta: float, lanes: str) -> float | str:
    """Smallest lifetime epsilon, to a millionth, whose cell admits the events one after another.

    Args:
        events: in their order.
        delta: lifetime delta of the cell.
        lanes: ``g``, ``r`` or ``both``; a single lane is judged at half of delta, as in the cell.
    """

    def admits(micro: int) -> bool:
        try:
            limit = limit_for(micro / 1e6, delta)
        except InvalidParameter:
            return False
        spend = Spend(g_overflowed=lanes == "r", r_overflowed=lanes == "g")
        try:
            for event in events:
                charge = step_charge(event, limit.order_centi).times(event.steps)
                spend = reserve(spend, charge, limit)
        except BudgetExceeded:
            return False
        return True

    low, high = 1_000, 1_000_000_000
    if not admits(high):
        return "over 1000"
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if admits(middle) else (middle, high)
    return high / 1e6


def lifetime(promise: float) -> dict[str, Any]:
    """How many experiments of (1, 1e-5) a cell's filter admits one after another.

    Training is on the train cell, calibrated by the closed form (mu^2 0.0719); metrics read the
    test cell, whose own filter must admit one score histogram of noise 3.8 an experiment.
    """
    one = training(1.0)
    limit = limit_for(promise, RUN_DELTA)
    charge = step_charge(one, limit.order_centi).times(one.steps)
    histogram = step_charge(Gaussian(GRID, 38 * GRID // 10), limit.order_centi)
    own = plan_noise(limit_for(1.0, RUN_DELTA), (), GRID, ROUNDS)
    by_gate = step_charge(Gaussian(GRID, own, ROUNDS), limit.order_centi).times(ROUNDS)
    return {
        "epsilon": promise,
        "delta": RUN_DELTA,
        "mu2_each": round(float(one.mu2_per_step * one.steps), 5),
        "experiments": _admitted(charge, limit),
        "histograms_on_the_test_cell": _admitted(histogram, limit),
        "experiments_calibrated_by_the_gate": _admitted(by_gate, limit),
        "by_adding": int(promise),
    }


def page(rows: Sequence[tuple[Case, dict[str, Figure]]], fits: Sequence[dict[str, Any]]) -> str:
    """The Markdown page."""
    lines = [
        "# Privacy numbers",
        "",
        "Made by `python -m benchmarks.privacy_numbers --write docs/privacy-numbers.md`; epsilons are the",
        "same on every machine, times are from two shared cores. What the lanes are, and why only they",
        "judge: [privacy](privacy.md).",
        "",
        "## Ten cases, eight answers",
        "",
        "Epsilon of one patient's rows replaced by nothing, at the case's delta. The first three columns",
        "are the least lifetime promise of a cell that admits the case: each lane has half of delta, and",
        "lane R the one order that the promise fixes. They stay valid when later requests depend on earlier",
        "answers; the other columns are about a list of events that was fixed beforehand, and judge nothing",
        "(PLD also audits: it must never exceed the promise).",
        "",
        "![Epsilon of the ten cases below, by the filter, by PLD and by RDP](privacy-numbers.svg)",
        "",
        "| case | delta | lane G | lane R | filter | shown | PLD | RDP | Opacus RDP | Opacus PRV |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    order = ("lane_g", "lane_r", "filter", "shown", "pld", "rdp", "opacus_rdp", "opacus_prv")
    lines.extend(
        f"| {case.name} | {case.delta:g} | "
        + " | ".join(_said(answers[name].value) for name in order)
        + " |"
        for case, answers in rows
    )
    lines += [
        "",
        "Sampling helps in lane R only: lane G takes a sampled step as a full one. Opacus' PRV adds its own",
        "error bound of 0.01.",
        "",
        "## Milliseconds for these answers",
        "",
        "Lanes: the bisection over some thirty promises. Opacus: one process with all of its accountants,",
        "the import of torch included.",
        "",
        "| case | lane G | lane R | filter | shown | PLD | RDP | Opacus |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines.extend(
        f"| {case.name} | " + " | ".join(f"{answers[name].ms:,.0f}" for name in order[:-1]) + " |"
        for case, answers in rows
    )
    lines += [
        "",
        "## How often a hospital can say yes",
        "",
        "Experiments of (1, 1e-5), 20 full-batch rounds each, that a cell's filter admits one after another.",
        "Training reads the train cell, one score histogram an experiment (noise 3.8) the test cell.",
        "",
        "| lifetime promise | mu^2 each | experiments | histograms on the test cell | "
        "calibrated by the gate itself | by adding epsilons |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    lines.extend(
        f"| ({fit['epsilon']:g}, {fit['delta']:g}) | {fit['mu2_each']} | {fit['experiments']} | "
        f"{fit['histograms_on_the_test_cell']} | {fit['experiments_calibrated_by_the_gate']} | "
        f"{fit['by_adding']} |"
        for fit in fits
    )
    lines += [
        "",
        "`calibrated by the gate itself`: a plan whose target is epsilon 1 in the cell's own lanes (half of",
        "delta), as the product calibrates it: each asks for a little less.",
        "",
    ]
    return "\n".join(lines)


def _admitted(charge: Charge, limit: Limit) -> int:
    spend, count = Spend(), 0
    while True:
        try:
            spend = reserve(spend, charge, limit)
        except BudgetExceeded:
            return count
        count += 1


def _timed(compute: Callable[[], float | str]) -> Figure:
    begin = time.perf_counter()
    value = compute()
    return Figure(value, (time.perf_counter() - begin) * 1e3)


def _said(value: float | str) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "none"


if __name__ == "__main__":
    sys.exit(main())

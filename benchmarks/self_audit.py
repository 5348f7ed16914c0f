"""Does the self-test find what is wrong, and nothing where nothing is? ``python -m benchmarks.self_audit``.

Three parts, all on synthetic rows:

- ``honest``: so many runs of the private mechanism as it is (both engines, four hospitals, nine vectors
  of 512 values each), each judged as a node's self-test is. None may fail.
- ``whole``: the node's own self-test, documents and all, as ``consilium node selftest`` runs it.
- ``faults``: the same self-test over a node that is wrong in one way. Each must be found every time.

``small``: the least that finds a fault at all: one round of two hospitals that share a seed, at the 14 and
the 9 parameters of small models, and the runs in which undeclared steps show in the noise alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from benchmarks.self_audit_mechanism import Mechanism
from node.training.process.selftest import SITES, run_selftest
from node.training.rounds import one_round
from node.training.rounds.train import start_torch
from privacy.events import GRID
from privacy.noise import Randomness, SecureRandom
from privacy.selfaudit.checks import FALSE_ALARMS, Report, Steps
from privacy.selfaudit.residuals import examine

Noise = Callable[[str], Randomness]


def main() -> int:
    """Run it; 0 if every figure is as promised."""
    arguments = argparse.ArgumentParser(prog="benchmarks.self_audit", description=__doc__)
    arguments.add_argument("--honest", type=int, default=3000, help="runs without a fault")
    arguments.add_argument("--whole", type=int, default=20, help="whole self-tests without a fault")
    arguments.add_argument("--faulty", type=int, default=10, help="whole self-tests a fault")
    arguments.add_argument("--json", action="store_true")
    chosen = arguments.parse_args()
    start_torch()
    found = {
        "false_alarm_rate_stated": FALSE_ALARMS,
        "honest": honest(chosen.honest),
        "whole": whole(chosen.whole),
        "faults": [fault(name, chosen.faulty) for name in FAULTS],
        "small": [shared_seed(size, 200) for size in (14, 9)] + [undeclared(t, 50) for t in (4, 8)],
    }
    if chosen.json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        _print(found)
    good = not found["honest"]["alarms"] and not found["whole"]["alarms"]  # type: ignore[index]
    return 0 if good and all(one["found"] == one["runs"] for one in found["faults"]) else 1  # type: ignore[union-attr]


def honest(runs: int) -> dict[str, Any]:
    """Run the mechanism as it is and count alarms."""
    mechanism = Mechanism(len(SITES), 512)
    begin = time.perf_counter()
    alarms: Counter[str] = Counter()
    least = 1.0
    for _ in range(runs):
        report = mechanism.report(SecureRandom)
        alarms.update(one.check for one in report.failed)
        least = min(least, *(one.p for one in report.findings))
    seconds = time.perf_counter() - begin
    return {
        "runs": runs,
        "residuals": mechanism.residuals * runs,
        "alarms": sum(alarms.values()),
        "least_p": least,
        "seconds": round(seconds, 1),
    }


def whole(runs: int) -> dict[str, Any]:
    """Run the node's own self-test and count alarms."""
    begin = time.perf_counter()
    alarms = sum(bool(run_selftest(_fresh).failed) for _ in range(runs))
    each = (time.perf_counter() - begin) / max(1, runs)
    return {"runs": runs, "alarms": alarms, "seconds_each": round(each, 2)}


def fault(name: str, runs: int) -> dict[str, Any]:
    """Run the self-test of a node with a fault; say how often and by which checks it is found."""
    begin = time.perf_counter()
    by: Counter[str] = Counter()
    found = 0
    residuals = 0
    for _ in range(runs):
        report = FAULTS[name]()
        residuals = report.residuals
        found += bool(report.failed)
        by.update(one.check for one in report.failed)
    return {
        "fault": name,
        "runs": runs,
        "found": found,
        "by": dict(by),
        "residuals": residuals,
        "seconds_each": round((time.perf_counter() - begin) / max(1, runs), 2),
    }


def shared_seed(parameters: int, runs: int) -> dict[str, Any]:
    """Two hospitals, one round, one noise of different size at each, as FLamby's example draws it."""
    found = 0
    for _ in range(runs):
        noise = SecureRandom().gaussian_integers(4 * GRID, parameters) / (4 * GRID)
        rounded = np.stack([np.rint(noise * sd) / sd for sd in (2.0 * GRID, 5.0 * GRID)])
        report = examine(rounded[:, None, :], Steps())
        found += any(one.check == "across_sites" for one in report.failed)
    return {
        "fault": "shared seed, one round",
        "parameters": parameters,
        "runs": runs,
        "found": found,
    }


def undeclared(steps: int, runs: int) -> dict[str, Any]:
    """Vectors of one step more than declared, judged by the deviation of their noise alone."""
    vectors = -(-2 * round((8.5 * steps) ** 2) // 512)
    found = 0
    for _ in range(runs):
        size = (steps + 1, vectors, 512)
        drawn = SecureRandom().gaussian_integers(4 * GRID, int(np.prod(size))).reshape(size)
        accumulated = drawn.sum(axis=0) / (4 * GRID * np.sqrt(steps))
        found += bool(examine(accumulated[None], Steps()).failed)
    return {
        "fault": f"{steps + 1} steps, {steps} declared, by noise alone",
        "residuals": vectors * 512,
        "runs": runs,
        "found": found,
    }


class _Scaled:
    """A generator whose noise is too small or too large."""

    def __init__(self, rng: Randomness, factor: float) -> None:
        self._rng, self._factor = rng, factor

    @property
    def production(self) -> bool:
        return self._rng.production

    def gaussian_integers(self, noise_sd: int, size: int) -> npt.NDArray[np.int64]:
        return self._rng.gaussian_integers(max(1, round(noise_sd * self._factor)), size)

    def expect(self, noise_sd: int, size: int) -> None:
        self._rng.expect(max(1, round(noise_sd * self._factor)), size)

    def poisson_mask(self, sampling: int, size: int) -> npt.NDArray[np.bool_]:
        return self._rng.poisson_mask(sampling, size)

    def below(self, bound: int) -> int:
        return self._rng.below(bound)

    def close(self) -> None:
        self._rng.close()


class _Replayed:
    """Generators that all give what the first of their group gave."""

    def __init__(self, group: Callable[[str], str]) -> None:
        self._group = group
        self._noise: dict[str, npt.NDArray[np.int64]] = {}

    def open(self, purpose: str) -> Randomness:
        group = self._group(purpose)
        outer = self

        class Replay(SecureRandom):
            def gaussian_integers(self, noise_sd: int, size: int) -> npt.NDArray[np.int64]:
                kept = outer._noise.get(group)
                if kept is None or len(kept) < size:
                    outer._noise[group] = kept = super().gaussian_integers(noise_sd, size)
                return kept[:size].copy()

        return Replay()


def _fresh(purpose: str) -> Randomness:
    return SecureRandom()


def _scaled(factor: float) -> Callable[[], Report]:
    return lambda: run_selftest(lambda purpose: _Scaled(SecureRandom(), factor))


def _same_at_all_sites() -> Report:
    # purpose is spec/site/kind+round/release: without the site, hospitals share their noise
    return run_selftest(_Replayed(lambda p: "/".join(p.split("/")[2:])).open)


def _same_every_round() -> Report:
    return run_selftest(_Replayed(lambda p: p.split("/")[1]).open)


def _declares_fewer() -> Report:
    def lying(*arguments: Any, before_noise: Any, **named: Any) -> Any:
        def fewer(purpose: Any, steps: int) -> None:
            before_noise(purpose, steps - 1)

        return _FEDAVG(*arguments, before_noise=fewer, **named)

    with _patched(lying):
        return run_selftest(_fresh)


def _takes_more() -> Report:
    """One more step than is declared, and its noise from where nobody counts."""

    def greedy(*arguments: Any, local_steps: int, **named: Any) -> Any:
        named["before_noise"]("train", local_steps)
        named["before_noise"] = lambda purpose, steps: None
        hidden = SecureRandom()
        counted = named["rng"]

        class Hiding(SecureRandom):
            taken = 0

            def gaussian_integers(self, noise_sd: int, size: int) -> npt.NDArray[np.int64]:
                self.taken += 1
                source = counted if self.taken <= local_steps else hidden
                return source.gaussian_integers(noise_sd, size)

        named["rng"] = Hiding()
        return _FEDAVG(*arguments, local_steps=local_steps + 1, **named)

    with _patched(greedy):
        return run_selftest(_fresh)


_FEDAVG = one_round.fedavg_round


@contextmanager
def _patched(wrong: Any) -> Iterator[None]:
    with mock.patch.object(one_round, "fedavg_round", wrong):
        yield


FAULTS: dict[str, Callable[[], Report]] = {
    "sigma 5 % too small": _scaled(0.95),
    "sigma 5 % too large": _scaled(1.05),
    "one seed at all sites": _same_at_all_sites,
    "one seed in all rounds": _same_every_round,
    "one step fewer declared than taken": _declares_fewer,
    "one hidden step": _takes_more,
}


def _print(found: dict[str, Any]) -> None:
    for part in ("honest", "whole"):
        sys.stdout.write(f"{part}: {found[part]}\n")
    for one in [*found["faults"], *found["small"]]:
        sys.stdout.write(f"{one['fault']}: found {one['found']} of {one['runs']}; {one}\n")


if __name__ == "__main__":
    sys.exit(main())

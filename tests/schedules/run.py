"""Run many random schedules: ``python -m tests.schedules.run --schedules 1000000 --seed 1``.

Prints a line of JSON: how many schedules and steps, how many ended in more than was promised or less than
what left being charged, and how much happened in them, so that zero means something. Exits with 1 and the
seeds of the schedules that failed. ``--of K --part I`` runs one part of K, for several processes.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence

from tests.schedules.promised import OverAdmitted, UnderCharged
from tests.schedules.world import World


def main(arguments: Sequence[str] | None = None) -> int:
    """Run schedules and print the count."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--of", type=int, default=1)
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument(
        "--refresh-days", type=int, default=None, help="after which the promise renews"
    )
    options = parser.parse_args(arguments)
    begin = time.perf_counter()
    counts, failed = run(
        range(options.part, options.schedules, options.of),
        options.steps,
        options.seed,
        options.refresh_days,
    )
    seconds = round(time.perf_counter() - begin, 1)
    print(json.dumps({**counts, "failed": failed[:20], "seconds": seconds}))
    return 1 if failed else 0


def run(
    numbers: Sequence[int], steps: int, seed: int, days: int | None = None
) -> tuple[Counter[str], list[str]]:
    """Run the schedules with these numbers; counts, and what failed with its number."""
    counts: Counter[str] = Counter(over_admitted=0, under_charged=0)
    failed: list[str] = []
    for number in numbers:
        world = World(random.Random(f"{seed}/{number}"), days)
        try:
            world.play(steps)
        except OverAdmitted as error:
            counts["over_admitted"] += 1
            failed.append(f"{number}: {error}")
        except UnderCharged as error:
            counts["under_charged"] += 1
            failed.append(f"{number}: {error}")
        counts["schedules"] += 1
        counts["steps"] += steps
        counts["entries"] += len(world.log)
        counts["vectors"] += sum(len(v) for v in world.released.values())
        counts["restores"] += world.restores
        counts["periods"] += len({number for _, number in world.left_in})
        counts["reservations"] += sum(
            bool(e.reservations) for e in world.states[-1].experiments.values()
        )
    return counts, failed


if __name__ == "__main__":
    sys.exit(main())

"""How long an auditor with nothing but Python's standard library takes for 100,000 privacy events.

    python -m benchmarks.stdlib_auditor --json

Makes a list of events as ``consilium audit events`` writes it (half full batch, half Poisson-sampled,
in the given number of distinct mechanisms, over ten cells), with charges, sums and epsilons by our
library, and lets ``audit/standalone/recompute_budget.py`` recompute it in a process of its own, isolated
and without site packages. Seconds are those of the whole process; the largest difference is between its
epsilons and ours. Beside it: the same charges by our library alone.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audit.reports.privacy_events import FORMAT
from audit.standalone import recompute_budget
from privacy.calibrate import epsilon_of
from privacy.events import FULL_BATCH, GRID, Gaussian
from privacy.filters import limit_for, step_charge

CELLS = 10
PROMISE, DELTA_E15 = 10.0, 10**10


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the list, recompute it, print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--mechanisms", type=int, default=100, help="even")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    options = parser.parse_args(arguments)
    begin = time.perf_counter()
    document = make(options.events, options.mechanisms)
    ours_s = time.perf_counter() - begin
    with tempfile.TemporaryDirectory(prefix="consilium-bench-") as folder:
        path = Path(folder) / "events.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        runs = [recompute(path) for _ in range(options.runs)]
    result = {
        "events": options.events,
        "mechanisms": len(document["mechanisms"]),
        "seconds_min": round(min(seconds for seconds, _ in runs), 3),
        "seconds_max": round(max(seconds for seconds, _ in runs), 3),
        "largest_difference": runs[0][1]["largest_difference"],
        "faults": runs[0][1]["faults"],
        "making_the_list_s": round(ours_s, 3),
    }
    if not options.json:
        for name, value in result.items():
            print(f"{name:20} {value}")
    print(json.dumps(result))
    return 0


def make(count: int, kinds: int) -> dict[str, Any]:
    """A list of ``count`` events in ``kinds`` mechanisms whose sums and epsilons are right."""
    chooser = random.Random(20)
    limit = limit_for(PROMISE, DELTA_E15 / 1e15)
    mechanisms = []
    for k in range(kinds):
        sampling = FULL_BATCH if k % 2 else FULL_BATCH * (1 + k) // (20 * kinds)
        noise_sd = (90 + k) * GRID if k % 2 else (4 + k) * GRID
        charge = step_charge(Gaussian(GRID, noise_sd, 1, sampling), limit.order_centi)
        mechanisms.append(
            {
                "sensitivity": GRID,
                "noise_sd": noise_sd,
                "sampling": sampling,
                "order_centi": limit.order_centi,
                "g": charge.g,
                "r": charge.r,
            }
        )
    events = []
    for _ in range(count):
        cell, kind = chooser.randrange(CELLS), chooser.randrange(kinds)
        # Every other cell pays for full batches alone: lane G decides there, lane R in the others.
        events.append([cell, kind | 1 if cell % 2 else kind, chooser.randrange(3)])
    sums = [[0, 0] for _ in range(CELLS)]
    for cell, kind, steps in events:
        sums[cell][0] += steps * mechanisms[kind]["g"]
        sums[cell][1] += steps * mechanisms[kind]["r"]
    cells = [
        {
            "cell": f"hospital-{at}",
            "epsilon_micro": int(PROMISE * 1e6),
            "delta_e15": DELTA_E15,
            "order_centi": limit.order_centi,
            "g_max": limit.g_max,
            "r_max": limit.r_max,
            "g": g,
            "r": r,
            "epsilon": epsilon_of(g, r, limit.order_centi, DELTA_E15 / 1e15),
        }
        for at, (g, r) in enumerate(sums)
    ]
    return {"format": FORMAT, "cells": cells, "mechanisms": mechanisms, "events": events}


def recompute(path: Path) -> tuple[float, dict[str, Any]]:
    """Seconds and answer of the auditor's process."""
    script = str(recompute_budget.__file__)
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-I", "-S", script, str(path)], capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - begin
    return seconds, json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())

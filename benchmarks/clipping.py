"""What ways to clip, and to average the late models, do for a model at the same epsilon.

    python -m benchmarks.clipping --data DIR --runs 20 --json

Heart disease, four hospitals, each its own noise, FLamby's split: logistic regression, 40 rounds at a fixed
rate, from a first clip norm that is far too small, about right, or far too large. One JSON line for each
epsilon, clip norm, way of clipping and way of averaging: the AUC over the held-out rows and its standard
error over the noise. Every line of an epsilon costs the same.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

from sklearn.metrics import roc_auc_score

from benchmarks.utility import cases
from benchmarks.utility.federation import Setting, assemble, recomputed, scores, train
from ledger.experiment.recipe import Recipe

DELTA = 1e-5
RECIPE = Recipe(40, Decimal(4))
ADAPTIVE = {"kind": "adaptive"}
LATE = "mean of the late half"
AVERAGES: dict[str, dict[str, object]] = {
    "last": {"average_last": "0.000001"},
    LATE: {},
    "ema 0.9": {"average_last": "1", "ema": "0.9"},
    "ema 0.97": {"average_last": "1", "ema": "0.97"},
}


def settings() -> Iterator[tuple[str, str, Setting]]:
    """Each way of clipping under the default average, then each average under flat clipping."""
    for epsilon in (1.0, 3.0):
        for clip_norm in ("0.05", "0.5", "5"):
            for clipping in ("flat", "per_layer", ADAPTIVE):
                privacy = {"clip_norm": clip_norm, "clipping": clipping}
                name = clipping if isinstance(clipping, str) else "adaptive"
                setting = Setting(epsilon, DELTA, recipe=RECIPE, privacy=privacy)
                yield name, LATE, setting
        views = {"augment": {"copies": 4, "jitter": "0.1"}}
        yield "flat, 4 views", LATE, Setting(epsilon, DELTA, recipe=RECIPE, privacy=views)
        for average, strategy in AVERAGES.items():
            yield "flat", average, Setting(epsilon, DELTA, recipe=RECIPE, strategy=strategy)


def lines(folder: Path, runs: int) -> Iterator[dict[str, object]]:
    """Measure all of them."""
    rows = cases.heart(folder)
    held_out = cases.flamby(rows)
    test = held_out[rows.units]
    for clipping, average, setting in settings():
        began = time.perf_counter()
        federation = assemble(rows, setting)
        found = []
        for _ in range(runs):
            model = train(rows, federation, held_out, setting.one_process)
            found.append(float(roc_auc_score(rows.targets[test], scores(rows, model)[test])))
        yield {
            "epsilon": setting.epsilon,
            "delta": DELTA,
            "clip_norm": float(federation.spec.privacy.clip_norm),
            "clipping": clipping,
            "average": average,
            "auc": round(statistics.fmean(found), 4),
            "auc_se": round(statistics.stdev(found) / math.sqrt(runs), 4),
            "runs": runs,
            "rounds": federation.spec.rounds,
            "learning_rate": float(federation.spec.learning_rate),
            "epsilon_recomputed": recomputed(federation, setting),
            "seconds": round(time.perf_counter() - began, 1),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.clipping", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with processed.*.data")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="print JSON lines alone")
    options = parser.parse_args(arguments)
    if options.runs < 2:
        parser.error("--runs must be at least 2")
    for line in lines(options.data, options.runs):
        if options.json:
            print(json.dumps(line), flush=True)
        else:
            print(
                f"epsilon {line['epsilon']}, first norm {line['clip_norm']}: {line['clipping']}, "
                f"{line['average']}: AUC {line['auc']} +- {line['auc_se']}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""How well a federated model predicts at a given epsilon, on real public data.

    python -m benchmarks.utility --case heart --data DIR --runs 30 --json

One JSON line for each setting: the AUC over all held-out rows with its standard error, accuracy over records and
its mean over hospitals, the settings that ``recipe`` chose, and epsilon recomputed from the plan's events by closed
form and by PLD. ``auc_se`` is over the splits, where there are several, else over the noise. Measures are computed
from test rows, which nobody in a federation sees, and per hospital, which a federation gives to nobody with under 50
declared test patients: here the data are public.

Cases and what DIR holds: ``heart`` (``processed.*.data``), ``ist-countries`` and ``ist-hospitals``
(``IST_corrected.csv.gz``), ``diabetes`` (``diabetic_data.csv.gz``). ``--real-path`` sends the heart case
through the nodes' own training process instead, one setting, with released histograms.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.utility import real_path
from benchmarks.utility.settings import CASES, lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a case."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.utility", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--case", choices=list(CASES), default="heart")
    parser.add_argument("--data", type=Path, required=True, help="folder with the public files")
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="print JSON lines alone")
    parser.add_argument("--real-path", action="store_true", help="heart, by the nodes' process")
    parser.add_argument("--epsilon", default="8", help="of --real-path")
    parser.add_argument("--delta", type=float, default=1e-5, help="of --real-path")
    options = parser.parse_args(arguments)
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    if options.real_path:
        if options.case != "heart":
            parser.error("--real-path is for --case heart")
        found = iter(
            [real_path.measure(options.data, options.epsilon, options.delta, options.runs)]
        )
    else:
        found = lines(options.case, options.data, options.runs)
    for line in found:
        if not options.json:
            for name, value in line.items():
                print(f"{name:24} {value}")
        print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

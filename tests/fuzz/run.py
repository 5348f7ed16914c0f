"""Try every parser for a while, each in a process of its own.

::

    python -m tests.fuzz.run --seconds 10                 # all of them (make fuzz)
    python -m tests.fuzz.run --seconds 300 --parser table

With atheris, where it imports, libFuzzer chooses by coverage what to change next; the changes are those
of ``mutate`` and its own. Without it, or with ``--engine random``, ``mutate`` alone. Prints a line for
each parser and a sum as JSON; a finding is printed with its input, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.parsers import PARSERS

_DONE = re.compile(rb"Done (\d+) ", re.ASCII)
_LIMIT_S = 120


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz.run", description=str(__doc__).splitlines()[0]
    )
    parser.add_argument("--seconds", type=int, default=10, help="for each parser")
    parser.add_argument("--parser", choices=sorted(PARSERS), action="append")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=("atheris", "random"))
    given = parser.parse_args()
    here = importlib.util.find_spec("atheris") is not None
    engine = given.engine or ("atheris" if here else "random")
    if engine == "atheris" and not here:
        parser.error("atheris is not installed here; use --engine random")
    names = given.parser or list(PARSERS)
    total, failed = 0, []
    for name in names:
        done, said = _try(name, engine, given.seconds, given.seed)
        print(f"{name:28} {done:>10} tries{'' if said is None else '  FAILED'}", flush=True)
        if said is not None:
            failed.append(name)
            print(said, file=sys.stderr, flush=True)
        total += done
    print(
        json.dumps(
            {
                "engine": engine,
                "parsers": len(names),
                "seconds_each": given.seconds,
                "tries": total,
                "failed": failed,
            }
        )
    )
    return 1 if failed else 0


def _try(name: str, engine: str, seconds: int, seed: int) -> tuple[int, str | None]:
    """Run one parser's process; returns the number of tries, and what went wrong."""
    with tempfile.TemporaryDirectory(prefix="consilium-fuzz-") as folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.target", name, engine, str(seconds), str(seed)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": folder},
            timeout=10 * seconds + _LIMIT_S,
            check=False,
        )
        tries = _DONE.findall(done.stdout)
        if done.returncode == 0 and tries:
            return int(tries[-1]), None
        said = done.stdout[-6000:].decode(errors="replace")
        for found in Path(folder).glob("*-*"):
            if found.is_file() and found.name.split("-")[0] in ("crash", "timeout", "oom"):
                said += f"\ninput ({found.name}): {found.read_bytes()[:4000]!r}"
        return int(tries[-1]) if tries else 0, said


if __name__ == "__main__":
    sys.exit(main())

"""Ask Opacus' accountants in a process of their own: ``python -m privacy.opacus_probe``.

Reads ``{"delta": d, "steps": [[noise multiplier, q, count], ...]}`` from standard input and writes
``{"rdp": x, "gdp": x, "prv": x}`` to standard output, each a number or the reason why there is
none. Separate because Opacus imports torch, which no service process of ours does.

Promises one answer per accountant, never a judgement: Opacus' GDP can under-estimate.
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Sequence

Step = tuple[float, float, int]


def main() -> None:
    """Answer one request from standard input on standard output."""
    request = json.load(sys.stdin)
    steps = [(float(sigma), float(q), int(count)) for sigma, q, count in request["steps"]]
    json.dump(probe(steps, float(request["delta"])), sys.stdout)


def probe(steps: Sequence[Step], delta: float) -> dict[str, float | str]:
    """Ask each accountant; an absent Opacus is a reason, not an error."""
    try:
        from opacus.accountants import GaussianAccountant, PRVAccountant, RDPAccountant
    except ImportError as error:
        reason = f"opacus is not installed ({error}); install the extra 'train'"
        return dict.fromkeys(("rdp", "gdp", "prv"), reason)
    # Its accountants hold [(noise multiplier, sample rate, steps)] and may be filled directly.
    accountants = {"rdp": RDPAccountant, "gdp": GaussianAccountant, "prv": PRVAccountant}
    answers: dict[str, float | str] = {}
    for name, make in accountants.items():
        if name == "gdp" and len(steps) > 1:
            answers[name] = "takes one kind of step only"
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                accountant = make()
                accountant.history = list(steps)
                epsilon = float(accountant.get_epsilon(delta))
        except (ArithmeticError, IndexError, RuntimeError, ValueError, MemoryError) as error:
            answers[name] = f"{type(error).__name__}: {error}"[:200]
            continue
        answers[name] = epsilon if math.isfinite(epsilon) else f"answered {epsilon}"
    return answers


if __name__ == "__main__":
    main()

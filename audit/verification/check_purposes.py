"""Parts of promises for a purpose: their sums from the releases, and their gates from their epsilon.

Part of step 11. The fold admits on the integers that a hospital stated; here they are judged. What is not
judged: whether an experiment serves the purpose that it states. No log shows that.
"""

from __future__ import annotations

from collections.abc import Iterator

from audit.verification import check_periods
from audit.verification.charges import Charged, charged
from audit.verification.findings import Check
from audit.verification.replay import Replay
from ledger.errors import PlanRefused
from ledger.experiment.purpose_parts import part_for
from privacy.filters import Spend

_RELATIVE = 1e-6
"""What two machines' floating-point functions may make of one gate."""


def check_parts(replay: Replay) -> Iterator[Check]:
    """What was used for each purpose, summed anew, and each part's gates."""
    history, state = replay.history, replay.log.state
    by_part: dict[tuple[str, str], list[Charged]] = {}
    for one in charged(history):
        by_part.setdefault((one.cell, one.purpose), []).append(one)
    limited = refuted = 0
    for name, held in sorted(state.cells.items()):
        for code, share in sorted(held.purposes.items()):
            place, spend, part = f"cell {name}, {code}", share.spend, share.terms
            mine = by_part.get((name, code), [])
            before = Spend(*history.carried_parts.get((name, code), (0, 0)))
            due = check_periods.inherited(history, name, held, before)
            for one in check_periods.reaching(history, held, mine):
                due = due[0] + one.g, due[1] + one.r
            known = held.periods is None or all(one.within for one in mine)
            if known and due != (spend.g, spend.r):
                refuted += 1
                yield Check(
                    11,
                    "refuted",
                    f"its lanes hold {spend.g}, {spend.r}, but its releases add up to {due}",
                    place,
                )
            if part is None:
                continue
            limited += 1
            try:
                wanted = part_for(held.terms, part.purpose, part.epsilon_micro)
            except PlanRefused as error:
                refuted += 1
                yield Check(11, "refuted", str(error), place)
                continue
            most = 1 + _RELATIVE
            if part.g_max > wanted.g_max * most or part.r_max > wanted.r_max * most:
                refuted += 1
                yield Check(
                    11,
                    "refuted",
                    f"its gates {part.g_max}, {part.r_max} admit more than epsilon "
                    f"{part.epsilon_micro / 1e6:g}, which gives {wanted.g_max}, {wanted.r_max}",
                    place,
                )
    if limited and not refuted:
        yield Check(
            11, "proved", f"parts of promises for one purpose, within their gates: {limited}"
        )

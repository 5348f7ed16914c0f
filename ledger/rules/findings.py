"""Whether what a privacy audit calls its finding follows from the figures that it states.

A ``privacy.audited`` carries a verdict, figures and the bound that they were held against. Everybody's fold looks
whether the three agree, in integers, so that nobody reads a verdict that its own figures belie. What a verdict may rest
on beside the figures is left to its signer: a canary finding also counts steps and bounds epsilon, twins have further
rates, a self-test five more checks. These may contradict the proof where the figure does not.

What a self-test is held against is the same everywhere: the planned deviation, all answers. Of the other kinds it is
not judged here whether the bound is the plan's. Reports compute that one (``audit.reports.observed``).
"""

from __future__ import annotations

from typing import Final

from ledger.entries.operations.audits import TWINS, PrivacyAudited

_ABOVE: Final = ("canary", "one_run", *TWINS)
"""Kinds that contradict the proof where their lower figure is above the bound."""
_WHOLE: Final = ("residuals", "known_answers")
"""Kinds that are held against a whole: the planned deviation, all answers."""
_ALL: Final = 10**6
_ROUNDED: Final = 2
"""Millionths: the lower figure is rounded down and the bound up."""
_DEVIATIONS_SQUARED: Final = 49
"""A deviation r of n residuals where 1 is planned passes no self-test if 2 n (r - 1)^2 is more: its check fails
at a chance of 1.4e-8, which for every n is below that (46 at n = 1, 32 for many)."""


def belies_itself(op: PrivacyAudited) -> bool:
    """Whether the finding is another than its figures make it."""
    if op.low_ppm > op.high_ppm:
        return True
    if op.kind in _WHOLE and not (
        op.bound_ppm == _ALL and op.low_ppm <= op.measured_ppm <= op.high_ppm
    ):
        return True
    proved = op.finding == "as_proved"
    if op.kind in _ABOVE:
        above = op.low_ppm > op.bound_ppm
        # One bound is all that a single run has; the other kinds may contradict by more than this figure.
        below = op.kind == "one_run" and op.low_ppm + _ROUNDED < op.bound_ppm
        return above if proved else below
    if op.kind == "known_answers":
        return proved != (op.measured_ppm >= op.bound_ppm)
    apart = op.measured_ppm - op.bound_ppm
    return proved and 2 * op.samples * apart * apart > _DEVIATIONS_SQUARED * op.bound_ppm**2

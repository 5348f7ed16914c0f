"""Everything this package refuses, as one tree.

::

    PrivacyError
    ├── InvalidEvent        a mechanism's parameters are not integers in their range
    ├── InvalidParameter    any other argument outside the range its function states
    ├── BudgetExceeded      neither lane of a cell can carry a charge (fields hold the evidence)
    ├── RefundTooLarge      a settlement would give back more than was charged
    ├── CalibrationFailed   no noise makes a plan fit its budget
    ├── RandomnessClosed    a generator was asked for bits after its key was dropped
    ├── NoiseLost           the process that drew a vector's noise failed
    ├── CrossCheckFailed    an independent accountant gave no number
    └── MaskingRefused      secure aggregation: a phase does not go on (``fault`` says why)
        └── SharesMissing   too few of a secret's shares fit together (``of`` says whose)

Callers catch the types and read the fields; they never parse messages. The messages say what was
wrong, where, and what to do about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from privacy.filters import Charge, Limit, Spend


class PrivacyError(Exception):
    """Anything refused by this package."""


class InvalidEvent(PrivacyError):
    """A mechanism's parameter has the wrong type or lies outside its range."""

    def __init__(self, field: str, value: object, rule: str) -> None:
        self.field = field
        self.value = value
        self.rule = rule
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        super().__init__(
            f"event field {field!r}: {shown} ({type(value).__name__}) is not {rule}; "
            "give integers on the 2^-20 grid"
        )


class InvalidParameter(PrivacyError):
    """An argument lies outside the range that its function states."""


class BudgetExceeded(PrivacyError):
    """Neither lane of a cell can carry the requested charge.

    Attributes:
        spend: what the cell had reserved and spent when it was asked; unchanged by the refusal.
        limit: the cell's two gates.
        requested: the charge that was refused.
        left: what each lane still holds; zero for a lane that once overflowed.
    """

    def __init__(self, spend: Spend, limit: Limit, requested: Charge, left: Charge) -> None:
        self.spend = spend
        self.limit = limit
        self.requested = requested
        self.left = left
        lanes = ", ".join(
            f"lane {name} asks {asked} of {free} left"
            + (" (closed: it overflowed before)" if closed else "")
            for name, asked, free, closed in (
                ("G", requested.g, left.g, spend.g_overflowed),
                ("R", requested.r, left.r, spend.r_overflowed),
            )
        )
        super().__init__(
            f"privacy budget exceeded: {lanes} (units of 2^-40); "
            "ask for more noise or fewer steps, or use cells that have more left"
        )


class RefundTooLarge(PrivacyError):
    """A settlement would give back more than the cell was charged."""

    def __init__(self, spend: Spend, refund: Charge) -> None:
        self.spend = spend
        self.refund = refund
        super().__init__(
            f"refund of g={refund.g}, r={refund.r} is more than the g={spend.g}, r={spend.r} "
            "charged (units of 2^-40); settle each reservation once, against its own charge"
        )


class CalibrationFailed(PrivacyError):
    """No noise makes the plan fit what is left of its budget."""


class RandomnessClosed(PrivacyError):
    """The generator's key was dropped; make a new generator for the next purpose."""


class NoiseLost(PrivacyError):
    """The process that drew a vector's noise failed before all of it was handed out; no more of it is.

    Attributes:
        reason: what became of it.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"the process that drew noise failed in the middle of a vector ({reason}); what that noise was for is "
            "charged and not released; this process draws its noise itself from now on, so do the step anew"
        )


class CrossCheckFailed(PrivacyError):
    """An independent accountant gave no number for the events it was shown."""


MaskingFault = Literal[
    "malformed",
    "too_few",
    "not_a_member",
    "wrong_keys",
    "other_vector",
    "other_survivors",
    "not_masked",
    "disputed",
    "both_secrets",
]


class MaskingRefused(PrivacyError):
    """A phase of secure aggregation does not go on; nothing secret left.

    Attributes:
        fault: what was wrong, as a closed word.
    """

    def __init__(self, fault: MaskingFault, detail: str) -> None:
        self.fault = fault
        super().__init__(f"secure aggregation refused ({fault}): {detail}")


class SharesMissing(MaskingRefused):
    """No threshold of a secret's shares gives the secret that its owner had committed to.

    Attributes:
        of: whose secret.
        held: how many shares there were.
        needed: how many must fit together.
    """

    def __init__(self, of: str, held: int, needed: int) -> None:
        self.of = of
        self.held = held
        self.needed = needed
        super().__init__(
            "too_few",
            f"{held} shares of the secret of {of} give nothing that fits; {needed} that fit "
            "together are needed; wait for more, or begin a new attempt under fresh keys",
        )

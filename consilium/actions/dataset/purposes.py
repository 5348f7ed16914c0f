"""How much of a promise each purpose may use: read from a command line, and said of a dataset's cells."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TypedDict

from consilium.actions.speaking import closed_word, open_member, say
from consilium.errors import InputError
from consilium.naming import the_dataset
from consilium.settings import Settings
from ledger.entries.operations.purposes import PurposeCode
from ledger.errors import PlanRefused
from ledger.experiment.purpose_parts import Parts, part_for

_MOST = Decimal(1000)
_LEAST = Decimal("0.000001")
"""The log holds parts in millionths of epsilon; what is less would be said as nothing at all."""


class Limited(TypedDict):
    """What a purpose may use of a cell from an entry on."""

    cell: str
    purpose: str
    epsilon: float
    entry: int


def read_parts(written: Sequence[str]) -> dict[PurposeCode, int]:
    """Read ``--purpose-budget research=2.5``, each purpose once.

    Raises:
        InputError: it is not of that form, names no purpose, or one twice.
    """
    found: dict[PurposeCode, int] = {}
    for text in written:
        code, equals, number = text.partition("=")
        if not equals:
            raise InputError(f"--purpose-budget {text!r}: write PURPOSE=EPSILON, as in research=2")
        purpose: PurposeCode = closed_word(code, PurposeCode, "--purpose-budget")
        try:
            epsilon = Decimal(number)
        except ArithmeticError:
            raise InputError(f"--purpose-budget {text!r}: {number!r} is not a number") from None
        if not (epsilon.is_finite() and 0 <= epsilon <= _MOST):
            raise InputError(f"--purpose-budget {text!r}: give an epsilon from 0 to {_MOST}")
        if 0 < epsilon < _LEAST:
            raise InputError(
                f"--purpose-budget {text!r}: the least part there is, is {purpose}={_LEAST}; write "
                f"{purpose}=0 to give it nothing, which no later word raises again"
            )
        if purpose in found:
            raise InputError(f"--purpose-budget names {purpose} twice")
        found[purpose] = int(epsilon * 10**6)
    return found


def limit_purposes(settings: Settings, name: str, parts: Parts) -> list[Limited]:
    """Say of every cell of a dataset how much of its promise these purposes may use.

    Parts that are in force already are not said again, so that the command may be repeated.

    Raises:
        InputError: a part is more than the promise.
        RefusedByFederation: it would raise what was said before, or the dataset is another hospital's.
    """
    found: list[Limited] = []
    with open_member(settings.home, settings.passphrase_file, ("steward", "node")) as member:
        member.follow()
        dataset = the_dataset(member.replica.state, name)
        for use in dataset.terms.cells:
            for purpose, epsilon_micro in parts.items():
                cell = member.replica.state.cells[use.cell]
                try:
                    part = part_for(cell.terms, purpose, epsilon_micro)
                except PlanRefused as error:
                    raise InputError(str(error)) from None
                share = cell.purposes.get(purpose)
                if share is not None and share.terms == part:
                    continue
                entry = say(member, part).index
                found.append(
                    Limited(
                        cell=use.cell, purpose=purpose, epsilon=epsilon_micro / 1e6, entry=entry
                    )
                )
    return found

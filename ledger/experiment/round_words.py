"""How people read a plan's rounds: those of the spec train, and what measures comes after them.

A plan numbers its rounds through: training, then an evaluation, then a baseline (``ledger.rules.rounds``). A spec
that asks for 20 rounds so has rounds 21 and 22 in the log. Every door, report and page counts by these functions, so
that none says 22 of 22 where another says 20/20.
"""

from __future__ import annotations

from collections.abc import Iterable

_MEASURING = ("evaluation", "baseline")


def round_name(number: int, training_rounds: int) -> str:
    """A plan's n-th round by itself: its number while it trains, else what it is.

    Args:
        number: from 1, as the log has it.
        training_rounds: of the spec.
    """
    after = number - training_rounds
    return str(number) if after <= 0 else _MEASURING[min(after, len(_MEASURING)) - 1]


def round_phrase(number: int, training_rounds: int) -> str:
    """A plan's n-th round within a sentence: ``round 3``, ``the evaluation``."""
    name = round_name(number, training_rounds)
    return f"round {name}" if number <= training_rounds else f"the {name}"


def round_words(number: int, training_rounds: int) -> str:
    """How far a plan is at its n-th round: ``3/20``, then ``20/20, evaluation``."""
    if number <= training_rounds:
        return f"{number}/{training_rounds}"
    return f"{training_rounds}/{training_rounds}, {round_name(number, training_rounds)}"


def served_words(numbers: Iterable[int], training_rounds: int) -> str:
    """The rounds that somebody served: ``20/20, evaluation, baseline``, or ``0/20``.

    Args:
        numbers: of those rounds, each counted once.
        training_rounds: of the spec.
    """
    served = set(numbers)
    trained = sum(number <= training_rounds for number in served)
    measured = [
        round_name(number, training_rounds)
        for number in sorted(served - set(range(training_rounds + 1)))
    ]
    return ", ".join([f"{trained}/{training_rounds}", *measured])

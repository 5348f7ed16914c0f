"""How rounds are counted for a researcher: the spec's rounds train, and what measures comes after them."""

from __future__ import annotations

import pytest

from consilium.actions.experiment.watching import describe
from consilium.client import Progress
from ledger.entries.operations.rounds import RoundKind


@pytest.mark.parametrize(
    ("number", "kind", "attempt", "words"),
    [
        (3, "train", 1, "round 3/10 (training), waiting for basel-heart"),
        (3, None, 1, "round 3/10 (between rounds), waiting for basel-heart"),
        (11, "evaluate", 1, "round 10/10, evaluation, waiting for basel-heart"),
        (11, "evaluate", 2, "round 10/10, evaluation (attempt 2), waiting for basel-heart"),
    ],
)
def test_what_is_under_way_is_said_in_the_specs_rounds(
    number: int, kind: RoundKind | None, attempt: int, words: str
) -> None:
    standing = Progress(
        status="running",
        reason=None,
        round=number,
        rounds=12,
        training_rounds=10,
        kind=kind,
        attempt=attempt,
        waiting_for=("basel-heart",),
        approved=("basel-heart",),
    )
    assert describe(standing) == words

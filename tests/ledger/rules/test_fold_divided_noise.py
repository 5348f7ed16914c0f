"""Noise that the hospitals of a masked round divide among them, in the fold."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.entries.operations.rounds import MaskedVector
from ledger.formats.value import replace
from tests.federation import COORDINATOR, RESEARCHER, Federation, node_of
from tests.ledger.facts import (
    cell_of,
    dataset_of,
    fold,
    h,
    open_op,
    proposal,
    steps_used,
)
from tests.ledger.rules.masked import HOSPITALS, Round, proposed


@pytest.mark.parametrize(
    "plan",
    [
        {"noise_shares": 3},  # nobody may collude
        {"noise_shares": 1},
        {"strategy": "fedavg"},
        {"secure_aggregation": "local"},
        {"secure_aggregation": None},
    ],
)
def test_noise_is_divided_only_where_enough_hospitals_add_it_to_one_sum(
    plan: dict[str, Any],
) -> None:
    assert next(iter(proposed(**shared_noise()).experiments.values())).plan.noise_shares == 2
    proposed(**(shared_noise() | plan), void="plan_invalid")


def shared_noise() -> dict[str, Any]:
    return {"secure_aggregation": "distributed", "noise_shares": 2}


def test_divided_noise_that_differs_between_hospitals_is_refused() -> None:
    state = Federation.found(HOSPITALS).state
    for name in HOSPITALS:
        for op in (cell_of(name), dataset_of(name)):
            state = fold(state, node_of(name), op)
    op = proposal(state, HOSPITALS)
    first, *others = op.plan.sites
    quieter, *rest = first.releases
    louder = replace(quieter, noise_sd=quieter.noise_sd + 1)
    sites = (replace(first, releases=(louder, *rest)), *others)
    changed = {"quorum": 3, "sites": sites} | shared_noise()
    plan = replace(op.plan, **changed)
    fold(state, RESEARCHER, replace(op, plan=plan), "plan_invalid")


def test_divided_noise_is_void_in_a_second_attempt() -> None:
    masked = Round(**shared_noise()).until("unmask")
    masked.pass_time(61_000)
    masked.close("shares_missing")
    masked.state = fold(
        masked.state,
        COORDINATOR,
        open_op(masked.state, masked.id, deadline_ms=masked.state.log_time + 60_000),
    )
    masked.until("mask")
    masked.submit("basel", "vector_reused")
    fresh = MaskedVector(context=masked.masking.context, vector=h("fresh"))
    masked.submit("basel", "under_reported", masked=fresh)
    fresh = MaskedVector(context=masked.masking.context, vector=h("fresher"))
    masked.submit("basel", masked=fresh, used=steps_used(train=3))
    held = masked.state.experiments[masked.id].reservations["basel-heart"]
    assert (held.vectors["train"].different, held.used["train"]) == (3, 3)

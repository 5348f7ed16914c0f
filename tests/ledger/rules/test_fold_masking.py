"""Masked rounds in the fold: who may say what in which phase, and what ends one."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.entries.operations.masking import (
    MaskingRevealed,
    RevealedShare,
)
from ledger.entries.operations.rounds import MaskedVector, UpdateRefused
from ledger.entries.operations.values import PublicKey
from ledger.formats.value import replace
from ledger.rules import masking as rules
from privacy.masking.roster import survivors_digest
from tests.federation import COORDINATOR, node_of
from tests.ledger.facts import (
    aggregate_op,
    fold,
    h,
    open_op,
    settle_op,
    submit_op,
)
from tests.ledger.rules.masked import HOSPITALS, SHARE, Round, proposed
from tests.ledger.rules.test_fold_rounds import under_way


def test_a_masked_round_ends_in_a_sum_after_its_four_phases() -> None:
    masked = Round().until("unmask")
    for name in HOSPITALS:
        masked.agree(name)
    for name in HOSPITALS:
        masked.reveal(name)
    state = fold(masked.state, COORDINATOR, aggregate_op(masked.state, masked.id))
    assert state.experiments[masked.id].next_round == 2
    assert {r.served for r in state.experiments[masked.id].reservations.values()} == {1}


@pytest.mark.parametrize(
    ("hospitals", "plan"),
    [
        (("basel", "bern"), {"quorum": 2}),
        (HOSPITALS, {"quorum": 2}),
    ],
)
def test_a_masked_plan_for_fewer_than_three_is_refused(
    hospitals: tuple[str, ...], plan: dict[str, Any]
) -> None:
    proposed(hospitals, **plan, void="plan_invalid")


def test_the_context_names_experiment_attempt_roster_and_model() -> None:
    first = Round()
    contexts = {first.masking.context}
    first.pass_time(61_000)
    first.close("quorum_missed")
    again = fold(
        first.state,
        COORDINATOR,
        open_op(first.state, first.id, deadline_ms=first.state.log_time + 60_000),
    )
    fewer = fold(
        first.state,
        COORDINATOR,
        open_op(
            first.state,
            first.id,
            cohort=tuple(f"{n}-heart" for n in HOSPITALS[:3]),
            deadline_ms=first.state.log_time + 60_000,
        ),
    )
    for state in (again, fewer):
        current = state.experiments[first.id].round
        assert current is not None
        assert current.masking is not None
        contexts.add(current.masking.context)
    assert len(contexts) == 3


def test_a_cohort_below_the_quorum_is_not_asked() -> None:
    masked = Round()
    masked.pass_time(61_000)
    masked.close("quorum_missed")
    op = open_op(masked.state, masked.id, cohort=("basel-heart", "bern-heart"))
    fold(masked.state, COORDINATOR, op, "quorum_missed")


def test_a_message_of_another_context_is_void() -> None:
    masked = Round()
    masked.advertise("basel", "context_mismatch", context=h("another"))
    masked = Round().until("mask")
    masked.submit("basel", "context_mismatch", masked=None)
    other = MaskedVector(context=h("another"), vector=h("v"))
    masked.submit("basel", "context_mismatch", masked=other)


def test_a_masked_update_in_a_bare_round_is_void() -> None:
    state, experiment = under_way()
    masked = MaskedVector(context=h("context"), vector=h("vector"))
    op = replace(submit_op(state, experiment, train=1), masked=masked)
    fold(state, node_of("basel"), op, "context_mismatch")


def test_every_message_has_its_phase() -> None:
    masked = Round()
    masked.share("basel", "wrong_phase")
    masked.submit("basel", "wrong_phase")
    masked.agree("basel", "wrong_phase")
    masked.advance("mask", *HOSPITALS, void="wrong_phase")
    masked.until("unmask")
    masked.advertise("basel", "wrong_phase")
    fold(masked.state, COORDINATOR, aggregate_op(masked.state, masked.id), "wrong_phase")


def test_nothing_is_said_twice() -> None:
    masked = Round()
    masked.advertise("basel")
    masked.advertise("basel", "repeated")
    masked.advertise("bern", "key_conflict", masking=_key(h(("basel", "sharing"))))
    masked = Round().until("share")
    masked.share("basel")
    masked.share("basel", "repeated")
    masked = Round().until("unmask")
    for name in HOSPITALS:
        masked.agree(name)
    masked.agree("basel", "repeated")
    masked.reveal("basel")
    masked.reveal("basel", "repeated")


def _key(public: str) -> PublicKey:
    return PublicKey(alg="x25519", public=public)


def test_a_phase_goes_on_early_only_when_nobody_is_awaited() -> None:
    masked = Round()
    for name in HOSPITALS[:3]:
        masked.advertise(name)
    masked.advance("share", *HOSPITALS[:3], void="not_due")
    masked.leave("davos")
    masked.advance("share", *HOSPITALS[:3])


def test_a_phase_goes_on_without_the_late_after_its_time() -> None:
    masked = Round()
    for name in HOSPITALS[:3]:
        masked.advertise(name)
    masked.pass_time(18_001)  # three tenths of the round's minute
    masked.advance("share", *HOSPITALS[:3])
    assert masked.masking.phase == "share"


def test_the_coordinator_names_exactly_who_answered() -> None:
    masked = Round()
    for name in HOSPITALS:
        masked.advertise(name)
    masked.advance("share", *HOSPITALS[:3], void="members_mismatch")
    masked.advance("share", *HOSPITALS)
    for name in HOSPITALS:
        masked.share(name)
    masked.advance("mask", *HOSPITALS[:3])  # the blob of the fourth did not arrive
    masked.submit("davos", "members_mismatch")


def test_too_few_end_the_attempt_and_the_next_one_has_another_context() -> None:
    masked = Round()
    before = masked.masking.context
    for name in HOSPITALS[:2]:
        masked.advertise(name)
    masked.pass_time(18_001)
    masked.advance("share", *HOSPITALS[:2], void="quorum_missed")
    masked.close("shares_missing", "round_mismatch")
    masked.close("quorum_missed")
    state = fold(
        masked.state,
        COORDINATOR,
        open_op(masked.state, masked.id, deadline_ms=masked.state.log_time + 60_000),
    )
    masked.state = state
    assert masked.masking.context != before


def test_the_same_vector_under_fresh_masks_costs_nothing() -> None:
    masked = Round().until("unmask")
    masked.pass_time(61_000)
    masked.close("quorum_missed", "round_mismatch")
    masked.close("shares_missing")
    masked.state = fold(
        masked.state,
        COORDINATOR,
        open_op(masked.state, masked.id, deadline_ms=masked.state.log_time + 60_000),
    )
    masked.until("unmask")
    held = masked.state.experiments[masked.id].reservations["basel-heart"]
    assert held.used["train"] == 1
    assert held.vectors["train"].different == 1


def test_another_vector_under_fresh_masks_needs_further_noise() -> None:
    masked = Round().until("unmask")
    masked.pass_time(61_000)
    masked.close("shares_missing")
    masked.state = fold(
        masked.state,
        COORDINATOR,
        open_op(masked.state, masked.id, deadline_ms=masked.state.log_time + 60_000),
    )
    masked.until("mask")
    other = MaskedVector(context=masked.masking.context, vector=h("another"))
    masked.submit("basel", "under_reported", masked=other)


def test_other_survivors_are_not_agreed_to() -> None:
    masked = Round().until("unmask")
    fewer = survivors_digest(bytes.fromhex(masked.masking.context), masked.masking.members[:3])
    masked.agree("basel", "members_mismatch", survivors=fewer.hex())


def test_nothing_is_revealed_before_the_threshold_agreed() -> None:
    masked = Round().until("unmask")
    masked.agree("basel")
    masked.agree("bern")
    masked.reveal("basel", "not_due")
    masked.agree("chur")
    masked.reveal("davos", "not_due")
    masked.reveal("basel")


def test_a_dropout_s_masking_key_is_asked_for_and_a_survivor_s_seed() -> None:
    masked = Round().until("mask")
    for name in HOSPITALS[:3]:
        masked.submit(name)
    masked.pass_time(48_001)
    masked.advance("unmask", *HOSPITALS[:3])
    for name in HOSPITALS[:3]:
        masked.agree(name)
    assert rules.secrets_asked(masked.masking)["davos-heart"] == "key"
    masked.reveal("basel", "shares_mismatch", davos="seed")
    masked.reveal("basel", "shares_mismatch", bern="key")
    masked.reveal("basel", "shares_mismatch", stranger="seed")
    masked.reveal("basel", basel="seed", bern="seed", davos="key")
    masked.agree("davos", "members_mismatch")


def test_both_secrets_of_one_hospital_fit_into_no_entry() -> None:
    masked = Round().until("unmask")
    for name in HOSPITALS:
        masked.agree(name)
    shares = tuple(
        RevealedShare(of="basel-heart", secret=secret, share=SHARE)  # type: ignore[arg-type]
        for secret in ("seed", "key")
    )
    op = MaskingRevealed(type="masking.revealed", **masked.common("bern", shares=shares))
    fold(masked.state, node_of("bern"), op, "shares_mismatch")


def test_a_sum_needs_shares_of_the_threshold() -> None:
    masked = Round().until("unmask")
    for name in HOSPITALS:
        masked.agree(name)
    for name in HOSPITALS[:2]:
        masked.reveal(name)
    fold(masked.state, COORDINATOR, aggregate_op(masked.state, masked.id), "wrong_phase")
    masked.reveal("chur")
    fold(masked.state, COORDINATOR, aggregate_op(masked.state, masked.id))


def test_a_masked_update_is_refused_for_its_bytes_but_not_for_its_norm() -> None:
    masked = Round().until("mask")
    masked.submit("basel")
    current = masked.state.experiments[masked.id].round
    assert current is not None
    entry = current.updates["basel-heart"].entry

    def refuse(reason: Any, void: str | None = None) -> None:
        op = UpdateRefused(type="update.refused", update=entry, reason=reason)
        masked.state = fold(masked.state, COORDINATOR, op, void)

    refuse("norm_bound", "wrong_phase")
    refuse("missing_blob")
    for name in HOSPITALS[1:]:
        masked.submit(name)
    masked.advance("unmask", *HOSPITALS[1:])
    assert rules.secrets_asked(masked.masking)["basel-heart"] == "key"


def test_a_survivor_is_not_refused_after_the_survivors_were_named() -> None:
    masked = Round().until("unmask")
    current = masked.state.experiments[masked.id].round
    assert current is not None
    entry = current.updates["basel-heart"].entry
    op = UpdateRefused(type="update.refused", update=entry, reason="missing_blob")
    fold(masked.state, COORDINATOR, op, "wrong_phase")


def test_a_hospital_that_settled_takes_no_part() -> None:
    masked = Round()
    masked.state = fold(masked.state, node_of("davos"), settle_op(masked.id, "davos"))
    masked.advertise("davos", "settled")
    assert "davos-heart" not in rules.waiting_for(
        masked.state.experiments[masked.id],
        masked.state.experiments[masked.id].round,  # type: ignore[arg-type]
        masked.masking,
    )

"""An auditor opens masked sums again, and says what secure aggregation hides."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from audit.reports.certificate import certificate
from audit.reports.contribution.report import contribution_report
from audit.reports.sentences.tell import tell
from audit.verification.sources import close_copies, open_copies
from audit.verification.verify import Verification, verify
from ledger.entries.entry import parse_leaf
from ledger.entries.operations.log import TimeNoted
from ledger.entries.operations.rounds import RoundClosed
from ledger.experiment.privacy_spec import AdaptiveClipping, Privacy
from tests.federation import COORDINATOR, Federation
from tests.masked import MaskedRound, play_masked


def audited(federation: Federation, home: Path) -> Verification:
    federation.persist(home).close()
    copies = open_copies(str(home))
    try:
        return verify(copies[0], trust=federation.id)
    finally:
        close_copies(copies)


def started() -> tuple[Federation, str]:
    federation = Federation.found()
    return federation, federation.start(rounds=2, quorum=3, secure_aggregation=True)


def of_step_12(found: Verification, verdict: str) -> list[str]:
    return [c.detail for c in found.report.checks if c.step == 12 and c.verdict == verdict]


def test_a_norm_that_adapts_follows_from_masked_sums(tmp_path: Path) -> None:
    federation = Federation.found()
    privacy = Privacy(epsilon=Decimal(1), clipping=AdaptiveClipping(kind="adaptive"))
    experiment = federation.start(rounds=2, quorum=3, secure_aggregation=True, privacy=privacy)
    play_masked(federation, experiment)
    found = audited(federation, tmp_path / "home")
    assert not found.report.refuted
    assert any("3 sums and" in detail for detail in of_step_12(found, "proved"))


def test_sums_of_masked_rounds_are_recomputed_and_single_updates_are_not_checkable(
    tmp_path: Path,
) -> None:
    federation, experiment = started()
    play_masked(federation, experiment)
    found = audited(federation, tmp_path / "home")
    assert not found.report.refuted
    assert any("3 sums and" in detail for detail in of_step_12(found, "proved"))
    (said,) = of_step_12(found, "not_checkable")
    assert "not available under secure aggregation" in said


def test_a_wrong_masked_sum_is_refuted(tmp_path: Path) -> None:
    federation, experiment = started()
    masked = MaskedRound(federation, experiment).until("unmask")
    masked.agree()
    masked.reveal()
    federation.say(COORDINATOR, masked.aggregated(masked.total() + 1))
    refuted = of_step_12(audited(federation, tmp_path / "home"), "refuted")
    assert refuted == ["first, round 1: the sum is not that of its updates"]


def test_a_sum_whose_shares_do_not_open_it_is_refuted(tmp_path: Path) -> None:
    federation, experiment = started()
    masked = MaskedRound(federation, experiment).until("unmask")
    masked.agree()
    masked.reveal(wrong=masked.masking.members)
    federation.say(COORDINATOR, masked.aggregated(np.zeros(3, dtype=np.int64)))
    (refuted,) = of_step_12(audited(federation, tmp_path / "home"), "refuted")
    assert "shares of the secret of basel-heart give nothing that fits" in refuted


@pytest.mark.parametrize("wrong", [False, True])
def test_a_round_given_up_for_want_of_shares_must_have_lacked_them(
    tmp_path: Path, wrong: bool
) -> None:
    federation, experiment = started()
    masked = MaskedRound(federation, experiment).until("unmask")
    masked.agree()
    masked.reveal(wrong=masked.masking.members if wrong else ())
    federation.now_ms += 3_600_000
    federation.say(COORDINATOR, TimeNoted(type="time.noted"))
    closed = RoundClosed(
        type="round.closed", experiment=experiment, round=1, attempt=1, reason="shares_missing"
    )
    federation.say(COORDINATOR, closed)
    refuted = of_step_12(audited(federation, tmp_path / "home"), "refuted")
    assert bool(refuted) is not wrong
    assert all("the shares that were revealed open its sum" in detail for detail in refuted)


def test_no_hospital_s_contribution_is_shown_and_the_pooled_measure_is(tmp_path: Path) -> None:
    federation, experiment = started()
    play_masked(federation, experiment)
    federation.persist(tmp_path / "home").close()
    copies = open_copies(str(tmp_path / "home"))
    try:
        found = verify(copies[0], trust=federation.id)
        report = contribution_report(found, experiment, now_ms=federation.now_ms, by="a test")
    finally:
        close_copies(copies)
    for site in report.sites:
        assert site.shapley.value is None
        assert "not available under secure aggregation" in (site.shapley.reason or "")
        assert site.quality.federated is None
        assert "not available under secure aggregation" in (site.quality.reason or "")
    assert report.pooled_federated is not None
    assert report.pooled_reason is None


def test_every_masked_entry_has_its_sentence(tmp_path: Path) -> None:
    federation, experiment = started()
    MaskedRound(federation, experiment).finish()
    found = audited(federation, tmp_path / "home")
    told = [tell(parse_leaf(leaf), found.history).sentence for leaf in federation.leaves]
    for words in (
        "offered fresh keys to mask its vector in round 1 of first",
        "divided the secrets of its masks in round 1 of first among the others",
        "sums masked vectors of 4 datasets",
        "sent its masked update for round 1 of first",
        "signed whose vectors are in the sum of round 1 of first",
        "revealed its shares that open the sum of round 1 of first, and no single vector",
        "under secure aggregation",
    ):
        assert any(words in sentence for sentence in told), words


def test_the_certificate_of_divided_noise_says_whom_it_does_not_hold_against(
    tmp_path: Path,
) -> None:
    """And that a patient of two hospitals moves the one sum twice as far."""
    made = {}
    for noise in ({"noise": "local"}, {"noise": "distributed", "colluders": 1}):
        federation = Federation.found()
        experiment = federation.start(rounds=2, quorum=3, secure_aggregation=noise)
        play_masked(federation, experiment)
        federation.play(experiment)  # what is left: completion, settlements, release
        home = tmp_path / noise["noise"]  # type: ignore[operator]
        federation.persist(home).close()
        copies = open_copies(str(home))
        try:
            found = verify(copies[0], trust=federation.id)
            assert not found.report.refuted
            made[noise["noise"]] = certificate(
                found, experiment, now_ms=federation.now_ms, by="a test"
            )
        finally:
            close_copies(copies)
    local, shared = made["local"], made["distributed"]
    assert "all of them together" in local.trust[0]
    assert "The noises of 2 hospitals together" in shared.trust[0]
    assert "up to 1 of the hospitals in a sum" in shared.trust[0]
    assert local.several[0].epsilon == pytest.approx(shared.several[0].epsilon, rel=1e-6)
    assert shared.several[1].epsilon > 1.2 * local.several[1].epsilon

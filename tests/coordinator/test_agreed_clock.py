"""A coordinator whose clock is wrong: it says nothing that would stop the log until that time has come."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.rounds import agreed_clock
from coordinator.rounds.agreed_clock import AgreedClock
from ledger.errors import NotAdmitted
from ledger.exchange.http_auth import MAX_AGE_S
from tests.coordinator.sequenced import reviewed, sequencing, verified
from tests.coordinator.serving import Serving
from tests.federation import Federation, steward_of
from tests.patience import PATIENCE_S

YEAR_MS = 365 * 86_400_000
SKEW_MS = 60_000


class Clocks:
    def __init__(self) -> None:
        self.now_ms, self.steady_s = 10**12, 500.0
        self.agreed = AgreedClock(lambda: self.now_ms, lambda: self.steady_s)

    def passes(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)
        self.steady_s += seconds


def test_a_clock_that_is_not_ahead_of_the_log_s_needs_nobody() -> None:
    clocks = Clocks()
    assert clocks.agreed.may_say(clocks.now_ms - SKEW_MS, SKEW_MS)
    assert clocks.agreed.may_say(clocks.now_ms + YEAR_MS, SKEW_MS)
    assert not clocks.agreed.may_say(clocks.now_ms - SKEW_MS - 1, SKEW_MS)


def test_an_agreement_holds_until_the_clock_is_set() -> None:
    clocks = Clocks()
    clocks.agreed.heard()
    clocks.passes(10 * 86_400)
    assert clocks.agreed.may_say(0, SKEW_MS)
    clocks.now_ms += 1000 * MAX_AGE_S + 1000
    assert not clocks.agreed.may_say(0, SKEW_MS)
    clocks.agreed.heard()
    assert clocks.agreed.may_say(0, SKEW_MS)


def test_a_coordinator_that_starts_a_year_ahead_leaves_log_time_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = Federation.found(
        ("basel", "bern", "chur"), now_ms=time.time_ns() // 10**6 - 600_000
    )
    federation.start(("basel", "bern"), rounds=1)

    def ahead(clock: Callable[[], int]) -> Callable[[], int]:
        return lambda: clock() + YEAR_MS

    true_ms = federation.state.log_time
    with monkeypatch.context() as wrong:
        wrong.setattr(
            agreed_clock.AgreedClock.__init__, "__defaults__", (ahead(_now_ms), time.monotonic)
        )
        serving = Serving(federation, tmp_path / "hub")
        serving.coordinator.start()
        try:
            time.sleep(1.0)
            assert serving.coordinator.sequencer.view.state.log_time == true_ms
        finally:
            serving.coordinator.close()
    with Serving(federation, tmp_path / "hub") as right:  # its copy asks, as a member does
        right.until(lambda: right.coordinator.sequencer.view.state.log_time > true_ms)
    assert federation.state.log_time < true_ms + 2 * 600_000


def test_evidence_is_said_at_the_log_s_own_time_while_no_member_agrees(
    federation: Federation, home: Path
) -> None:
    rivals = [federation.entry(steward_of("basel"), reviewed(federation, n)) for n in (1, 2)]
    true_ms = federation.state.log_time
    federation.now_ms += YEAR_MS
    with sequencing(federation, home, may_say=lambda *_: False) as sequencer:
        sequencer.submit(rivals[0].leaf).result(PATIENCE_S)
        with pytest.raises(NotAdmitted):
            sequencer.submit(rivals[1].leaf).result(PATIENCE_S)
    state = verified(federation, home).state
    assert state.keys[rivals[0].body.key].conflicted_at is not None
    assert state.log_time == true_ms


def _now_ms() -> int:
    return time.time_ns() // 10**6

"""A promise that renews: in no period is more released than it admits, however reservations lie in time."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.curves import gaussian_epsilon
from privacy.errors import BudgetExceeded, RefundTooLarge
from privacy.events import CHARGE_UNIT
from privacy.filters import Charge, Limit, Spend, limit_for, reserve, settle
from privacy.periods import DAY_MS, Periods, charged, closed, closing, entered, reserved, together

LIMIT = Limit(g_max=1000, r_max=1000, order_centi=750)
MONTH = 30 * DAY_MS


@dataclass
class Account:
    """A cell's totals, and beside them what really left in each period of a clock."""

    spend: Spend = Spend()
    periods: Periods = field(default_factory=lambda: Periods(30, 0))
    held: dict[int, Charge] = field(default_factory=dict)
    left: dict[int, Charge] = field(default_factory=dict)
    by_period: dict[int, list[int]] = field(default_factory=dict)

    def enter(self, at_ms: int) -> None:
        self.spend, self.periods = entered(self.spend, self.periods, LIMIT, at_ms)

    def take(self, key: int, charge: Charge, at_ms: int) -> bool:
        self.enter(at_ms)
        try:
            self.spend = reserve(self.spend, charge, LIMIT)
        except BudgetExceeded:
            return False
        self.periods = reserved(self.periods, charge)
        self.held[key] = charge
        self.left[key] = charge
        return True

    def release(self, key: int, part: int, at_ms: int) -> None:
        """Some of what is left of a reservation leaves; nothing is written down."""
        rest = self.left[key]
        out = Charge(rest.g * part // 4, rest.r * part // 4)
        self.left[key] = Charge(rest.g - out.g, rest.r - out.r)
        sums = self.by_period.setdefault(self.periods.at(at_ms), [0, 0])
        sums[0] += out.g
        sums[1] += out.r

    def settle(self, key: int, at_ms: int) -> None:
        self.enter(at_ms)
        self.spend = settle(self.spend, self.left[key])
        self.periods = closed(self.periods, self.held.pop(key), self.left.pop(key))


charges = st.builds(Charge, st.integers(0, 1200), st.integers(0, 1200))
acts = st.tuples(
    st.sampled_from(["reserve", "release", "settle"]),
    st.integers(0, 5),
    charges,
    st.integers(0, 4),
    st.integers(0, 2 * MONTH),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(acts, max_size=40))
def test_in_no_period_more_leaves_than_one_of_its_lanes_admits(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    account, now_ms = Account(), 0
    everything = [0, 0]
    for what, key, charge, part, later in steps:
        now_ms += later
        if what == "reserve" and key not in account.held:
            account.take(key, charge, now_ms)
        elif what == "release" and key in account.held:
            account.release(key, part, now_ms)
        elif what == "settle" and key in account.held:
            account.settle(key, now_ms)
    for g, r in account.by_period.values():
        assert g <= LIMIT.g_max or r <= LIMIT.r_max
        everything[0] += g
        everything[1] += r
    total = account.periods
    assert total.total_g >= everything[0]
    assert total.total_r >= everything[1]
    assert total.open_g == sum(held.g for held in account.held.values())
    assert account.spend.g >= total.open_g
    assert account.spend.r >= total.open_r
    busy = [n for n, (g, r) in account.by_period.items() if n < total.number and (g or r)]
    assert total.earlier >= len(busy)
    if not account.held:
        assert (total.total_g, total.total_r) == tuple(everything)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(acts, st.integers(-2 * MONTH, 6 * MONTH)), max_size=40))
def test_two_clocks_each_keep_the_promise_in_their_own_periods_whatever_the_other_says(
    steps: list[tuple],  # type: ignore[type-arg]
) -> None:
    """The node's register and the fold: what both admit keeps either promise, if either clock is false."""
    node, log = Account(), Account()
    now_ms = log_ms = 0
    for (what, key, charge, part, later), drift in steps:
        now_ms += later
        log_ms = max(log_ms, now_ms + drift)  # the coordinator's clock, which only goes forward
        times = (node, now_ms), (log, log_ms)
        if what == "reserve" and key not in node.held and key not in log.held:
            if node.take(key, charge, now_ms) and not log.take(key, charge, log_ms):
                node.settle(key, now_ms)
        elif what == "release" and key in log.held:
            for account, at_ms in times:
                account.release(key, part, at_ms)
        elif what == "settle" and key in log.held:
            for account, at_ms in times:
                account.settle(key, at_ms)
    for account in (node, log):
        for g, r in account.by_period.values():
            assert g <= LIMIT.g_max or r <= LIMIT.r_max


def test_what_is_open_counts_in_full_in_every_period_that_it_reaches() -> None:
    account = Account()
    assert account.take(1, Charge(600, 600), 0)
    assert account.take(2, Charge(300, 300), MONTH - 1)
    account.settle(2, MONTH - 1)
    assert not account.take(3, Charge(500, 500), MONTH)
    assert account.spend == Spend(600, 600)
    assert account.take(3, Charge(400, 400), MONTH)
    account.release(1, 1, MONTH)
    account.settle(1, 3 * MONTH)
    assert account.spend == Spend(550, 550)  # 3 is open, and 1 used a quarter
    account.settle(3, 3 * MONTH)
    assert account.spend == Spend(150, 150)
    assert account.periods == Periods(30, 0, number=3, earlier=3, total_g=150, total_r=150)


def test_a_lane_that_overflowed_opens_with_the_next_period_unless_what_is_open_overflows_it() -> (
    None
):
    account = Account()
    assert account.take(1, Charge(1200, 10), 0)
    assert account.spend.g_overflowed
    account.enter(MONTH)
    assert account.spend == Spend(1200, 10, True, False)
    account.settle(1, MONTH)
    assert account.spend.g_overflowed
    account.enter(2 * MONTH)
    assert account.spend == Spend()


def test_a_clock_that_goes_back_refreshes_nothing() -> None:
    account = Account()
    account.enter(5 * MONTH)
    assert account.take(1, Charge(900, 900), 5 * MONTH)
    account.settle(1, 5 * MONTH)
    account.left[1] = Charge(0, 0)
    for at_ms in (0, MONTH, 5 * MONTH + 1):
        account.enter(at_ms)
        assert account.periods.number == 5


def test_nothing_is_given_back_that_is_not_open() -> None:
    periods = reserved(Periods(30, 0), Charge(5, 5))
    with pytest.raises(RefundTooLarge):
        closed(periods, Charge(6, 5), Charge(0, 0))
    with pytest.raises(RefundTooLarge):
        closed(periods, Charge(5, 5), Charge(0, 6))
    assert charged(periods, Charge(1, 1)).open_g == 5


def test_an_instant_before_the_first_period_is_in_it() -> None:
    periods = Periods(30, 10 * MONTH)
    assert [periods.at(t) for t in (0, 10 * MONTH, 11 * MONTH - 1, 11 * MONTH)] == [0, 0, 0, 1]
    assert periods.begins_ms(2) == 12 * MONTH


def test_k_periods_promise_no_more_than_k_promises_and_no_less_than_their_gaussians() -> None:
    for epsilon in (0.1, 1.0, 3.0, 10.0):
        limit = limit_for(epsilon, 1e-5)
        before = 0.0
        for k in (1, 2, 10, 100):
            most, delta = together(limit, epsilon, 1e-5, k)
            assert delta == pytest.approx(k * 1e-5)
            assert before <= most <= k * epsilon
            before = most
            # what lane G alone admits in all of them, exactly
            assert most >= gaussian_epsilon((k * limit.g_max / CHARGE_UNIT) ** 0.5, delta)
    one = limit_for(1.0, 1e-5)
    assert together(one, 1.0, 1e-5, 10) == pytest.approx((6.22, 1e-4), rel=1e-3)  # docs/privacy.md
    assert together(one, 1.0, 1e-5, 100) == pytest.approx((59.2, 1e-3), rel=1e-3)
    assert closing(Spend(1001, 1), LIMIT) == Spend(1001, 1, True, False)

"""Noise that a second process draws: the same with it and without, each draw once, gone when it is not wanted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privacy import noise_ahead
from privacy.errors import InvalidEvent, RandomnessClosed
from privacy.noise import SecureRandom, TestRng
from privacy.noise_ahead import Drawer
from tests.privacy.noise_processes import LEAST, drawing, wait_until_ready

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("shorter")]

SIZE = LEAST + 12_345
WIDE = 2**30  # so wide that hardly two draws are the same
FEW = 100
"""More pairs of equal draws than two of these vectors have by chance: some forty."""


@pytest.fixture(scope="module")
def shorter() -> Iterator[None]:
    """Vectors that are drawn sooner than those that the process is worth."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("privacy.noise.LEAST", LEAST)
        yield


@pytest.fixture(scope="module")
def drawer(shorter: None) -> Iterator[Drawer]:
    """One process for the tests that leave it as it was; others start it anew."""
    with pytest.MonkeyPatch.context() as patch, drawing(patch, SIZE) as drawer:
        yield drawer


@pytest.fixture(params=[1, 2], ids=["one core", "two cores"])
def cores(request: Any, drawer: Drawer, monkeypatch: pytest.MonkeyPatch) -> int:
    if drawer._process is None:  # a test before ended it in the middle of a vector
        with TestRng(0) as first:
            first.expect(1, SIZE)
        wait_until_ready(drawer)
    monkeypatch.setattr(noise_ahead, "_cores", lambda: request.param)
    count: int = request.param
    return count


def drawn(rng: Any, *sizes: int) -> Any:
    rng.expect(WIDE, sum(sizes))
    return np.concatenate([rng.gaussian_integers(WIDE, size) for size in sizes])


def test_a_second_process_draws_the_same_noise_in_whole_and_in_parts(
    drawer: Drawer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for count in (1, 2):
        monkeypatch.setattr(noise_ahead, "_cores", lambda count=count: count)
        for parts in ((SIZE,), (1, 40_000, 2**15, SIZE - 40_001 - 2**15)):
            orders = drawer._number
            rng = TestRng(3)
            first, second = drawn(rng, *parts), drawn(rng, *parts)
            found.append(np.concatenate([first, second]))
            assert drawer._number == orders + 2 * (count - 1)
    for one in found:
        np.testing.assert_array_equal(one, found[0])
    assert len(np.unique(found[0])) > 2 * SIZE - FEW  # no vector twice, nor a part of one


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cuts=st.lists(st.integers(1, SIZE - 1), max_size=12, unique=True),
    noise_sd=st.sampled_from([1, 2**20, WIDE]),
    seed=st.integers(0, 2**32),
)
def test_however_a_vector_is_asked_for_both_give_the_same(
    cores: int, cuts: list[int], noise_sd: int, seed: int
) -> None:
    ends = [0, *sorted(cuts), SIZE]
    with TestRng(seed) as whole:
        whole.expect(noise_sd, SIZE)
        wanted = whole.gaussian_integers(noise_sd, SIZE)
    with TestRng(seed) as parts:
        parts.expect(noise_sd, SIZE)
        for low, high in pairwise(ends):
            np.testing.assert_array_equal(
                parts.gaussian_integers(noise_sd, high - low), wanted[low:high]
            )


def test_a_second_process_draws_only_where_there_is_a_second_core(
    cores: int, drawer: Drawer
) -> None:
    orders = drawer._number
    with SecureRandom() as rng:
        drawn(rng, SIZE)
    assert drawer._number - orders == cores - 1


def test_a_second_generator_draws_itself_while_the_process_has_another_ones_vector(
    cores: int, drawer: Drawer
) -> None:
    one, other = TestRng(1), TestRng(2)
    orders = drawer._number
    one.expect(WIDE, SIZE)
    second = drawn(other, SIZE)
    first = one.gaussian_integers(WIDE, SIZE)
    assert drawer._number - orders == cores - 1
    np.testing.assert_array_equal(first, drawn(TestRng(1), SIZE))
    np.testing.assert_array_equal(second, drawn(TestRng(2), SIZE))


def test_no_other_draw_is_moved_by_what_is_expected(cores: int) -> None:
    bare, told = TestRng(5), TestRng(5)
    told.expect(WIDE, SIZE)
    for rng in (bare, told):
        rng.found = [  # type: ignore[attr-defined]
            rng.poisson_mask(2**31, 100).tolist(),
            rng.gaussian_integers(7, 20).tolist(),
            rng.below(2**60),
        ]
    assert bare.found == told.found  # type: ignore[attr-defined]
    expected = drawn(TestRng(5), SIZE)
    np.testing.assert_array_equal(told.gaussian_integers(WIDE, SIZE), expected)


def test_what_was_expected_and_never_asked_for_is_never_given(cores: int) -> None:
    rng = TestRng(9)
    left = drawn(TestRng(9), SIZE)
    rng.expect(WIDE, SIZE)
    some = rng.gaussian_integers(WIDE, 10)
    np.testing.assert_array_equal(some, left[:10])
    given = np.concatenate([drawn(rng, SIZE), rng.gaussian_integers(WIDE, SIZE)])
    assert np.isin(given, left).sum() < FEW


def test_who_asks_for_more_than_is_left_gets_other_noise(cores: int) -> None:
    rng = TestRng(2)
    rng.expect(WIDE, LEAST)
    many = rng.gaussian_integers(WIDE, LEAST + 1)
    few = rng.gaussian_integers(WIDE, LEAST)
    assert len(np.unique(np.concatenate([many, few]))) > 2 * LEAST - FEW


def test_the_noise_of_every_vector_has_a_key_of_the_operating_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    true = os.urandom

    def urandom(count: int) -> bytes:
        asked.append(count)
        return true(count)

    monkeypatch.setattr("os.urandom", urandom)
    with SecureRandom() as rng:
        rng.expect(WIDE, LEAST - 1)
        assert asked == [32]
        drawn(rng, SIZE)
        drawn(rng, SIZE)
    assert asked == [32, 32, 32]


def test_a_closed_generator_leaves_no_key_and_no_noise(cores: int, drawer: Drawer) -> None:
    rng = SecureRandom()
    rng.expect(WIDE, SIZE)
    rng.gaussian_integers(WIDE, 10)
    rng.close()
    assert rng._long._sampler is None
    assert rng._long._drawer is None
    assert drawer._holder is None
    assert (drawer._process is None) == (cores == 2)  # it was in the middle of a vector
    for ask in (rng.expect, rng.gaussian_integers):
        with pytest.raises(RandomnessClosed, match="key dropped"):
            ask(WIDE, SIZE)


def test_a_process_that_finished_its_vector_goes_on_and_its_room_is_cleared(
    cores: int, drawer: Drawer
) -> None:
    process, room = drawer._process, drawer._room
    with SecureRandom() as rng:
        drawn(rng, SIZE)
        assert (np.count_nonzero(room) > SIZE - FEW) == (cores == 2)
    assert not room.any()
    assert drawer._process is process
    with TestRng(3) as rng, TestRng(3) as again:
        np.testing.assert_array_equal(drawn(rng, SIZE), drawn(again, SIZE))


def test_a_fork_gets_nothing_of_it_and_may_close(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = SecureRandom()
    rng.expect(WIDE, SIZE)
    here = os.getpid()
    with monkeypatch.context() as fork:
        fork.setattr(os, "getpid", lambda: here + 1)
        for ask in (rng.expect, rng.gaussian_integers):
            with pytest.raises(RandomnessClosed, match="would share their noise"):
                ask(WIDE, SIZE)
    rng.close()
    with SecureRandom() as other:
        other.expect(WIDE, SIZE)
        child = os.fork()
        if not child:
            other.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert len(np.unique(other.gaussian_integers(WIDE, SIZE))) > SIZE - FEW


def test_a_draw_that_fails_is_raised_where_the_noise_is_asked_for_and_nothing_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(noise_ahead, "_cores", lambda: 1)
    rng = TestRng(4)
    left = drawn(TestRng(4), SIZE)

    class Broken(noise_ahead.Sampler):
        def fill(self, result: Any) -> None:
            if len(result) < 2**15:
                raise MemoryError("no room for noise")
            super().fill(result)

    with monkeypatch.context() as broken:
        broken.setattr(noise_ahead, "Sampler", Broken)
        rng.expect(WIDE, SIZE)
        with pytest.raises(MemoryError, match="no room for noise"):
            rng.gaussian_integers(WIDE, SIZE)
    after = rng.gaussian_integers(WIDE, SIZE)
    assert np.isin(after, left).sum() < FEW


def test_an_expectation_out_of_range_is_refused_by_name() -> None:
    rng = TestRng(1)
    with pytest.raises(InvalidEvent, match="noise_sd"):
        rng.expect(0, SIZE)
    with pytest.raises(InvalidEvent, match="size"):
        rng.expect(WIDE, -1)

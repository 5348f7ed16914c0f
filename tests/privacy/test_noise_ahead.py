"""Noise that a second thread draws: the same with it and without, each draw once, gone when it is not wanted."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import pytest

from privacy import noise_ahead
from privacy.errors import InvalidEvent, RandomnessClosed
from privacy.noise import SecureRandom, TestRng
from privacy.noise_ahead import LEAST

SIZE = LEAST + 12_345
WIDE = 2**32  # so wide that hardly two draws are the same


@pytest.fixture(params=[1, 2], ids=["one core", "two cores"])
def cores(request: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(noise_ahead, "_cores", lambda: request.param)
    count: int = request.param
    return count


def drawn(rng: Any, *sizes: int) -> Any:
    rng.expect(WIDE, sum(sizes))
    return np.concatenate([rng.gaussian_integers(WIDE, size) for size in sizes])


def test_a_second_core_draws_the_same_noise_in_whole_and_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    for count in (1, 2):
        monkeypatch.setattr(noise_ahead, "_cores", lambda count=count: count)
        for parts in ((SIZE,), (1, 40_000, 2**15, SIZE - 40_001 - 2**15)):
            rng = TestRng(3)
            first, second = drawn(rng, *parts), drawn(rng, *parts)
            found.append(np.concatenate([first, second]))
    for one in found:
        np.testing.assert_array_equal(one, found[0])
    assert len(np.unique(found[0])) > 2 * SIZE - 10  # no vector twice, nor a part of one


def test_a_second_thread_draws_only_where_there_is_a_second_core(cores: int) -> None:
    with SecureRandom() as rng:
        rng.expect(WIDE, 40 * LEAST)
        assert any(one.name == "noise ahead" for one in threading.enumerate()) == (cores == 2)


def test_without_a_thread_to_be_had_the_noise_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on processes counts threads too."""
    monkeypatch.setattr(noise_ahead, "_cores", lambda: 2)
    wanted = drawn(TestRng(4), 20_000, SIZE)

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with TestRng(4) as rng:
        np.testing.assert_array_equal(drawn(rng, 20_000, SIZE), wanted)


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
    assert np.isin(given, left).sum() < 10


def test_who_asks_for_more_than_is_left_gets_other_noise(cores: int) -> None:
    rng = TestRng(2)
    rng.expect(WIDE, LEAST)
    many = rng.gaussian_integers(WIDE, LEAST + 1)
    few = rng.gaussian_integers(WIDE, LEAST)
    assert len(np.unique(np.concatenate([many, few]))) > 2 * LEAST - 10


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


def test_a_closed_generator_leaves_no_thread_no_key_and_no_noise(cores: int) -> None:
    rng = SecureRandom()
    rng.expect(WIDE, 40 * LEAST)
    held = rng._long
    rng.close()
    assert not any(one.name == "noise ahead" for one in threading.enumerate())
    assert held._sampler is None
    assert not len(rng._long._room)
    for ask in (rng.expect, rng.gaussian_integers):
        with pytest.raises(RandomnessClosed, match="key dropped"):
            ask(WIDE, SIZE)


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
        assert len(np.unique(other.gaussian_integers(WIDE, SIZE))) > SIZE - 10


def test_a_draw_that_fails_is_raised_where_the_noise_is_asked_for_and_nothing_is_given(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    assert np.isin(after, left).sum() < 10


def test_an_expectation_out_of_range_is_refused_by_name() -> None:
    rng = TestRng(1)
    with pytest.raises(InvalidEvent, match="noise_sd"):
        rng.expect(0, SIZE)
    with pytest.raises(InvalidEvent, match="size"):
        rng.expect(WIDE, -1)

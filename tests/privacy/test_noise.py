from __future__ import annotations

import copy
import os
import pickle
from typing import Any

import numpy as np
import pytest

from privacy.errors import InvalidEvent, InvalidParameter, RandomnessClosed
from privacy.events import FULL_BATCH
from privacy.keystream import keystream
from privacy.noise import Randomness, SecureRandom, TestRng
from privacy.selfaudit.known_answers import AES_CIPHER, AES_COUNTER, AES_KEY, AES_PLAIN

SOURCES: list[Any] = [SecureRandom, lambda: TestRng(1)]


def test_the_key_stream_is_aes_256_in_counter_mode() -> None:
    stream = keystream(bytes.fromhex(AES_KEY), bytes.fromhex(AES_COUNTER))
    assert stream.update(bytes.fromhex(AES_PLAIN)).hex() == AES_CIPHER


def test_the_key_comes_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def urandom(count: int) -> bytes:
        asked.append(count)
        return bytes(count)

    monkeypatch.setattr("os.urandom", urandom)
    SecureRandom()
    assert asked == [32]


def test_two_secure_generators_share_nothing() -> None:
    one, other = (SecureRandom().gaussian_integers(2**20, 1000) for _ in range(2))
    assert not np.array_equal(one, other)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.2


def test_only_the_production_type_claims_secrecy() -> None:
    real: Randomness = SecureRandom()
    test: Randomness = TestRng(1)
    assert real.production is True
    assert test.production is False
    with pytest.raises(TypeError):
        SecureRandom(seed=1)  # type: ignore[call-arg]


DRAWN = [-109, -527, -1104, -1031, 888, -1084]


def test_a_seed_repeats_its_draws_on_every_machine() -> None:
    first = TestRng(42)
    assert first.gaussian_integers(1000, 6).tolist() == DRAWN
    assert TestRng(42).gaussian_integers(1000, 6).tolist() == DRAWN
    assert first.gaussian_integers(1000, 6).tolist() != DRAWN
    assert TestRng(43).gaussian_integers(1000, 6).tolist() != DRAWN


@pytest.mark.parametrize("make", SOURCES)
def test_a_closed_generator_refuses_every_draw(make: Any) -> None:
    with make() as rng:
        rng.below(5)
    for draw, arguments in (
        (rng.below, (5,)),
        (rng.gaussian_integers, (1, 1)),
        (rng.poisson_mask, (1, 1)),
    ):
        with pytest.raises(RandomnessClosed, match="key dropped; open a new one"):
            draw(*arguments)
    rng.close()


def test_what_is_drawn_ahead_is_the_same_noise_and_never_given_twice() -> None:
    whole = TestRng(6).gaussian_integers(1000, 180_000)
    rng = TestRng(6)
    sizes = [5000, 3000, 1, 0, 8192, 8193, 7000, 9000, 2000]
    pieces = np.concatenate([rng.gaussian_integers(1000, size) for size in sizes])
    assert len(pieces) == sum(sizes)
    spent = sorted(whole[: len(pieces) + 2**17].tolist())
    found, counts = np.unique(pieces, return_counts=True)
    most = dict(zip(*np.unique(spent, return_counts=True), strict=True))
    assert all(count <= most.get(value, 0) for value, count in zip(found, counts, strict=True))


def test_no_draw_is_given_twice_in_the_memory_that_draws_share() -> None:
    rng = TestRng(8)  # of a deviation too wide for two draws to be the same
    given = np.concatenate([rng.gaussian_integers(2**34, 1 + 997 * i % 8192) for i in range(16)])
    assert len(np.unique(given)) == len(given) > 2**15


@pytest.mark.parametrize("make", SOURCES)
def test_a_forked_process_is_refused_its_copy_of_the_noise(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = make()
    for _ in range(3):  # some are drawn ahead
        rng.gaussian_integers(2**20, 10)
    here = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: here + 1)
    for draw, arguments in (
        (rng.below, (5,)),
        (rng.gaussian_integers, (2**20, 10)),
        (rng.poisson_mask, (1, 1)),
    ):
        with pytest.raises(RandomnessClosed, match="would share their noise; open a new one"):
            draw(*arguments)


def test_noise_drawn_ahead_serves_its_own_deviation_and_goes_with_the_key() -> None:
    rng = TestRng(7)
    for _ in range(3):
        rng.gaussian_integers(1, 10)
    assert np.abs(rng.gaussian_integers(2**30, 10)).min() > 2**10
    assert np.abs(rng.gaussian_integers(1, 1000)).max() < 8
    drawn = rng.gaussian_integers(1, 10)
    drawn[:] = 99
    assert np.abs(rng.gaussian_integers(1, 1000)).max() < 8
    rng.close()
    with pytest.raises(RandomnessClosed, match="key dropped"):
        rng.gaussian_integers(1, 10)


@pytest.mark.parametrize("make", SOURCES)
@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_generator_cannot_be_copied(make: Any, copier: Any) -> None:
    with pytest.raises(TypeError, match="two copies would share their noise"):
        copier(make())


def test_full_batch_takes_everybody_and_the_smallest_threshold_almost_nobody() -> None:
    rng = TestRng(2)
    assert rng.poisson_mask(FULL_BATCH, 1000).all()
    assert not rng.poisson_mask(1, 1000).any()
    assert rng.poisson_mask(FULL_BATCH, 0).shape == (0,)


def test_poisson_batches_have_binomial_sizes() -> None:
    rng = TestRng(3)
    sizes = np.array([rng.poisson_mask(FULL_BATCH // 5, 303).sum() for _ in range(2000)])
    assert abs(sizes.mean() - 60.6) < 4 * np.sqrt(303 * 0.16 / 2000)
    assert abs(sizes.var() / (303 * 0.16) - 1) < 4 * np.sqrt(2 / 2000)


def test_patients_are_taken_independently_of_each_other() -> None:
    masks = np.array([TestRng(s).poisson_mask(FULL_BATCH // 2, 40) for s in range(800)])
    correlation = np.corrcoef(masks.T.astype(float))
    assert np.abs(correlation - np.eye(40)).max() < 5 / np.sqrt(800)


def test_integers_below_a_bound_are_uniform() -> None:
    rng = TestRng(4)
    counts = np.bincount([rng.below(7) for _ in range(7000)], minlength=7)
    assert counts.shape == (7,)
    assert ((counts - 1000) ** 2 / 1000).sum() < 22.5
    assert rng.below(1) == 0
    assert 0 <= rng.below(2**64) < 2**64


@pytest.mark.parametrize("bound", [0, -1, 2**64 + 1, 1.0, True])
def test_an_impossible_bound_is_refused(bound: Any) -> None:
    with pytest.raises(InvalidParameter, match="bound ="):
        TestRng(1).below(bound)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda rng: rng.gaussian_integers(0, 1), "noise_sd"),
        (lambda rng: rng.gaussian_integers(1.0, 1), "noise_sd"),
        (lambda rng: rng.gaussian_integers(2**53, 1), "noise_sd"),
        (lambda rng: rng.gaussian_integers(1, -1), "size"),
        (lambda rng: rng.poisson_mask(0, 1), "sampling"),
        (lambda rng: rng.poisson_mask(2**32 + 1, 1), "sampling"),
        (lambda rng: rng.poisson_mask(1, True), "size"),
    ],
)
def test_a_draw_out_of_range_is_refused_by_name(call: Any, field: str) -> None:
    with pytest.raises(InvalidEvent, match=f"event field '{field}'"):
        call(SecureRandom())


@pytest.mark.parametrize("source", SOURCES)
def test_a_draw_ahead_that_fails_repeats_none_of_what_was_left(
    source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = source()
    for _ in range(2):
        rng.gaussian_integers(2**40, 1)
    left = len(rng._ahead)
    expected = rng._ahead.copy()

    def no_memory(result: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as broken:
        broken.setattr(rng._sampler, "fill", no_memory)
        with pytest.raises(MemoryError):
            rng.gaussian_integers(2**40, left + 1)
    assert np.array_equal(rng.gaussian_integers(2**40, left), expected)

"""T0: right answers are right, and each kind of wrong one is seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from privacy.noise import SecureRandom, TestRng
from privacy.selfaudit import known_answers
from privacy.selfaudit.known_answers import accountant, sampler


def wrong(answers: Any) -> list[str]:
    return [answer.question for answer in answers if not answer.right]


def test_every_known_answer_is_given() -> None:
    answers = known_answers.known_answers(SecureRandom())
    assert len(answers) > 50
    assert {answer.part for answer in answers} == {"accountant", "sampler"}
    assert wrong(answers) == []


def test_an_accountant_that_is_too_generous_by_a_thousandth_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    true = known_answers.gaussian_delta
    monkeypatch.setattr(known_answers, "gaussian_delta", lambda mu, e: true(mu, e) * 0.999)
    assert len(wrong(accountant())) == len(known_answers.DELTAS)


def test_a_step_that_is_charged_for_less_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    true = known_answers.rdp_poisson_gaussian
    monkeypatch.setattr(
        known_answers, "rdp_poisson_gaussian", lambda *of: true(*of) * (1 - 1e-9) - 1e-13
    )
    assert len(wrong(accountant())) == len(known_answers.RENYI)


class Short(TestRng):
    """Noise that is 2 % too small."""

    def gaussian_integers(self, noise_sd: int, size: int) -> npt.NDArray[np.int64]:
        drawn = super().gaussian_integers(noise_sd * 50, size)
        return np.rint(drawn * 0.98 / 50).astype(np.int64)


class Greedy(TestRng):
    """A sampler that takes 2 % fewer patients than it says."""

    def poisson_mask(self, sampling: int, size: int) -> npt.NDArray[np.bool_]:
        return super().poisson_mask(sampling * 49 // 50, size)


@pytest.mark.parametrize(
    ("rng", "says"), [(Short(1), "draws of sd"), (Greedy(1), "threshold of 1/5")]
)
def test_a_generator_that_is_two_percent_wrong_is_seen(rng: TestRng, says: str) -> None:
    found = wrong(sampler(rng))
    assert found
    assert all(says in one for one in found)

"""How rounds are counted for people: the spec's rounds train, and what measures comes after them."""

from __future__ import annotations

import pytest

from ledger.experiment.round_words import round_name, round_phrase, round_words, served_words


@pytest.mark.parametrize(
    ("number", "name", "phrase", "words"),
    [
        (1, "1", "round 1", "1/10"),
        (10, "10", "round 10", "10/10"),
        (11, "evaluation", "the evaluation", "10/10, evaluation"),
        (12, "baseline", "the baseline", "10/10, baseline"),
    ],
)
def test_measuring_rounds_are_named_and_not_counted_as_training(
    number: int, name: str, phrase: str, words: str
) -> None:
    assert round_name(number, 10) == name
    assert round_phrase(number, 10) == phrase
    assert round_words(number, 10) == words


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([], "0/10"),
        ([3, 1, 1], "2/10"),
        (range(1, 13), "10/10, evaluation, baseline"),
        ([4, 12], "1/10, baseline"),
    ],
)
def test_the_rounds_served_are_counted_as_the_spec_counts_them(
    numbers: list[int], words: str
) -> None:
    assert served_words(numbers, 10) == words

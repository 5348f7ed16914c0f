from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import pytest

from privacy.errors import InvalidEvent
from privacy.events import CHARGE_UNIT, FULL_BATCH, GRID, GRID_BITS, Gaussian


def test_the_units_are_powers_of_two() -> None:
    assert (GRID_BITS, GRID, CHARGE_UNIT, FULL_BATCH) == (20, 2**20, 2**40, 2**32)


def test_an_event_reads_as_exact_fractions() -> None:
    event = Gaussian(sensitivity=3 * GRID, noise_sd=12 * GRID, steps=20, sampling=FULL_BATCH // 5)
    assert event.q == Fraction(FULL_BATCH // 5, FULL_BATCH)
    assert event.noise_multiplier == 4
    assert event.mu2_per_step == Fraction(1, 16)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sensitivity", 0),
        ("sensitivity", 2**53),
        ("sensitivity", 1.0),
        ("sensitivity", True),
        ("noise_sd", 0),
        ("noise_sd", -1),
        ("noise_sd", 2**53),
        ("noise_sd", float("nan")),
        ("steps", -1),
        ("steps", 2**31),
        ("steps", False),
        ("steps", "1"),
        ("sampling", 0),
        ("sampling", 2**32 + 1),
        ("sampling", None),
    ],
)
def test_a_field_out_of_range_or_type_is_named_in_the_refusal(field: str, value: Any) -> None:
    good = {"sensitivity": GRID, "noise_sd": GRID, "steps": 1, "sampling": FULL_BATCH}
    with pytest.raises(InvalidEvent, match=f"event field '{field}'.*an integer in") as caught:
        Gaussian(**{**good, field: value})
    assert caught.value.field == field
    assert caught.value.value is value or caught.value.value == value


def test_a_refusal_does_not_echo_a_long_value() -> None:
    with pytest.raises(InvalidEvent) as caught:
        Gaussian(sensitivity="x" * 10_000, noise_sd=1)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 250


def test_an_event_cannot_be_changed() -> None:
    event = Gaussian(GRID, GRID)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.noise_sd = 1  # type: ignore[misc]

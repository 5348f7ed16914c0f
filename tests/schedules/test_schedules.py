"""A small run of the schedules, and proof that the run would notice."""

from __future__ import annotations

import random

import pytest

from tests.schedules import world
from tests.schedules.run import main, run


def test_no_schedule_releases_more_than_was_promised_or_charged() -> None:
    counts, failed = run(range(400), steps=40, seed=20)
    assert failed == []
    assert counts["over_admitted"] == counts["under_charged"] == 0
    assert counts["vectors"] > 200, "and something happened"
    assert counts["restores"] > 100


def test_no_period_of_a_promise_that_renews_releases_more_than_was_promised() -> None:
    counts, failed = run(range(400), steps=80, seed=20, days=30)
    assert failed == []
    assert counts["over_admitted"] == counts["under_charged"] == 0
    assert counts["vectors"] > 100, "and something happened"
    assert counts["periods"] > 80
    assert counts["restores"] > 100


def test_a_node_that_forgets_to_account_for_earlier_lives_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(world, "account_for_earlier_lives", lambda *_: None)
    chunks = (run(range(start, start + 100), steps=40, seed=1) for start in range(0, 10_000, 100))
    counts, failed = next(found for found in chunks if found[1])
    assert counts["under_charged"] > 0
    assert "are charged after" in failed[0] or "but" in failed[0]


def test_a_schedule_repeats_from_its_number() -> None:
    logs = []
    for _ in range(2):
        one = world.World(random.Random("20/7"))
        one.play(40)
        logs.append([(author, op) for author, op in one.log])
    assert logs[0] == logs[1]


def test_the_command_counts_and_ends_with_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--schedules", "20", "--steps", "20", "--of", "2", "--part", "1"]) == 0
    assert '"schedules": 10' in capsys.readouterr().out

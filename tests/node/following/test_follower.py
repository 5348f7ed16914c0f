"""How often a node asks: at once after news, and not in a loop where there is none."""

from __future__ import annotations

import threading
import time

import pytest

from ledger.exchange.messages import Followed
from node.following import follower
from node.following.follower import Follower, News, NoNews, Position
from tests.patience import PATIENCE_S


class Hasty:
    """A coordinator that holds no question open."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def follow(self, size: int, final: int, wait_s: float) -> Followed:
        self.asked.append(size)
        return Followed((), None, ())


def listened(sizes: list[int], enough: int) -> list[int]:
    """What was asked by a node that comes to these sizes and stays at the last: ``enough`` and a moment more."""
    hasty = Hasty()
    left = iter(sizes)
    done = threading.Event()

    def go_on(news: News | NoNews | None = None) -> None:
        size = next(left, sizes[-1])
        asking.go_on(Position(size, 0, None, 30.0))
        if len(hasty.asked) >= enough:
            done.set()

    asking = Follower(hasty, go_on)  # type: ignore[arg-type]
    asking.start()
    go_on()
    assert done.wait(PATIENCE_S)
    time.sleep(0.1)
    asking.close()
    return hasty.asked


@pytest.fixture(autouse=True)
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer is an early one, however slow the machine, and the pause after it is long."""
    monkeypatch.setattr(follower, "_EARLY_S", 3600.0)
    monkeypatch.setattr(follower, "_EARLY_PAUSE_S", 3600.0)


def test_a_coordinator_that_answers_at_once_without_news_is_not_asked_in_a_loop() -> None:
    assert listened([7], 1) == [7]


def test_after_news_it_is_asked_at_once() -> None:
    assert listened([1, 2, 3, 4], 4) == [1, 2, 3, 4]


def test_it_is_asked_again_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "_EARLY_PAUSE_S", 0.01)
    began_s = time.monotonic()
    asked = listened([7], 4)
    assert len(asked) > 3
    assert len(asked) < 10 + (time.monotonic() - began_s) / 0.01

"""Anything in any order, briefly; ``python -m tests.stateful.run`` is the long one."""

from __future__ import annotations

import itertools
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.stateful.actors import LOSSES, Loss
from tests.stateful.disks import BREAKS, Break
from tests.stateful.run import run
from tests.stateful.world import HOSPITALS, World

SOMEBODY = st.sampled_from(HOSPITALS)
CALLS = st.sampled_from((None, None, None, *LOSSES))


class Anything(RuleBasedStateMachine):
    """A `World` in hypothesis' hands, which looks for the shortest story that breaks a promise."""

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="consilium-world-")
        self.seed = seed
        self.world = World(Path(self.folder.name) / "world", random.Random(seed))

    @rule(name=SOMEBODY, loss=CALLS)
    def say(self, name: str, loss: Loss | None) -> None:
        self.world.say(name, loss)

    @rule(name=SOMEBODY, loss=CALLS)
    def rotate(self, name: str, loss: Loss | None) -> None:
        self.world.rotate(name, loss)

    @rule(name=SOMEBODY, upto=st.none() | st.integers(0, 3))
    def follow(self, name: str, upto: int | None) -> None:
        self.world.follow(name, upto)

    @rule(name=SOMEBODY, loss=CALLS)
    def cosign(self, name: str, loss: Loss | None) -> None:
        self.world.cosign(name, loss)

    @rule(
        name=SOMEBODY,
        kind=st.sampled_from(("append", "put_final", "set_witnessed")),
        how=st.sampled_from(BREAKS),
    )
    def break_a_node(self, name: str, kind: str, how: Break) -> None:
        self.world.break_node(name, kind, how)

    @rule(name=SOMEBODY, kind=st.sampled_from(("append", "put_final")), how=st.sampled_from(BREAKS))
    def break_the_coordinator(self, name: str, kind: str, how: Break) -> None:
        self.world.break_coordinator(name, kind, how)

    @rule(name=SOMEBODY)
    def crash_a_node(self, name: str) -> None:
        self.world.crash_node(name)

    @rule(power=st.booleans())
    def crash_the_coordinator(self, power: bool) -> None:
        self.world.crash_coordinator(power=power)

    @rule()
    def back_up(self) -> None:
        self.world.back_up()

    @rule(keep_head=st.booleans())
    def roll_back(self, keep_head: bool) -> None:
        self.world.roll_back(keep_head)

    @rule()
    def fork(self) -> None:
        """The end of this world, and the beginning of the next one."""
        self.world.verify()
        self.world.fork()
        self.world.close()
        self.world = World(Path(self.folder.name) / "world", random.Random(self.seed))

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.world.verify()
        finally:
            self.world.close()
            self.folder.cleanup()


TestAnything = Anything.TestCase
TestAnything.settings = settings(
    max_examples=5,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def test_two_worlds_of_random_steps_keep_every_promise() -> None:
    happened = run(240, seed=7, steps_per_world=120)
    assert happened["steps"] == 240
    assert happened["fork"] == 1
    assert happened["acknowledged"] > 40


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world", random.Random(1))


def test_a_coordinator_that_forgets_an_acknowledged_entry_is_found(world: World) -> None:
    world.say("basel")
    world.hub.store.append = lambda *_: 0  # type: ignore[method-assign]
    world.say("bern")
    (world.hub.directory / "head.note").unlink()
    world.crash_coordinator()
    with pytest.raises(AssertionError, match="two roots of size 13 were signed"):
        world.say("chur")
    world.close()


def test_a_node_that_says_a_thing_twice_is_found(world: World) -> None:
    world.say("basel")
    world.follow("basel")
    world.nodes["basel"].said = 0
    world.say("basel")
    with pytest.raises(AssertionError, match="did not say each thing once"):
        world.verify()
    world.close()


def test_every_kind_of_fork_and_rollback_is_found_with_evidence(tmp_path: Path) -> None:
    for number, keep_head in enumerate((True, False)):
        world = World(tmp_path / str(number), random.Random(number))
        world.back_up()
        for name in HOSPITALS:
            world.say(name)
            world.follow(name)
        assert world.roll_back(keep_head)
        world.verify()
        world.fork()
        found = itertools.chain(*((k,) * n for k, n in world.happened.items()))
        where = "at the start" if keep_head else "shown by a member"
        assert sum(where in what for what in found) == 1
        world.close()

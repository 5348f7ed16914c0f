"""Random things in random order to three nodes and a coordinator; see ``world``.

::

    python -m tests.stateful.run --steps 10000 --seed 1

A world lasts ``--steps-per-world`` steps, is verified from time to time and in the end, and every
second one ends with a fork. A failure names seed, world and step; ``--world`` runs that one alone.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import structlog

from tests.stateful.actors import LOSSES
from tests.stateful.disks import BREAKS
from tests.stateful.world import HOSPITALS, World

_VERIFY_EVERY = 100

Step = Callable[[World, random.Random], object]

STEPS: dict[str, tuple[int, Step]] = {
    "say": (30, lambda w, c: w.say(c.choice(HOSPITALS))),
    "say, and the call is lost": (8, lambda w, c: w.say(c.choice(HOSPITALS), c.choice(LOSSES))),
    "coordinator says": (5, lambda w, c: w.coordinator_says()),
    "follow": (20, lambda w, c: w.follow(c.choice(HOSPITALS))),
    "follow to a checkpoint on the way": (
        6,
        lambda w, c: w.follow(c.choice(HOSPITALS), c.randrange(4)),
    ),
    "cosign": (12, lambda w, c: w.cosign(c.choice(HOSPITALS))),
    "cosign, and the call is lost": (
        2,
        lambda w, c: w.cosign(c.choice(HOSPITALS), c.choice(LOSSES)),
    ),
    "rotate keys": (1, lambda w, c: w.rotate(c.choice(HOSPITALS))),
    "rotate keys, and the call is lost": (
        1,
        lambda w, c: w.rotate(c.choice(HOSPITALS), c.choice(LOSSES)),
    ),
    "a node's write breaks": (
        4,
        lambda w, c: w.break_node(
            c.choice(HOSPITALS),
            c.choice(("append", "put_final", "set_witnessed")),
            c.choice(BREAKS),
        ),
    ),
    "the coordinator's write breaks": (
        4,
        lambda w, c: w.break_coordinator(
            c.choice(HOSPITALS), c.choice(("append", "put_final")), c.choice(BREAKS)
        ),
    ),
    "a node dies": (4, lambda w, c: w.crash_node(c.choice(HOSPITALS))),
    "the coordinator dies": (3, lambda w, c: w.crash_coordinator()),
    "the coordinator's power fails": (1, lambda w, c: w.crash_coordinator(power=True)),
    "everybody restarts": (1, lambda w, c: w.restart()),
    "back up": (1, lambda w, c: w.back_up()),
    "roll back": (2, lambda w, c: w.roll_back(c.random() < 0.5)),
}
"""What may happen, and how often."""


def live(world: World, chance: random.Random, steps: int) -> None:
    """So many steps, each followed by the checks."""
    names = list(STEPS)
    weights = [STEPS[name][0] for name in names]
    for number in range(1, steps + 1):
        (name,) = chance.choices(names, weights)
        try:
            STEPS[name][1](world, chance)
            world.check()
            if number % _VERIFY_EVERY == 0:
                world.verify()
        except BaseException as error:
            error.add_note(f"at step {number} of this world: {name}")
            raise
        world.happened[name] += 1
    world.verify()


def run(
    steps: int, *, seed: int, steps_per_world: int = 500, only: int | None = None
) -> Counter[str]:
    """Live through as many worlds as it takes; returns how often everything happened.

    Args:
        steps: in all worlds together.
        seed: decides everything.
        steps_per_world: after which a world is verified and left.
        only: the number of the one world to live in, from 1.
    """
    happened: Counter[str] = Counter()
    done = number = 0
    while done < steps:
        number += 1
        length = min(steps_per_world, steps - done)
        done += length
        if only not in (None, number):
            continue
        chance = random.Random(f"{seed}/{number}")
        with tempfile.TemporaryDirectory(prefix="consilium-world-") as root:
            world = World(Path(root) / "world", chance)
            try:
                live(world, chance, length)
                if number % 2 == 0:
                    world.fork()
            except BaseException as error:
                error.add_note(f"world {number} of seed {seed}")
                raise
            finally:
                happened += world.happened
                happened["entries"] += world.hub.sequencer.view.size
                happened["acknowledged"] += len(world.told.acknowledged)
                world.close()
        happened["worlds"] += 1
        happened["steps"] += length
    return happened


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.stateful.run", description=str(__doc__).splitlines()[0]
    )
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps-per-world", type=int, default=500)
    parser.add_argument("--world", type=int, help="live in this one alone, to look at a failure")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    began = time.monotonic()
    happened = run(
        given.steps,
        seed=given.seed,
        steps_per_world=given.steps_per_world,
        only=given.world,
    )
    seconds = round(time.monotonic() - began)
    print(json.dumps({"seed": given.seed, **dict(happened), "seconds": seconds}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

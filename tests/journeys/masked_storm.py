"""SIGKILL at random instants of a node in masked rounds; what left is judged by the log.

::

    python -m tests.journeys.masked_storm --kills 100

As ``node_storm``, with four hospitals and masks on every vector: the node's secrets, its masked vector and
its shares have to survive, or the attempt goes on without it. In the end:

- no attempt has two different masked vectors of the node, at the socket or in the log;
- no round has two noisy vectors under its masks, but where the node revealed shares: an attempt that fails before
  costs nothing;
- steps charged are at least the noisy vectors that left;
- every sum opens from the shares in the log, as an auditor recomputes it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import structlog

from audit.verification.verify import verify_at
from ledger.entries.entry import parse_entry
from ledger.entries.operations.masking import MaskingAdvertised, MaskingRevealed
from ledger.entries.operations.rounds import RoundAggregated, UpdateSubmitted
from node.service.settings import TEST_FEDERATION
from tests.federation_log import HOSPITALS, node_of
from tests.journeys.node_storm import HOSPITAL, NodeStorm, Scene
from tests.journeys.nursery import Nursery
from tests.node.town import Town

WORK_S = 1.2
"""How long a node may work at most before it is killed."""


def storm(
    folder: Path, kills: int, *, seed: int, rounds: int = 40, round_timeout_s: int = 4
) -> NodeStorm:
    """Kill the node so many times, let it finish, and judge the log.

    The shorter the rounds, the more of them end without the dead node, or fail where the machine is slow.
    """
    told, chance = NodeStorm(), random.Random(seed)
    output = folder / "processes.log"
    os.environ[TEST_FEDERATION] = "1"
    with (
        Nursery("tests.journeys.programs:node", output) as nursery,
        Town(folder, HOSPITALS) as town,
    ):
        masks = {"quorum": 3, "round_timeout_s": round_timeout_s, "secure_aggregation": True}
        scene = Scene(town, output, rounds, **masks)
        while told.counts["kills"] < kills and not told.faults:
            scene.keep_busy()
            child = scene.start(nursery)
            if scene.serves(child):
                time.sleep(chance.uniform(0.0, WORK_S))
            status = child.kill()
            told.counts["kills"] += status == -signal.SIGKILL
            if status != -signal.SIGKILL:
                told.faults.append(f"a node ended by itself with status {status}")
        child = scene.start(nursery)
        told.faults += scene.finish()
        scene.serves(child)  # before that a signal ends it at once, as any process
        if (status := child.end(signal.SIGTERM)) != 0:
            told.faults.append(f"the last node ended with status {status}")
        _judge(town, scene, told)
    home = folder / "hub"
    told.faults += [
        f"step {check.step}: {check.detail}"
        for report in verify_at(str(home)).reports
        for check in report.refuted
    ]
    return told


def _judge(town: Town, scene: Scene, told: NodeStorm) -> None:
    """Compare the socket, the node's entries and the charges."""
    ada = town.people["ada"]
    ada.follow()
    ops = [
        (body.author, body.op)
        for body in (parse_entry(r.body, r.signature).body for r in ada.replica.store.rows())
    ]
    mine = [op for author, op in ops if author == node_of(HOSPITAL)]
    contexts = {op.context for op in mine if isinstance(op, MaskingAdvertised)}
    updates = [op for op in mine if isinstance(op, UpdateSubmitted)]
    by_context, by_round = defaultdict(set), defaultdict(set)
    for op in updates:
        assert op.masked is not None
        by_context[op.masked.context].add(op.update.sha256)
        by_round[(op.experiment, op.round)].add(op.masked.vector)
    if any(len(found) > 1 for found in by_context.values()):
        told.faults.append("an attempt has two masked vectors in the log")
    opened = Counter((op.experiment, op.round) for op in mine if isinstance(op, MaskingRevealed))
    if any(len(found) > 1 + opened[at] for at, found in by_round.items()):
        told.faults.append(
            "a round has a second noisy vector in the log, and no shares were revealed"
        )
    whole, _ = scene.tap.releases()
    if len(set(whole)) > len(contexts):
        told.faults.append(f"{len(set(whole))} masked vectors left in {len(contexts)} attempts")
    vectors: Counter[str] = Counter()
    for (experiment, _), found in by_round.items():
        vectors[experiment] += len(found)
    for experiment, count in vectors.items():
        held = town.experiment(experiment).reservations[f"{HOSPITAL}-heart"]
        told.counts["charged"] += sum(held.used.values())
        if count > sum(held.used.values()):
            told.faults.append(f"{count} vectors left, {dict(held.used)} steps are charged")
    told.counts["attempts"], told.counts["left"] = len(contexts), len(set(whole))
    told.counts["rounds"] = len(by_round)
    told.counts["sums"] = sum(isinstance(op, RoundAggregated) for _, op in ops)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.journeys.masked_storm", description=str(__doc__).splitlines()[0]
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="consilium-storm-") as folder:
        told = storm(Path(folder), given.kills, seed=given.seed)
        if told.faults:
            print((Path(folder) / "processes.log").read_text()[-4000:], file=sys.stderr)
    counts = dict(told.counts) | {"seconds": round(time.monotonic() - began)}
    print(json.dumps({"seed": given.seed, **counts, "faults": told.faults}))
    return 1 if told.faults else 0


if __name__ == "__main__":
    sys.exit(main())

"""SIGKILL at random instants of a real node during rounds; its releases counted at the socket.

::

    python -m tests.journeys.node_storm --kills 1000

A hospital's node runs as a process, over its real files, against a coordinator on loopback; between
the two sits a tap (``tap``). The training is noise alone, so that rounds follow one another as fast as
the ledger lets them, and no round goes on without this node; everything around it (reservation, intent,
outbox, upload, settlement, the pen) is what a hospital runs. The node is killed at random instants, in
its start too; after 200 deaths a new federation is founded, so that starts stay short. In the end:

- every vector that left is charged: for each dataset the steps whose intents are in the register, and
  the steps that the log counts, are at least those of the vectors that left at the socket;
- no death costs more than one round: what is charged and did not leave, counted after every kill;
- no round has two vectors;
- the node's chain is without a gap or a double, and its copy verifies.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import structlog

from ledger.entries.entry import frame_leaf, parse_leaf
from ledger.entries.operations.rounds import UpdateSubmitted
from ledger.errors import LedgerError
from ledger.exchange.home import MEMBER, MemberHome
from ledger.experiment.privacy_spec import Privacy
from ledger.experiment.tensors import UPDATE_MAGIC, VALUE_BYTES
from ledger.formats.strict import canonical
from node.register.private import PRIVATE
from node.service.settings import SETTINGS_FILE, TEST_FEDERATION
from tests.federation_log import node_of
from tests.journeys.kill_storm import faults_of
from tests.journeys.nursery import Child, Nursery
from tests.journeys.tap import Tap
from tests.node.town import PASSPHRASE, Town, small_spec

HOSPITAL = "basel"
EARLY = 0.3
"""Share of kills that fall into the start."""
WORK_S = (0.3, 5.0)
"""How long a node may work at most before it is killed: longer while nothing leaves."""
EACH_EPSILON = "0.05"
A_TOWN = 200
"""Most deaths in one federation."""
_TIMEOUT_S = 120.0


@dataclass
class NodeStorm:
    """What happened.

    Attributes:
        counts: ``kills``, of them ``in_start``; ``experiments``, ``rounds`` with a vector in the log,
            vectors that ``left`` at the socket, in part only (``left_in_part``), steps ``charged`` in
            the log and ``intended`` in the register.
        over: after each kill, rounds with an intent whose vector has not left.
        faults: in words; must stay empty.
    """

    counts: Counter[str] = field(default_factory=Counter)
    over: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def storm(
    folder: Path, kills: int, *, seed: int, rounds: int = 60, progress: bool = False
) -> NodeStorm:
    """Kill the node so many times, then let it finish and count.

    Args:
        folder: for homes and the processes' output; empty.
        kills: how many.
        seed: decides the instants (but not the machine's own timing).
        rounds: of one experiment; when it ends the next is proposed.
        progress: say figures on standard error.
    """
    told = NodeStorm()
    chance = random.Random(seed)
    output = folder / "processes.log"
    os.environ[TEST_FEDERATION] = "1"  # for the children, who make noise without training
    with (
        Nursery("tests.journeys.programs:node", output) as nursery,
        Town(folder, (HOSPITAL, "bern")) as town,
    ):
        scene = Scene(town, output, rounds)
        start_s, (least_s, most_s) = 0.5, WORK_S
        work_s, left = least_s, 0
        while told.counts["kills"] < kills and not told.faults:
            scene.keep_busy()
            child = scene.start(nursery)
            if chance.random() < EARLY:
                told.counts["in_start"] += 1
                time.sleep(max(0.0, chance.uniform(0.0, start_s) - child.age_s))
            elif scene.serves(child):
                start_s = child.age_s
                time.sleep(chance.uniform(0.0, work_s))
            status = child.kill()
            told.counts["kills"] += status == -signal.SIGKILL
            if status != -signal.SIGKILL:
                told.faults.append(f"a node ended by itself with status {status}")
            before, left = left, scene.left(told)
            work_s = min(max(work_s * (1.2 if left == before else 0.9), least_s), most_s)
            told.over.append(scene.intended() - left)
            if progress and told.counts["kills"] % 25 == 0:
                print(f"{dict(told.counts)}, log {town.state.size}", file=sys.stderr, flush=True)
        child = scene.start(nursery)
        told.faults += scene.finish()
        scene.serves(child)  # before that a signal ends it at once, as any process
        if (status := child.end(signal.SIGTERM)) != 0:
            told.faults.append(f"the last node ended with status {status}")
        scene.count(told)
    told.faults += faults_of_charges(told.over)
    return told


def faults_of_charges(over: Sequence[int]) -> list[str]:
    """Say where deaths cost more than a round each.

    A death may show its cost at once (an intent without a vector) or only after the next start, which
    charges a round that it finds without an intent. So over any stretch of deaths the cost is at most
    one each, and one for the death before them. It holds while rounds wait for the node: one that the
    others finish without it while it is down is charged too, as its register may be a backup.
    """
    lowest = 0  # of what was over-charged less the number of deaths, before this one
    for deaths, held in enumerate(over, start=1):
        owed = held - deaths
        if owed > min(0, lowest + 1):
            return [f"{held} rounds are charged that did not leave, after {deaths} deaths"]
        lowest = min(lowest, owed)
    return []


class Scene:
    """A town, one hospital of which is tapped and killed."""

    def __init__(self, town: Town, output: Path, rounds: int, **federation: object) -> None:
        self._town, self._output, self._rounds, self._seen = town, output, rounds, 0
        self._federation = federation
        self._names = tuple(f"{name}-heart" for name in town.hospitals)
        self.experiments: list[str] = []
        for name in town.hospitals:
            town.offer(name, epsilon=8.0)
        self.home = town.home(HOSPITAL).path
        self.tap = Tap(town.port)
        config = MemberHome(self.home).config
        tapped = config.model_copy(update={"url": f"http://127.0.0.1:{self.tap.port}"})
        (self.home / MEMBER).write_bytes(canonical(tapped))
        (self.home / SETTINGS_FILE).write_text('training = "noop"\ncosign_interval_s = 0.02\n')
        for name in town.hospitals:
            if name != HOSPITAL:
                town.start_node(name, training="noop", cosign_interval_s=0.02)

    def keep_busy(self) -> None:
        """See that there is an experiment with rounds to come."""
        if self.experiments and not self._town.experiment(self.experiments[-1]).ended:
            return
        spec = small_spec(
            self._names,
            name=f"storm-{len(self.experiments) + 1}",
            privacy=Privacy(epsilon=Decimal(EACH_EPSILON)),
            **(
                {
                    "rounds": self._rounds,
                    "quorum": len(self._names),  # nothing goes on without the node that dies
                    "spare_rounds": 100,
                    "round_timeout_s": 20,
                }
                | self._federation
            ),
        )
        self.experiments.append(self._town.propose(spec))
        for name in self._names:
            self._town.approve(self.experiments[-1], name)

    def start(self, nursery: Nursery) -> Child:
        """Start the node."""
        self._seen = self._lines()
        return nursery.start(str(self.home), PASSPHRASE.decode())

    def serves(self, child: Child) -> bool:
        """Wait until the node says that it is ready; False when it has ended instead."""
        while self._lines() == self._seen:
            if child.age_s > _TIMEOUT_S or child.ended():
                return False
            time.sleep(0.005)
        return True

    def left(self, told: NodeStorm) -> int:
        """Vectors that have left, while no node runs."""
        if not self.tap.ran_dry():
            told.faults.append("a dead node's connections stay open: what left cannot be counted")
        return len(self.tap.releases()[0])

    def intended(self) -> int:
        """Steps with an intent."""
        return sum(self._intended().values())

    def finish(self) -> list[str]:
        """Let the last experiment end and settle."""
        ends = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < ends:
            if all(self._settled(experiment) for experiment in self.experiments):
                return []
            time.sleep(0.05)
        return ["the last experiment did not end and settle"]

    def count(self, told: NodeStorm) -> None:
        """Compare socket, register and log."""
        whole, cut = self.tap.releases()
        told.counts["left"], told.counts["left_in_part"] = len(whole), cut
        told.counts["experiments"] = len(self.experiments)
        with closing(self._register()) as register:
            kept = {sha256: key for *key, sha256 in register.execute(_OUTBOX)}
        charged = self._intended()
        told.counts["intended"] = sum(charged.values())
        left = Counter(_experiment_of(vector, kept, told) for vector in whole)
        state = self._town.state
        for experiment in self.experiments:
            held = state.experiments[experiment].reservations.get(f"{HOSPITAL}-heart")
            said = 0 if held is None else sum(held.used.values())
            told.counts["charged"] += said
            out = left[experiment]
            if not out <= charged[experiment] or not out <= said:
                told.faults.append(
                    f"experiment {experiment[:12]}: {out} vectors left, {charged[experiment]} steps "
                    f"have an intent, the log counts {said}"
                )
        if cut:
            told.faults.append(f"{cut} vectors left in part and never whole: count them by hand")
        self._check_log(told)

    def _check_log(self, told: NodeStorm) -> None:
        entries = self._town.people["ada"]
        entries.follow()
        leaves = [frame_leaf(row.body, row.signature) for row in entries.replica.store.rows()]
        told.faults += faults_of(leaves, {})
        mine = [parse_leaf(leaf).body for leaf in leaves]
        rounds = Counter(
            (body.op.experiment, body.op.round)
            for body in mine
            if body.author == node_of(HOSPITAL) and isinstance(body.op, UpdateSubmitted)
        )
        told.counts["rounds"] = len(rounds)
        told.counts["entries"] = len(leaves)
        try:
            MemberHome(self.home).open_replica().store.close()
        except LedgerError as error:
            told.faults.append(f"the node's copy does not open: {error}")

    def _intended(self) -> Counter[str]:
        if not (self.home / PRIVATE).exists():
            return Counter()
        with closing(self._register()) as register:
            return Counter(dict(register.execute(_INTENTS)))

    def _register(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self.home / PRIVATE}?mode=ro", uri=True)

    def _settled(self, experiment: str) -> bool:
        now = self._town.experiment(experiment)
        return bool(now.ended) and all(r.settled_at for r in now.reservations.values())

    def _lines(self) -> int:
        if not self._output.exists():
            return 0
        return self._output.read_bytes().count(b'{"node": ')


_OUTBOX = "SELECT experiment, dataset, round, sha256 FROM outbox"
_INTENTS = "SELECT experiment, SUM(steps) FROM intents GROUP BY experiment"


def _experiment_of(vector: bytes, kept: dict[str, list[object]], told: NodeStorm) -> str:
    """The experiment of a vector that left, by the node's outbox."""
    blob = UPDATE_MAGIC + (len(vector) // VALUE_BYTES).to_bytes(8, "big") + vector
    key = kept.get(hashlib.sha256(blob).hexdigest())
    if key is None:
        told.faults.append("a vector left that the node did not keep: its round may have two")
        return ""
    return str(key[0])


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.journeys.node_storm", description=str(__doc__).splitlines()[0]
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    began = time.monotonic()
    counts: Counter[str] = Counter()
    faults: list[str] = []
    most = 0
    for number, done in enumerate(range(0, given.kills, A_TOWN)):
        with tempfile.TemporaryDirectory(prefix="consilium-storm-") as folder:
            kills, seed = min(A_TOWN, given.kills - done), given.seed + number
            told = storm(Path(folder), kills, seed=seed, progress=True)
            if told.faults:
                print((Path(folder) / "processes.log").read_text()[-4000:], file=sys.stderr)
        counts += told.counts
        faults += told.faults
        steps = zip([0, *told.over], told.over, strict=False)
        most = max([most, *(after - before for before, after in steps)])
        if faults:
            break
    shown = {
        "seed": given.seed,
        **counts,
        "over_charged": counts["intended"] - counts["left"],
        "over_charged_between_two_kills_at_most": most,
        "seconds": round(time.monotonic() - began),
        "faults": faults,
    }
    print(json.dumps(shown))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

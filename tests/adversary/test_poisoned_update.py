"""A node sends a poisoned or broken update: its norm bound and form are judged before it counts, and
again by whoever sums again; the signed entry is the evidence."""

from __future__ import annotations

import numpy as np
import pytest

from ledger.copies.blobs import BlobStore
from ledger.entries.operations.rounds import UpdateRefused
from ledger.experiment.updates import judge_update
from ledger.formats.value import replace
from ledger.rules.experiments import site_of
from tests.adversary.registry import attack
from tests.adversary.world import World, refuted
from tests.federation import COORDINATOR, node_of


def opened(world: World) -> str:
    """An open round in which bern answered."""
    experiment = world.experiment()
    world.federation.open_round(experiment)
    for dataset in ("basel-heart", "bern-heart"):
        world.federation.reserve(experiment, dataset)
    world.federation.submit(experiment, "bern-heart")
    world.settle()
    world.attack_begins()
    return experiment


def poison(world: World, experiment: str) -> np.ndarray:
    """A vector just beyond the plan's bound."""
    plan = world.federation.experiment(experiment).plan
    site = site_of(plan, "basel-heart")
    assert site is not None
    values = np.zeros(plan.parameters, dtype=np.int64)
    values[0] = site.update_bound + 1
    return values


@attack(
    name="a node sends an update beyond its norm bound",
    exposed_by="the coordinator",
    evidence="update.refused(norm_bound) beside the signed entry that names the blob",
)
def test_a_poisoned_update_does_not_count(world: World) -> None:
    federation = world.federation
    experiment = opened(world)
    federation.submit(experiment, "basel-heart", poison(world, experiment))  # the lie
    now = federation.experiment(experiment)
    current, site = now.round, site_of(now.plan, "basel-heart")
    assert current is not None
    assert site is not None
    update = current.updates["basel-heart"]
    data = federation.blobs[update.blob.sha256]
    world.coordinator.messages += 1
    assert judge_update(now.plan, site, current.kind, 90, update.blob, data) == "norm_bound"
    world.exposed("the coordinator")
    op = UpdateRefused(type="update.refused", update=update.entry, reason="norm_bound")
    federation.say(COORDINATOR, op)
    basel = world.hospital("basel")
    basel.follow()
    after = basel.replica.state.experiments[experiment]
    assert after.round is not None
    assert after.round.updates["basel-heart"].refused == "norm_bound"
    assert dict(after.reservations["basel-heart"].used) == {"train": 1}  # its noise stays charged


@attack(
    name="coordinator sums a poisoned update all the same",
    exposed_by="a sceptic with the updates",
    evidence="the update's own bytes: longer than the plan's bound",
)
def test_a_poisoned_update_that_was_summed_is_found(world: World) -> None:
    federation = world.federation
    experiment = opened(world)
    sent = federation.submit(experiment, "basel-heart", poison(world, experiment))  # the lie
    federation.aggregate(experiment)
    verdicts = world.audit(world.coordinator.write(world.directory / "hub"))
    assert refuted(verdicts) == [(12, f"entry {sent.index}")]
    assert "longer than its plan's bound, and was summed" in verdicts.best.refuted[0].detail
    world.exposed("a sceptic with the updates")


@attack(
    name="coordinator sums a poisoned histogram of an evaluation",
    exposed_by="a sceptic with the updates",
    evidence="the histogram's own bytes: longer than twice the declared patients and the noise",
)
def test_a_poisoned_histogram_that_was_summed_is_found(world: World) -> None:
    federation = world.federation
    experiment = world.experiment()
    for _ in range(federation.experiment(experiment).plan.rounds):
        federation.play_round(experiment)
    federation.open_round(experiment)
    values = np.zeros(federation.experiment(experiment).plan.metric_size, dtype=np.int64)
    values[0] = 2**60
    world.attack_begins()
    sent = federation.submit(experiment, "basel-heart", values)  # the lie
    federation.submit(experiment, "bern-heart")
    federation.aggregate(experiment)
    verdicts = world.audit(world.coordinator.write(world.directory / "hub"))
    assert refuted(verdicts) == [(12, f"entry {sent.index}")]
    world.exposed("a sceptic with the updates")


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        pytest.param(lambda data: data[:-8], "wrong_size", id="short"),
        pytest.param(lambda data: b"x" + data[1:], "malformed", id="header"),
    ],
)
def test_a_broken_update_is_named_for_what_it_is(world: World, broken: object, reason: str) -> None:
    assert callable(broken)
    federation = world.federation
    experiment = opened(world)
    honest = federation.update(experiment, "basel-heart")
    data = broken(federation.blobs[honest.update.sha256])
    false = replace(honest, update=federation.put(data))
    federation.say(node_of("basel"), false)
    now = federation.experiment(experiment)
    site = site_of(now.plan, "basel-heart")
    assert now.round is not None
    assert site is not None
    ref = now.round.updates["basel-heart"].blob
    assert judge_update(now.plan, site, now.round.kind, 90, ref, data) == reason


@attack(
    name="administrator changes an update's file after it was summed",
    exposed_by="a sceptic with the copy",
    evidence="the SHA-256 in the node's signed entry is not that of the file",
)
def test_a_changed_update_blob_is_named(world: World) -> None:
    experiment = world.experiment()
    world.federation.play(experiment)
    home = world.coordinator.write(world.directory / "hub")
    entry = next(e for e in world.federation.entries() if e.body.op.type == "update.submitted")
    assert entry.body.op.type == "update.submitted"
    sha256 = entry.body.op.update.sha256
    path = BlobStore(home / "blobs").path(sha256)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    world.attack_begins()
    path.chmod(0o600)
    path.write_bytes(bytes(data))  # the lie
    verdicts = world.audit(home)
    assert any(step == 13 and sha256[:12] in str(place) for step, place in refuted(verdicts))
    world.exposed("a sceptic with the copy")
    assert verdicts.best.verdict_of(12) == "not_checkable"  # said, and never called good

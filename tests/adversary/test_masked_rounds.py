"""The coordinator, or a hospital, lies in a masked round: survivors are signed before anything is revealed,
every message is bound to its round, and whoever holds the blobs opens the sum again."""

from __future__ import annotations

from copy import copy

import numpy as np

from ledger.entries.operations.log import TimeNoted
from ledger.entries.operations.masking import MaskingRevealed, RevealedShare
from ledger.entries.operations.rounds import RoundClosed
from ledger.formats.value import replace
from ledger.rules.log import Sequenced
from node.duties.duty import Duty
from node.duties.masking import Agree, Reveal
from tests.adversary.coordinator import Story
from tests.adversary.registry import attack
from tests.adversary.world import World, refuted
from tests.federation import COORDINATOR, HOSPITALS, node_of
from tests.masked import MaskedRound


def begun(world: World) -> MaskedRound:
    """A masked round of four hospitals, up to the masks, that their own registers know."""
    experiment = world.experiment(HOSPITALS, quorum=3, secure_aggregation=True)
    masked = MaskedRound(world.federation, experiment).until("mask")
    world.settle()
    for name in HOSPITALS:
        hospital, key = world.hospital(name), (experiment, f"{name}-heart")
        hospital.reserve(*key)
        hospital.register.record_intent(*key, "train", round_number=1, steps=1, at_ms=0)
        hospital.register.outbox.keep_masks(*key, masked.masking.context, b"sealed")
    world.attack_begins()
    return masked


def revealed(world: World) -> MaskedRound:
    """A masked round whose survivors are signed, and whose shares anybody can put together."""
    masked = begun(world).until("unmask")
    masked.agree()
    masked.reveal()
    return masked


def given_up(masked: MaskedRound) -> Sequenced:
    """The round's time passes, and the coordinator says that shares are missing."""
    federation = masked.federation
    federation.now_ms += federation.experiment(masked.id).plan.round_timeout_ms + 1
    federation.say(COORDINATOR, TimeNoted(type="time.noted"))
    closed = RoundClosed(
        type="round.closed", experiment=masked.id, round=1, attempt=1, reason="shares_missing"
    )
    return federation.say(COORDINATOR, closed)


def owed(world: World) -> dict[str, tuple[Duty, ...]]:
    """What each hospital's node would do now."""
    for hospital in world.hospitals.values():
        hospital.follow_entries()
    return {name: hospital.duties() for name, hospital in world.hospitals.items()}


@attack(
    name="coordinator tells two hospitals that another one dropped out, for both of its secrets",
    exposed_by="every hospital's node",
    evidence="fewer than the threshold signed the survivors that its own copy names",
)
def test_different_survivors_for_different_hospitals_open_nothing(world: World) -> None:
    masked = begun(world)
    masked.mask()
    all_four = tuple(f"{name}-heart" for name in HOSPITALS)
    other = copy(masked)
    other.federation = world.coordinator.branch(world.federation.log.size - 1)  # davos never sent
    timeout_ms = masked.federation.experiment(masked.id).plan.round_timeout_ms
    other.federation.now_ms += timeout_ms * 85 // 100  # the phase's time is over, not the round's
    other.advance("unmask", *all_four[:3])  # the lie
    masked.advance("unmask", *all_four)
    false = Story(other.federation.leaves, other.federation.notes, other.federation.finals)
    world.coordinator.show(false, to=["basel", "bern"])
    found = owed(world)
    assert {type(duty) for duties in found.values() for duty in duties} == {Agree}

    other.secrets = dict(masked.secrets)
    other.agree(("basel-heart", "bern-heart"))
    masked.agree(("chur-heart", "davos-heart"))
    false.leaves[:] = other.federation.leaves
    found = owed(world)
    assert not any(isinstance(duty, Reveal) for duties in found.values() for duty in duties)
    world.exposed("every hospital's node")
    assert masked.masking.agreed == {"chur-heart", "davos-heart"}
    assert other.masking.agreed == {"basel-heart", "bern-heart"}


@attack(
    name="coordinator names other survivors after the first ones were revealed",
    exposed_by="everybody's fold",
    evidence="void: wrong_phase; a round's survivors are named once",
)
def test_survivors_are_named_once(world: World) -> None:
    masked = revealed(world)
    before = masked.masking
    op = next(
        e.body.op
        for e in reversed(world.federation.entries())
        if e.body.op.type == "masking.advanced"
    )
    fewer = replace(op, datasets=op.datasets[:3])
    world.federation.say(COORDINATOR, fewer, void="wrong_phase")  # the lie
    for hospital in world.hospitals.values():
        hospital.follow_entries()
    world.exposed("everybody's fold")
    assert masked.masking == before


@attack(
    name="hospital helps the coordinator to both secrets of another one",
    exposed_by="everybody's fold",
    evidence="void: shares_mismatch; an entry holds one secret of each",
)
def test_both_secrets_of_one_hospital_are_void(world: World) -> None:
    masked = begun(world).until("unmask")
    masked.agree()
    shares = tuple(
        RevealedShare(of="basel-heart", secret=secret, share=bytes(66).hex())  # type: ignore[arg-type]
        for secret in ("seed", "key")
    )
    op = MaskingRevealed(type="masking.revealed", shares=shares, **masked.common("bern-heart"))
    world.federation.say(node_of("bern"), op, void="shares_mismatch")  # the lie
    world.hospital("basel").follow_entries()
    world.exposed("everybody's fold")
    assert not masked.masking.revealed


@attack(
    name="coordinator plays a hospital's message of an earlier attempt again",
    exposed_by="everybody's fold",
    evidence="void: context_mismatch; each attempt has a context of its own",
)
def test_a_message_of_another_attempt_is_void(world: World) -> None:
    masked = begun(world).until("unmask")
    stale = masked.masking.context
    federation = world.federation
    given_up(masked)
    again = MaskedRound(federation, masked.id)
    assert again.masking.context != stale
    again.advertise(("bern-heart",))
    op = next(
        e.body.op
        for e in reversed(federation.entries())
        if e.body.op.type == "masking.advertised" and e.body.op.attempt == 1
    )
    old = replace(op, attempt=2)
    federation.say(node_of(op.dataset.removesuffix("-heart")), old, void="context_mismatch")
    world.hospital("basel").follow_entries()
    world.exposed("everybody's fold")
    assert set(again.masking.keys) == {"bern-heart"}


@attack(
    name="coordinator gives a masked round up whose sum it could open",
    exposed_by="an auditor",
    evidence="the revealed shares, which open it",
)
def test_a_sum_that_is_withheld_is_refuted(world: World) -> None:
    masked = revealed(world)
    said = given_up(masked)  # the lie
    home = world.coordinator.write(world.directory / "hub")
    assert refuted(world.audit(home)) == [(12, f"entry {said.index}")]
    world.exposed("an auditor")


@attack(
    name="coordinator says another sum than the masked vectors have",
    exposed_by="an auditor",
    evidence="the sum, opened again from vectors and shares",
)
def test_a_wrong_masked_sum_is_refuted(world: World) -> None:
    masked = revealed(world)
    said = world.federation.say(COORDINATOR, masked.aggregated(masked.total() + 1))  # the lie
    home = world.coordinator.write(world.directory / "hub")
    assert refuted(world.audit(home)) == [(12, f"entry {said.index}")]
    world.exposed("an auditor")


@attack(
    name="hospital reveals wrong shares",
    exposed_by="the coordinator",
    evidence="the owner's commitment, which the secret does not fit; the others' shares do",
)
def test_a_hospital_s_wrong_shares_spoil_no_sum(world: World) -> None:
    masked = begun(world).until("unmask")
    masked.agree()
    masked.reveal(wrong=("davos-heart",))  # the lie
    total = masked.total()
    np.testing.assert_array_equal(total, np.sum(list(masked.vectors.values()), axis=0))
    world.exposed("the coordinator")
    world.federation.say(COORDINATOR, masked.aggregated())
    assert refuted(world.audit(world.coordinator.write(world.directory / "hub"))) == []

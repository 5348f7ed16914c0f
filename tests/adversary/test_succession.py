"""A log that cannot go on is succeeded: what a false successor tries, and who notices before it counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from audit.verification.findings import Check
from audit.verification.verify import verify_at
from coordinator.http.access import may_read
from coordinator.sequencing.history import History
from coordinator.succeed import found_successor, propose_successor
from ledger.copies.leaves import read_leaves
from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.copies.succession import (
    EndorsementFile,
    ProposalFile,
    SuccessionFile,
    check_successor,
    endorse,
    last_final,
)
from ledger.entries.cards import DatasetCard, seal_card
from ledger.entries.entry import federation_id, parse_leaf, sign_entry
from ledger.entries.operations.log import TimeNoted
from ledger.entries.operations.succession import FederationCarried, FederationSucceeded
from ledger.errors import SuccessionRefused
from ledger.formats.key_file import load_keyring
from ledger.formats.keys import KeyRing
from ledger.formats.strict import encode_b64
from ledger.formats.value import replace
from ledger.rules.encoding import digest
from ledger.rules.log import Log
from ledger.rules.succession import claim_of, part_hash
from tests.adversary.hospital import Hospital
from tests.adversary.registry import attack
from tests.adversary.test_erased_cards import bind
from tests.adversary.world import World
from tests.federation import COORDINATOR, RESEARCHER, node_of, steward_of

PASSPHRASE = b"another coordinator"


pytestmark = pytest.mark.usefixtures("quick_keys")


class Heir:
    """Who would keep the new log, honestly or not."""

    def __init__(self, world: World, old: Hospital, name: str = "heir") -> None:
        self.world = world
        self.home: Path = world.directory / name
        self.proposal = propose_successor(
            self.home,
            PASSPHRASE,
            old.replica,
            organisation="university",
            url="https://heir.example.org",
            strength="interactive",
            now_ms=world.federation.now_ms,
        )
        self.ring: KeyRing = load_keyring(self.home / "keyring.json", PASSPHRASE)

    def change(self, lie: Callable[[list[FederationCarried]], None], **op: object) -> None:
        """Propose something else than the old log gives."""
        parts = list(self.proposal.parts)
        lie(parts)
        genesis = self.proposal.body.op
        assert isinstance(genesis, FederationSucceeded)
        changed = replace(genesis, carried=tuple(map(part_hash, parts)), **op)
        body = replace(self.proposal.body, op=changed)
        self.proposal = self.proposal.model_copy(update={"parts": tuple(parts), "body": body})

    def signed_by(self, *hospitals: str) -> tuple[EndorsementFile, ...]:
        """Endorsements by stewards who do not look."""
        return tuple(blind(self.proposal, self.world, hospital) for hospital in hospitals)

    def found(self, *hospitals: str) -> SuccessionFile:
        """Found the new log with these hospitals' stewards' signatures."""
        return found_successor(self.home, self.proposal, self.signed_by(*hospitals), self.ring)

    def replica(self, directory: Path) -> Replica:
        """The new log, as a member follows it."""
        store = LogStore.open(f"sqlite:///{self.home / 'ledger.db'}")
        leaves = list(read_leaves(store, 0, store.size()))
        newest = store.latest_checkpoint()
        assert newest is not None
        store.close()
        directory.mkdir(exist_ok=True)
        copy = LogStore.open(f"sqlite:///{directory / 'ledger.db'}")
        made = Replica.create(copy, leaves[0], federation_id(parse_leaf(leaves[0])))
        made.extend(leaves[1:], newest.note)
        return made


def blind(proposal: ProposalFile, world: World, hospital: str) -> EndorsementFile:
    """A steward's signature under whatever it is shown."""
    ring = world.federation.rings[steward_of(hospital)]
    claim = claim_of(proposal.body)
    return EndorsementFile(
        format="consilium succession endorsement v1",
        claim=encode_b64(claim),
        steward=ring.handle,
        signature=ring.entry.sign("succession", claim).hex(),
    )


def spent(world: World) -> World:
    """A federation with datasets, of which one has an open reservation."""
    experiment = world.experiment()
    world.federation.reserve(experiment, "basel-heart")
    world.settle()
    return world


def test_an_honest_successor_carries_everything_over_with_open_reservations_as_spent(
    world: World,
) -> None:
    basel = spent(world).hospital("basel")
    heir = Heir(world, basel)
    for hospital in ("bern", "chur"):
        ring = world.federation.rings[steward_of(hospital)]
        endorse(heir.proposal, world.hospital(hospital).replica, ring)
    succession = heir.found("bern", "chur")
    for hospital in world.hospitals.values():
        check_successor(succession.leaf, hospital.replica)
    new = heir.replica(world.directory / "copy")
    old = last_final(basel.replica).state
    assert new.state.succession is not None
    assert new.state.succession.complete
    assert set(new.state.members) == (set(old.members) - {COORDINATOR}) | {"coordinator"}
    for handle in set(old.members) - {COORDINATOR}:
        assert new.state.members[handle].keys == old.members[handle].keys
        assert not new.state.members[handle].ready
    assert old.cells["basel-all"].spend.g > 0
    assert {n: c.spend for n, c in new.state.cells.items()} == {
        n: c.spend for n, c in old.cells.items()
    }
    assert {n: d.registration for n, d in new.state.datasets.items()} == {
        n: d.registration for n, d in old.datasets.items()
    }
    assert not new.state.experiments
    assert new.state.keys[world.federation.rings[COORDINATOR].entry.id].retired_at is not None
    new.store.close()


def test_an_auditor_with_both_logs_verifies_the_join(world: World) -> None:
    basel = spent(world).hospital("basel")
    heir = Heir(world, basel)
    succession = heir.found("bern", "chur")
    trust = federation_id(parse_leaf(succession.leaf))

    def judged(at: Path, old: Path | None) -> tuple[int, Check]:
        verdicts = verify_at(str(at), trust=trust, predecessor=None if old is None else str(old))
        (join,) = (
            check
            for check in verdicts.best.checks
            if check.step == 2 and "which you trust" not in check.detail
        )
        return verdicts.exit_code, join

    code, join = judged(heir.home, basel.directory)
    assert (code, join.verdict) == (0, "proved")
    assert "members, spend and datasets are those of basel" in join.detail
    code, join = judged(heir.home, None)
    assert (code, join.verdict) == (0, "not_checkable")
    assert "give that log's copy with --predecessor" in join.detail
    false = Heir(world, basel, "false")
    false.change(forget_spend)
    trust = federation_id(parse_leaf(false.found("bern", "chur").leaf))
    code, join = judged(false.home, basel.directory)
    assert (code, join.verdict, join.place) == (1, "refuted", "entry 0")
    assert "its cells are not those of the old log" in join.detail
    verdicts = verify_at(str(basel.directory), predecessor=str(heir.home))
    assert [c.detail for c in verdicts.best.refuted] == [
        "it takes over from no log: entry 0 founds it"
    ]


def forget_spend(parts: list[FederationCarried]) -> None:
    for at, part in enumerate(parts):
        cells = tuple(replace(cell, g=0, r=0) for cell in part.cells)
        parts[at] = replace(part, cells=cells)


def leave_out(parts: list[FederationCarried]) -> None:
    parts[0] = replace(parts[0], members=parts[0].members[1:])


def add_one(parts: list[FederationCarried]) -> None:
    sham = replace(parts[0].members[0], handle="sham-node", organisation="sham")
    parts[0] = replace(parts[0], members=(*parts[0].members, sham))


@attack(
    name="successor of a log forgets what patients' budgets have paid",
    exposed_by="every steward and every node",
    evidence="the part of genesis that the old log does not give",
)
def test_a_successor_with_less_spend_is_refused(world: World) -> None:
    heir = Heir(world, spent(world).hospital("basel"))
    heir.change(forget_spend)  # the lie
    refuse_everywhere(world, heir, "its cells are not those of the old log", "carried part 3")


@attack(
    name="successor of a log leaves a member out",
    exposed_by="every steward and every node",
    evidence="the part of genesis that the old log does not give",
)
def test_a_successor_that_leaves_a_member_out_is_refused(world: World) -> None:
    heir = Heir(world, world.hospital("basel"))
    heir.change(leave_out)  # the lie
    refuse_everywhere(world, heir, "its members are not those of the old log", "carried part 1")


@attack(
    name="successor of a log adds a sham hospital",
    exposed_by="every steward and every node",
    evidence="the part of genesis that the old log does not give",
)
def test_a_successor_that_adds_a_member_is_refused(world: World) -> None:
    heir = Heir(world, world.hospital("basel"))
    heir.change(add_one)  # the lie
    ring = world.federation.rings[steward_of("bern")]
    with world.caught(SuccessionRefused, by="every steward and every node", match="members"):
        endorse(heir.proposal, world.hospital("bern").replica, ring)


def refuse_everywhere(world: World, heir: Heir, why: str, where: str) -> None:
    """Stewards do not sign; signed by careless ones all the same, no node follows it."""
    ring = world.federation.rings[steward_of("bern")]
    world.attack_begins()
    with world.caught(SuccessionRefused, by="every steward and every node", match=why) as caught:
        endorse(heir.proposal, world.hospital("bern").replica, ring)
    assert caught.value.where == where
    succession = heir.found("bern", "chur", "davos")
    for hospital in world.hospitals.values():
        with pytest.raises(SuccessionRefused, match=why):
            check_successor(succession.leaf, hospital.replica)


@attack(
    name="successor of a log is founded with one organisation's signature too few",
    exposed_by="everybody's fold, and every node",
    evidence="the stewards who signed, and the policy of the old federation",
)
def test_a_successor_one_endorsement_short_never_begins(world: World) -> None:
    heir = Heir(world, world.hospital("basel"))
    twice = (*heir.signed_by("bern"), *heir.signed_by("chur"))
    stolen = twice[1].model_copy(update={"signature": twice[0].signature})
    world.attack_begins()
    with world.caught(SuccessionRefused, by="everybody's fold, and every node") as caught:
        found_successor(heir.home, heir.proposal, (twice[0], stolen), heir.ring)  # the lie
    assert "asks for 2 organisations' stewards" in caught.value.reason
    bare = replace(heir.proposal.body)
    leaf = sign_entry(bare, heir.ring.entry).leaf  # its own log, whatever the fold says
    with pytest.raises(SuccessionRefused, match=r"0 organisations' stewards signed it \(none\)"):
        check_successor(leaf, world.hospital("bern").replica)


@attack(
    name="successor of a log takes over from an entry that was never final",
    exposed_by="every steward and every node",
    evidence="the last final checkpoint that hospitals cosigned",
)
def test_a_successor_on_a_checkpoint_that_was_not_final_is_refused(world: World) -> None:
    basel, bern = world.hospital("basel"), world.hospital("bern")
    final = bern.replica.final.size
    world.let_time_pass(0)
    ahead = world.federation
    heir = Heir(world, basel)
    genesis = heir.proposal.body.op
    assert isinstance(genesis, FederationSucceeded)
    named = replace(
        genesis.predecessor,
        size=ahead.log.size,
        root=ahead.log.tree.root().hex(),
        state=digest(ahead.state),
    )
    heir.change(lambda parts: None, predecessor=named)  # the lie
    for hospital in world.hospitals.values():
        hospital.follow()
    ring = world.federation.rings[steward_of("bern")]
    world.attack_begins()
    with world.caught(SuccessionRefused, by="every steward and every node") as caught:
        endorse(heir.proposal, bern.replica, ring)
    assert f"the last final one here covers {final}" in caught.value.reason
    succession = heir.found("bern", "chur")
    with pytest.raises(SuccessionRefused, match="takes over from a checkpoint over"):
        check_successor(succession.leaf, basel.replica)


@attack(
    name="successor of a log keeps the stolen key",
    exposed_by="every steward and every node",
    evidence="the key, enrolled in the old log",
)
def test_a_successor_under_an_old_key_is_refused(world: World) -> None:
    heir = Heir(world, world.hospital("basel"))
    old = world.federation.state.log_key
    heir.change(lambda parts: None, log_key=old)  # the lie
    ring = world.federation.rings[steward_of("bern")]
    world.attack_begins()
    with world.caught(SuccessionRefused, by="every steward and every node", match="in use before"):
        endorse(heir.proposal, world.hospital("bern").replica, ring)


def test_nothing_takes_effect_before_all_is_carried_over(world: World) -> None:
    heir = Heir(world, world.hospital("basel"))
    heir.found("bern", "chur")
    store = LogStore.open(f"sqlite:///{heir.home / 'ledger.db'}")
    leaves = list(read_leaves(store, 0, store.size()))
    store.close()
    log = Log()
    log.append(log.judge(leaves[0]))
    early = parse_leaf(leaves[1])
    noted = replace(early.body, op=TimeNoted(type="time.noted"))
    assert log.append(log.judge(sign_entry(noted, heir.ring.entry).leaf)).outcome.void == "not_due"
    assert not log.state.succession.complete  # type: ignore[union-attr]


def test_cards_that_came_along_are_read_by_every_member_and_erased_by_their_owner(
    world: World,
) -> None:
    card = seal_card(DatasetCard(title="Herz"))
    bind(world, "basel", card.commitment)
    world.settle()
    heir = Heir(world, world.hospital("basel"))
    heir.found("basel", "bern")
    replica = heir.replica(world.directory / "reader")
    history, log = History(), Log()
    for leaf in read_leaves(replica.store, 0, replica.size):
        history.observe(log.append(log.judge(leaf)))
    for handle in (RESEARCHER, node_of("chur"), steward_of("bern")):
        assert may_read(log.state, history, handle, card.commitment) is not None
    assert log.state.cards[card.commitment].dataset == "basel-heart"
    replica.store.close()

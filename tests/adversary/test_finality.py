"""A checkpoint that is final for one reader is final for every other one, whoever joined, changed keys,
left or was put out between two of them; and what a sender adds to a note gets into nobody's copy."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from audit.verification.check_notes import check_notes
from audit.verification.copies import StoreCopy
from audit.verification.replay import replay
from coordinator.sequencing.cosignatures import Cosignatures
from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.entries.operations.log import TimeNoted
from ledger.errors import LedgerError, NotWitnessed
from ledger.formats.checkpoint import (
    cosign,
)
from ledger.formats.cosigned import keep_known
from ledger.formats.note import (
    Note,
    NoteSignature,
    key_id_of,
    parse_note,
)
from ledger.formats.tlog_policy import format_policy, parse_policy, verify_by_policy
from ledger.formats.witness import judge_quorum, witness_name
from ledger.rules.finality import (
    earlier_witness_keys,
    judge_final,
    standing_quorum,
    witness_keys,
)
from ledger.rules.outside_policy import outside_policy
from ledger.rules.state import State
from tests.adversary.changes import endorsed, expulsion
from tests.adversary.membership import Members, with_witness
from tests.adversary.registry import attack
from tests.adversary.witness_lines import (
    bare_note,
    current_lines,
    line_by,
    log_of,
    old_lines,
    with_name,
)
from tests.adversary.world import World
from tests.federation import COORDINATOR, HOSPITALS, Federation, node_of, steward_of
from tests.ledger.rules.test_fold_members import anew, rotation

NOTED = TimeNoted(type="time.noted")
MOVES = st.lists(
    st.tuples(
        st.integers(0, 6),  # what
        st.integers(0, 7),  # by whom
        st.integers(0, 7),  # against whom
        st.integers(0, 255),  # who cosigns
        st.integers(0, 255),  # whose old keys the cheat has
    ),
    min_size=3,
    max_size=14,
)
EVERYBODY = 255


@given(k=st.integers(1, 3), moves=MOVES)
@example(k=2, moves=[(0, 0, 0, 0, 0), (0, 1, 0, 0, 0), (6, 0, 0, EVERYBODY, EVERYBODY)])
@example(  # put out, and invited again before the next
    k=1, moves=[(3, 0, 3, 0, EVERYBODY), (4, 0, 0, EVERYBODY, 0), (6, 0, 0, 7, 0), (6, 0, 0, 15, 0)]
)
@settings(max_examples=12, deadline=None)
def test_node_auditor_and_policy_file_agree_on_what_is_final(
    k: int, moves: list[tuple[int, int, int, int, int]]
) -> None:
    members = Members.found(k)
    federation = members.federation
    with TemporaryDirectory() as place:
        readers = Readers(federation, Path(place))
        for what, who, whom, cosigners, thieves in moves:
            members.act(what, who, whom)
            readers.sequence()
            readers.cheat(old_lines(members, thieves))
            readers.cosigned(current_lines(members, cosigners))
        readers.compare()
        readers.close()


class Readers:
    """A coordinator, a node that follows it closely, and those who come later."""

    def __init__(self, federation: Federation, place: Path) -> None:
        self.federation = federation
        self._place = place
        self._stores: list[LogStore] = []
        self._log = log_of(federation)
        store = self._store("coordinator")
        self._coordinator = Replica.create(store, federation.leaves[0], federation.id)
        self._cosignatures = Cosignatures(store, self._log, 0.0)
        self._node = Replica.create(self._store("node"), federation.leaves[0], federation.id)
        self._judged: list[tuple[int, int, bytes, bool]] = []
        self.sequence()

    def sequence(self) -> None:
        """A signed checkpoint over what is there now; the node follows."""
        if self._node.size < self.federation.log.size:
            leaves = self.federation.leaves[self._node.size :]
            for copy in (self._coordinator, self._node):
                copy.extend(leaves, bare_note(self.federation))
        self._cosignatures.open(self._state, self._state.size, bare_note(self.federation))

    def cheat(self, lines: bytes) -> None:
        """A hostile coordinator shows the node a checkpoint with whatever lines it has."""
        note = bare_note(self.federation) + lines
        before = self._node.final.size
        try:
            quorum = judge_final(note, self._log, self._state, before=before)
        except LedgerError as error:
            pytest.fail(f"one line too many, and nothing can become final: {error}")
        self._judged.append((before, self._state.size, note, quorum.final))

    def cosigned(self, lines: bytes) -> None:
        """Cosignatures arrive; what the coordinator calls final the node takes."""
        if lines:
            self._cosignatures.add(self._state, self._state.size, lines)
        while self._cosignatures.finalize(self._state, 0.0):
            final = self._cosignatures.final
            if final.note is None:
                break
            taken = self._node.accept_final(final.note)
            assert taken is not None
            assert taken.size == final.size

    def compare(self) -> None:
        """Whoever reads all of it later comes to the same."""
        for before, size, note, final in self._judged:
            later = judge_final(note, self._log, self._state, before=before)
            assert later.final == final, "what came later changed the answer"
            old = earlier_witness_keys(self._state, before, size)
            if not judge_quorum(note, self._log, old).final:
                continue  # what a policy file does not say
            policy = outside_policy(self._state, size, self._log, note=note)
            try:
                verify_by_policy(note, parse_policy(format_policy(policy)))
            except NotWitnessed:
                assert not final
            else:
                assert final
        again = Replica.open(self._stores[1], self.federation.id)
        assert again.final == self._node.final
        copy = StoreCopy("node", self._stores[1])
        notes = check_notes(replay(copy), copy)
        assert not [check for check in notes.checks if check.verdict == "refuted"]
        assert notes.witnesses.size == self._node.final.size
        fresh = Replica.create(self._store("late"), self.federation.leaves[0], self.federation.id)
        fresh.extend(self.federation.leaves[1:], bare_note(self.federation))
        for each in self._coordinator.store.finals():
            assert fresh.accept_final(each.note) is not None
        assert fresh.final == self._node.final

    def close(self) -> None:
        """Give the files back."""
        for store in self._stores:
            store.close()

    @property
    def _state(self) -> State:
        return self.federation.state

    def _store(self, name: str) -> LogStore:
        self._stores.append(LogStore.open(f"sqlite:///{self._place / name}.db"))
        return self._stores[-1]


@given(
    k=st.integers(1, 3),
    sides=st.lists(st.sampled_from((1, 2, 3)), min_size=4, max_size=4),
    one=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 7), st.integers(0, 7)), max_size=8),
    two=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 7), st.integers(0, 7)), max_size=8),
)
@example(k=2, sides=[1, 1, 2, 2], one=[(3, 0, 2), (3, 0, 2)], two=[(3, 0, 0), (3, 0, 0)])
@settings(max_examples=40, deadline=None)
def test_two_final_histories_need_hospitals_on_both_sides_or_k_that_change_the_others(
    k: int,
    sides: list[int],
    one: list[tuple[int, int, int]],
    two: list[tuple[int, int, int]],
) -> None:
    """``sides``: 1 and 2 are honest and saw one branch each; 3 acts on both."""
    members = Members.found(k)
    members.federation.finalize()
    before = members.federation.log.size
    both = sides.count(3)
    branches = []
    for side, moves in ((1, one), (2, two)):
        acting = [name for name, on in zip(HOSPITALS, sides, strict=True) if on in (side, 3)]
        branch = members.branch(acting, "x" * side)
        for move in moves:
            branch.act(*move)
        branch.federation.now_ms += side  # one says it a little later: another history
        branch.federation.say(COORDINATOR, NOTED)
        branches.append(branch)
    final = [is_final(branch, before) for branch in branches]
    if 3 * both >= len(sides) or not all(final):
        return
    assert any(branch.changed for branch in branches), "only k organisations can bring it about"
    assert 2 * k <= len(sides) + both, (
        "and two sets of k, where any two of those share an honest one"
    )


def is_final(branch: Members, before: int) -> bool:
    note = bare_note(branch.federation) + current_lines(branch, EVERYBODY)
    return judge_final(
        note, log_of(branch.federation), branch.federation.state, before=before
    ).final


# --- attacks --------------------------------------------------------------------------------------


@attack(
    name="a hospital enrols the witness key that another one gave up, so that nothing becomes final",
    exposed_by="everybody's fold",
    evidence="void: key_conflict; a witness key counts for one hospital for ever",
)
def test_nobody_enrols_a_former_witness_key_of_another_hospital(world: World) -> None:
    federation = world.federation
    given_up = federation.rings[node_of("basel")].witness
    new = anew(node_of("basel"), "node")
    federation.say(node_of("basel"), rotation(federation, new))
    federation.rings[node_of("basel")] = new
    world.attack_begins()
    hostile = with_witness(anew(node_of("bern"), "node"), given_up)
    op = rotation(federation, hostile)
    federation.say(node_of("bern"), op, void="key_conflict")  # the lie
    assert world.hospital("chur").follow()[-1].outcome.void == "key_conflict"
    world.exposed("everybody's fold")
    note = federation.finalize()
    assert world.hospital("chur").replica.accept_final(note) is not None


@attack(
    name="thief cosigns with the witness key that a hospital rotated away or revoked",
    exposed_by="every hospital",
    evidence="three of four are needed, and the old key speaks for nobody",
)
def test_a_key_that_was_given_up_makes_nothing_final(world: World) -> None:
    federation = world.federation
    stolen = federation.rings[node_of("davos")]
    new = anew(node_of("davos"), "node")
    federation.say(node_of("davos"), rotation(federation, new))
    chur = world.hospital("chur")
    chur.follow_entries()
    before = chur.replica.final.size
    world.attack_begins()
    note = federation.checkpoint([node_of("basel"), node_of("bern")])
    note += line_by(federation, stolen)  # the lie
    with world.caught(NotWitnessed, by="every hospital") as caught:
        chur.replica.accept_final(note)
    assert caught.value.missing == {"chur", "davos"}
    assert chur.replica.final.size == before


@attack(
    name="coordinator puts strangers', renamed and doubled lines under a final checkpoint",
    exposed_by="the hospital's own copy, which keeps none of them",
    evidence="the note with the log's line and one of each hospital",
)
def test_what_a_sender_adds_to_a_note_does_not_make_a_copy_look_changed(world: World) -> None:
    federation = world.federation
    federation.say(COORDINATOR, NOTED)
    chur = world.hospital("chur")
    note = federation.finalize()
    world.attack_begins()
    opened = parse_note(note)
    renamed = [with_name(federation, line, "zz") for line in opened.signatures[1:3]]
    grease = NoteSignature(f"{federation.origin}/witness/nobody", b"abcd", bytes(72))
    own = NoteSignature(federation.origin, b"wxyz", bytes(64))
    log_line, *lines = opened.signatures
    dirty = Note(opened.text, (own, log_line, grease, *renamed, *lines[1:], log_line)).encode()
    chur.replica.extend(federation.leaves[chur.size :], dirty)
    assert chur.replica.checkpoint == keep_known(note, chur.replica.log_key)
    chur.replica.accept_final(dirty)  # the lie
    final = chur.replica.final
    assert final.size == federation.log.size
    assert final.note is not None
    kept = parse_note(final.note).signatures
    assert kept == (log_line, *renamed, *lines[2:]), "each once, under whatever name came first"
    copy = StoreCopy("chur", chur.replica.store)
    assert not [c for c in check_notes(replay(copy), copy).checks if c.verdict == "refuted"]
    policy = outside_policy(federation.state, final.size, log_of(federation), note=final.note)
    read_back = parse_policy(format_policy(policy))
    assert verify_by_policy(final.note, read_back).size == final.size
    world.exposed("the hospital's own copy, which keeps none of them")


def test_a_hospital_that_came_back_counts_at_the_next_final_as_any_other(world: World) -> None:
    members = Members(world.federation, frozenset(HOSPITALS))
    endorsed(world, expulsion("davos"), steward_of("basel"), steward_of("bern"))
    members.act(4, 0, 0)  # invited again
    (back,) = [m.handle for m in members.nodes() if m.organisation == "davos"]
    federation = world.federation
    federation.finalize()
    between = federation.log.size
    federation.say(COORDINATOR, NOTED)
    size = federation.log.size
    asked = earlier_witness_keys(federation.state, between, size)
    assert set(asked) == set(HOSPITALS), "it was put out before it counted there, and not since"
    note = federation.checkpoint([node_of("basel"), node_of("bern"), back])
    assert judge_final(note, log_of(federation), federation.state, before=between).final


def test_what_status_says_of_the_quorum_is_what_the_rule_says(world: World) -> None:
    federation = world.federation
    federation.finalize()
    before = federation.log.size
    for number, hospital in enumerate(("davos", "chur")):
        new = anew(node_of(hospital), "node")
        if number:
            federation.say(node_of(hospital), rotation(federation, new))
            federation.rings[node_of(hospital)] = new
    standing = standing_quorum(federation.state, before)
    assert not standing.lost
    assert standing.able == set(HOSPITALS)


@attack(
    name="a node changes its keys again and again, and fills a checkpoint's note with its lines",
    exposed_by="the coordinator, which keeps only lines that count",
    evidence="one line of each hospital in the note",
)
def test_no_node_fills_a_note_with_its_lines(world: World, tmp_path: Path) -> None:
    federation = world.federation
    store = LogStore.open(f"sqlite:///{tmp_path / 'hub.db'}")
    copy = Replica.create(store, federation.leaves[0], federation.id)
    copy.extend(federation.leaves[1:], bare_note(federation))
    collecting = Cosignatures(store, log_of(federation), 3600.0)
    size, note = federation.log.size, bare_note(federation)
    collecting.open(federation.state, size, note)
    world.attack_begins()
    members = Members(federation, frozenset({"davos"}))
    for _ in range(4):
        ring = federation.rings[node_of("davos")]
        name = witness_name(federation.origin, ring.handle)
        collecting.add(federation.state, size, cosign(note, ring.witness, name, 1000))
        members.act(0, 0, 0)  # the lie: other keys for the same seat
    kept = collecting.note(size)
    assert kept is not None
    assert len(parse_note(kept).signatures) == 2
    world.exposed("the coordinator, which keeps only lines that count")
    store.close()


def test_a_line_whose_id_collides_with_another_key_is_its_makers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    federation = Federation.found()
    federation.finalize()
    note = federation.notes[federation.log.size]
    keys = witness_keys(federation.state, federation.log.size)
    genuine = key_id_of

    def colliding(name: str, kind: int, public: bytes) -> bytes:
        """As if bern had looked for a key whose id, under bern's name, basel's has too."""
        theirs = bytes.fromhex(next(iter(federation.state.witnesses[-1].organisations["basel"])))
        mine = federation.rings[node_of("bern")].witness.public
        bern = name.endswith(node_of("bern")) and public == theirs
        return genuine(name, kind, mine if bern else public)

    monkeypatch.setattr("ledger.formats.cosigned.key_id_of", colliding)
    quorum = judge_quorum(note, log_of(federation), keys)
    assert set(quorum.signed) == set(HOSPITALS)


# --- notes ----------------------------------------------------------------------------------------

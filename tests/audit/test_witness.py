"""A witness from outside: the protocol over HTTP, looks at a log, forks, and what survives a crash."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson
import pytest

from audit.errors import WitnessUnusable
from audit.witness.outside import OutsideWitness, add_log
from audit.witness.serve import Health, Listening, look_once, make_app
from ledger.copies.evidence import judge_fork, read_fork
from ledger.copies.store import LogStore
from ledger.errors import ForkDetected, StoreUnusable
from ledger.formats.checkpoint import Checkpoint, sign_checkpoint
from ledger.formats.merkle import leaf_hash
from ledger.formats.merkle_tree import MerkleTree
from ledger.formats.note import VerifierKey, parse_note, verify_note
from ledger.formats.tile_folder import export_tiles, folder
from ledger.formats.tiles import Fetch
from ledger.formats.tlog_policy import Log
from ledger.formats.witness import AddCheckpoint, checkpoint_path, parse_size_answer
from tests.ledger.formats import worked
from tests.patience import PATIENCE_S
from tests.shared_data import shared

NAME = "example.com/witness"
SECRET = b"open sesame"
NOW_S = 1_700_000_000
LEAVES = [b"entry %d" % at for at in range(700)]
LIES = [b"entry %d" % (at if at != 3 else 99) for at in range(700)]


def tree_of(leaves: list[bytes]) -> MerkleTree:
    return MerkleTree.from_leaves(map(leaf_hash, leaves))


TREE, LIE = tree_of(LEAVES), tree_of(LIES)


def signed(size: int, tree: MerkleTree = TREE) -> bytes:
    return sign_checkpoint(worked.LOG_KEY, Checkpoint(worked.ORIGIN, size, tree.root(size)))


def ask(old: int, size: int, tree: MerkleTree = TREE) -> bytes:
    return AddCheckpoint(old, tree.consistency(min(old, size), size), signed(size, tree)).encode()


def shown(directory: Path, size: int, leaves: list[bytes] = LEAVES) -> Fetch:
    """A log's files, as a server shows them."""
    export_tiles(lambda a, b: leaves[a:b], signed(size, tree_of(leaves)), worked.LOG, directory)
    return folder(directory)


@dataclass
class Auditor:
    """A witness on disk that listens."""

    home: Path
    witness: OutsideWitness
    url: str

    def post(self, body: bytes) -> httpx.Response:
        return httpx.post(f"{self.url}/add-checkpoint", content=body, timeout=PATIENCE_S)

    def monitored(self, origin: str = worked.ORIGIN) -> httpx.Response:
        return httpx.get(f"{self.url}/{checkpoint_path(origin)}", timeout=PATIENCE_S)

    def healthz(self) -> tuple[int, str]:
        answer = httpx.get(f"{self.url}/healthz", timeout=PATIENCE_S)
        return answer.status_code, answer.text


def new_home(path: Path, log: VerifierKey = worked.LOG) -> Path:
    OutsideWitness.create(path, NAME, SECRET, strength="interactive")
    add_log(path, log, None)
    return path


def opened(home: Path) -> OutsideWitness:
    return OutsideWitness(home, SECRET, lambda: NOW_S)


@pytest.fixture
def auditor(tmp_path: Path) -> Iterator[Auditor]:
    yield from listening(new_home(tmp_path / "w"))


def listening(home: Path) -> Iterator[Auditor]:
    witness = opened(home)
    server = Listening(make_app(witness, Health()), "127.0.0.1", 0)
    yield Auditor(home, witness, server.url)
    server.close()
    witness.close()


# --- the protocol, over HTTP --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "steps"),
    [("sunlight_add_checkpoint.json", 11), ("litewitness_add_checkpoint.json", 9)],
)
@pytest.mark.parametrize("canonical", [False, True])
def test_published_sequences_are_answered_over_http_as_published(
    tmp_path: Path, name: str, steps: int, canonical: bool
) -> None:
    """But for one step each, whose false signature is also spelt in non-canonical base64.

    Go's decoder reads ``gx=`` as ``gw=`` and goes on to find the signature false (403); ours refuses
    the spelling before (400). Spelt canonically, it gets 403 here too.
    """
    vector = orjson.loads(shared("vectors", "witness", name).read_bytes())
    log = VerifierKey(vector["log_vkey_origin"], bytes.fromhex(vector["log_pub_hex"]))
    played = 0
    for auditor in listening(new_home(tmp_path / "w", log)):
        differing = []
        for step in vector["steps"]:
            body = step["body"].encode()
            if canonical:
                body = body.replace(b"WVrx6gx=", b"WVrx6gw=")
            answer = auditor.post(body)
            played += 1
            expected = step.get("status_v1.0", step["status"])
            if answer.status_code != expected:
                differing.append((expected, answer.status_code))
                continue
            if expected == 409:
                assert answer.text == step["want"]
                assert answer.headers["content-type"] == "text/x.tlog.size"
            elif expected == 200:
                assert answer.text.startswith(step["want"] + " ")
                assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert differing == ([] if canonical else [(403, 400)])
        assert auditor.monitored(log.name).status_code == 200
    assert played == steps


def test_a_log_that_grows_is_cosigned_and_monitors_read_it(auditor: Auditor) -> None:
    assert auditor.monitored().status_code == 404
    for old, size in ((0, 0), (0, 5), (5, 5), (5, 300)):
        answer = auditor.post(ask(old, size))
        assert answer.status_code == 200, answer.text
        note = signed(size) + answer.content
        _, verified = verify_note(note, (worked.LOG, auditor.witness.vkey))
        assert [v.time_s for v in verified] == [None, NOW_S]
        assert auditor.monitored().content == note
    assert auditor.monitored("example.org/another").status_code == 404
    published = auditor.home / "cosigned" / checkpoint_path(worked.ORIGIN)
    assert published.read_bytes() == auditor.monitored().content


def test_each_refusal_has_its_status_and_moves_nothing(auditor: Auditor) -> None:
    auditor.post(ask(0, 7))
    stranger = sign_checkpoint(worked.WITNESS_KEY, Checkpoint(worked.ORIGIN, 9, TREE.root(9)))
    elsewhere = sign_checkpoint(worked.LOG_KEY, Checkpoint("elsewhere", 9, TREE.root(9)))
    for body, status in (
        (b"hello", 400),
        (b"x" * 300_000, 400),
        (ask(9, 8), 400),
        (AddCheckpoint(0, (), elsewhere).encode(), 404),
        (AddCheckpoint(7, TREE.consistency(7, 9), stranger).encode(), 403),
        (ask(6, 9), 409),
        (AddCheckpoint(7, TREE.consistency(6, 9), signed(9)).encode(), 422),
    ):
        answer = auditor.post(body)
        assert answer.status_code == status, answer.text
        if status == 409:
            assert parse_size_answer(answer.content) == 7
    assert auditor.monitored().content.startswith(signed(7))
    assert auditor.healthz() == (200, "ok\n")


def test_requests_that_race_move_the_size_forward_only(auditor: Auditor) -> None:
    auditor.post(ask(0, 1))
    sizes = list(range(2, 26))
    answers: dict[int, int] = {}

    def send(size: int) -> None:
        answers[size] = auditor.post(ask(1, size)).status_code

    threads = [threading.Thread(target=send, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers.values()) == [200] + [409] * (len(sizes) - 1)
    (winner,) = (size for size, status in answers.items() if status == 200)
    assert auditor.monitored().content.startswith(signed(winner))


def test_what_was_cosigned_is_known_after_a_restart(tmp_path: Path) -> None:
    home = new_home(tmp_path / "w")
    for auditor in listening(home):
        assert auditor.post(ask(0, 7)).status_code == 200
        before = auditor.monitored().content
    for auditor in listening(home):
        assert auditor.monitored().content == before
        assert auditor.post(ask(0, 5)).text == "7\n"
        assert auditor.post(ask(7, 9)).status_code == 200


def test_nothing_is_cosigned_that_could_not_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost, and stored but reported lost: no answer leaves, and the next request is judged rightly."""
    witness = opened(new_home(tmp_path / "w"))
    honest = LogStore.set_witnessed

    def lost(*given: object, **named: object) -> None:
        raise StoreUnusable("witness.db", "the disk is full")

    def reported_lost(*given: object, **named: object) -> None:
        honest(*given, **named)  # type: ignore[arg-type]
        raise StoreUnusable("witness.db", "the disk is full")

    for broken, size in ((lost, 0), (reported_lost, 7)):
        with monkeypatch.context() as patch:
            patch.setattr(LogStore, "set_witnessed", broken)
            with pytest.raises(StoreUnusable):
                witness.add_checkpoint(ask(0, 7))
        assert witness.add_checkpoint(ask(3, 9)).body == b"%d\n" % size
    witness.close()


# --- forks --------------------------------------------------------------------------------------


def test_two_roots_of_one_size_are_kept_and_the_log_is_cosigned_no_more(tmp_path: Path) -> None:
    home = new_home(tmp_path / "w")
    for auditor in listening(home):
        auditor.post(ask(0, 7))
        assert auditor.post(AddCheckpoint(7, (), signed(7, LIE)).encode()).status_code == 422
        status, text = auditor.healthz()
        assert (status, text.startswith("forked: ")) == (503, True)
        assert auditor.post(ask(7, 9)).status_code == 503
        (place,) = auditor.witness.forks
    notes = [(place / f"{whose}.note").read_bytes() for whose in ("ours", "theirs")]
    assert "two different trees of 7" in judge_fork(read_fork(*notes), worked.LOG)
    for auditor in listening(home):  # a restart does not heal it
        assert auditor.healthz()[0] == 503
        assert auditor.post(ask(7, 9)).status_code == 503


def test_a_look_at_a_log_that_was_rewritten_between_two_sizes_convinces_anybody(
    tmp_path: Path,
) -> None:
    witness = opened(new_home(tmp_path / "w"))
    assert witness.look(worked.LOG, shown(tmp_path / "a", 300)).cosigned
    with pytest.raises(ForkDetected, match="do not begin with the 300 cosigned"):
        witness.look(worked.LOG, shown(tmp_path / "b", 700, LIES))
    (place,) = witness.forks
    evidence = read_fork((place / "ours.proof").read_bytes(), (place / "theirs.note").read_bytes())
    assert "does not begin with them" in judge_fork(evidence, worked.LOG)
    newest = witness.newest(checkpoint_path(worked.ORIGIN))
    assert newest is not None
    assert parse_note(newest).text == parse_note(signed(300)).text  # what stays trusted
    witness.close()


# --- looks --------------------------------------------------------------------------------------


def test_a_log_is_followed_over_its_tiles_from_size_to_size(tmp_path: Path) -> None:
    witness = opened(new_home(tmp_path / "w"))
    for size in (1, 255, 256, 300, 300, 700):
        found = witness.look(worked.LOG, shown(tmp_path / "log", size))
        assert (found.size, found.cosigned, found.problem) == (size, True, None)
    newest = witness.newest(checkpoint_path(worked.ORIGIN))
    assert newest is not None
    assert newest.startswith(signed(700))
    witness.close()


def test_an_older_checkpoint_is_not_cosigned_and_said(tmp_path: Path) -> None:
    witness = opened(new_home(tmp_path / "w"))
    witness.look(worked.LOG, shown(tmp_path / "a", 300))
    found = witness.look(worked.LOG, shown(tmp_path / "b", 200))
    assert not found.cosigned
    assert found.problem == "shows 200 entries, and 300 were cosigned: old, or rolled back"
    assert witness.forks == ()
    witness.close()


def test_a_log_that_cannot_be_reached_turns_health_red_until_it_can(tmp_path: Path) -> None:
    home = new_home(tmp_path / "w")
    witness, health = opened(home), Health()
    away = Log(worked.LOG, "http://127.0.0.1:9")
    look_once(witness, health, lambda log, found: None, logs=(away,))
    assert "127.0.0.1:9" in health.problems[worked.ORIGIN]
    server = Listening(make_app(witness, health), "127.0.0.1", 0)
    assert httpx.get(f"{server.url}/healthz", timeout=PATIENCE_S).status_code == 503
    server.close()
    witness.close()


# --- its directory ------------------------------------------------------------------------------


def test_a_key_that_is_no_logs_and_a_second_key_for_a_log_are_refused(tmp_path: Path) -> None:
    home = new_home(tmp_path / "w")
    with pytest.raises(WitnessUnusable, match="is no log's key: its type is 0x04"):
        add_log(home, worked.WITNESS, None)
    with pytest.raises(WitnessUnusable, match="names another key for example"):
        add_log(home, VerifierKey(worked.ORIGIN, worked.WITNESS_KEY.public), None)
    with pytest.raises(WitnessUnusable, match="is not empty"):
        OutsideWitness.create(home, NAME, SECRET)
    with pytest.raises(WitnessUnusable, match="--name"):
        OutsideWitness.create(tmp_path / "x", "two words", SECRET)
    OutsideWitness.create(
        tmp_path / "y", f"{worked.ORIGIN}/witness/x", SECRET, strength="interactive"
    )
    add_log(tmp_path / "y", worked.LOG, None)
    with pytest.raises(WitnessUnusable, match="is one for members of"):
        opened(tmp_path / "y")

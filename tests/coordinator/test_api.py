"""The API on a real socket: followers, entries, proofs, health."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.entries.operations.audits import LedgerReviewed
from ledger.entries.operations.log import TimeNoted
from ledger.errors import CoordinatorUnreachable, NotWitnessed, RequestRefused
from ledger.exchange.client import CoordinatorClient
from ledger.exchange.follow import follow_once
from ledger.formats.merkle import verify_consistency, verify_inclusion
from ledger.formats.strict import decode_b64
from tests.coordinator.asking import BASEL, refusal
from tests.coordinator.serving import Serving
from tests.federation import Federation, node_of
from tests.patience import PATIENCE_S

REVIEWED = LedgerReviewed(type="ledger.reviewed", size=0, root="0" * 64, finding="in_order")


def test_a_follower_holds_a_verified_copy_of_everything(serving: Serving, replica: Replica) -> None:
    with serving.client(BASEL) as client:
        assert client.genesis() == serving.federation.leaves[0]
        while follow_once(replica, client):
            pass
        assert client.checkpoint().startswith(replica.origin.encode())
    assert replica.size == serving.federation.log.size
    assert replica.state == serving.federation.state
    assert replica.final.size == serving.coordinator.sequencer.view.final_size


def test_a_follower_hears_of_an_entry_at_once(serving: Serving, replica: Replica) -> None:
    with serving.client(BASEL) as client:
        while follow_once(replica, client):
            pass
        entry = serving.federation.entry(BASEL, REVIEWED)
        with serving.client() as other:
            timer = threading.Timer(0.2, other.submit, [entry.leaf])
            timer.start()
            (news,) = follow_once(replica, client, wait_s=20.0)
            timer.join()
    assert news.entry.hash == entry.hash


def test_a_follower_hears_of_a_final_checkpoint_at_once(serving: Serving, replica: Replica) -> None:
    serving.say(BASEL, REVIEWED)
    with serving.client(BASEL) as client:
        while follow_once(replica, client):
            pass
        before = replica.final.size
        handles = [node_of(name) for name in ("basel", "bern", "chur")]
        timer = threading.Timer(0.2, serving.cosign, handles)
        timer.start()
        assert follow_once(replica, client, wait_s=20.0) == []
        timer.join()
    assert before < replica.final.size == replica.size
    assert replica.final.quorum is not None
    assert set(replica.final.quorum.signed) == {"basel", "bern", "chur"}


def test_a_follower_without_news_is_answered_when_its_wait_is_over(
    serving: Serving, replica: Replica
) -> None:
    with serving.client(BASEL) as client:
        while follow_once(replica, client):
            pass
        assert follow_once(replica, client, wait_s=0.05) == []


def test_a_batch_ends_where_a_checkpoint_is(serving: Serving) -> None:
    for _ in range(3):
        serving.say(BASEL, REVIEWED)
    with serving.client(BASEL) as client:
        size = 1
        while (news := client.follow(size, 2**40)).leaves:
            size += len(news.leaves)
            assert news.checkpoint is not None
            assert int(news.checkpoint.split(b"\n")[1]) == size
    assert size == serving.federation.log.size


def test_a_follower_who_has_more_shows_the_coordinator_that_it_was_rolled_back(
    serving: Serving, tmp_path: Path
) -> None:
    ahead = serving.federation
    for _ in range(2):
        ahead.say(BASEL, REVIEWED)
    ahead.persist(tmp_path / "ahead").close()
    store = LogStore.open(f"sqlite:///{tmp_path / 'ahead' / 'ledger.db'}")
    replica = Replica.open(store, ahead.id)
    with serving.client(BASEL) as client:
        with pytest.raises(RequestRefused, match="rolled back") as caught:
            follow_once(replica, client)
        assert (caught.value.status, caught.value.error) == (409, "RolledBack")
        with pytest.raises(RequestRefused) as stopped:
            client.submit(ahead.entry(BASEL, REVIEWED).leaf)
    assert (stopped.value.status, stopped.value.error) == (503, "NotSequencing")
    assert httpx.get(serving.url + "/readyz", timeout=PATIENCE_S).status_code == 503
    store.close()


def test_a_false_final_checkpoint_is_not_believed(serving: Serving, replica: Replica) -> None:
    with serving.client(BASEL) as client:
        while follow_once(replica, client):
            pass
        serving.say(BASEL, REVIEWED)
        note = client.checkpoint()
        while follow_once(replica, client):  # of it, and of what may have come since
            pass
        with pytest.raises(NotWitnessed, match="0 organisations cosigned where 3 must"):
            replica.accept_final(note)


# --- entries ------------------------------------------------------------------------------------


def test_an_entry_needs_no_login_and_the_same_bytes_get_the_same_receipt(
    serving: Serving,
) -> None:
    leaf = serving.federation.entry(BASEL, REVIEWED).leaf
    with serving.client() as client:
        first = client.submit(leaf)
        assert (first.index, first.applied) == (serving.federation.log.size, True)
        assert client.submit(leaf) == first


def test_a_void_entry_is_told_why(serving: Serving) -> None:
    receipt = serving.say(BASEL, TimeNoted(type="time.noted"))
    assert (receipt.applied, receipt.reason) == (False, "not_permitted")


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        (lambda leaf: leaf[:-1], 400, "MalformedInput"),
        (lambda leaf: leaf[:-1] + bytes([leaf[-1] ^ 1]), 403, "BadSignature"),
        (lambda leaf: leaf * 200, 413, "BodyTooLarge"),
    ],
)
def test_a_broken_entry_is_refused_with_its_status(
    serving: Serving, change: object, status: int, error: str
) -> None:
    leaf = serving.federation.entry(BASEL, REVIEWED).leaf
    answer = httpx.post(serving.url + "/v1/entries", content=change(leaf), timeout=PATIENCE_S)  # type: ignore[operator]
    assert refusal(answer)[:2] == (status, error)


def test_an_entry_that_does_not_fit_says_what_would(serving: Serving) -> None:
    entry = serving.federation.entry(BASEL, REVIEWED)
    serving.say(BASEL, TimeNoted(type="time.noted"))
    with serving.client() as client, pytest.raises(RequestRefused) as caught:
        client.submit(entry.leaf)
    assert (caught.value.status, caught.value.error) == (409, "NotAdmitted")
    assert "its key's chain goes on with number" in caught.value.reason


def test_too_many_entries_are_told_to_wait(tmp_path: Path) -> None:
    federation = Federation.found(("basel",), now_ms=time.time_ns() // 1_000_000 - 60_000)
    with Serving(federation, tmp_path, quota_per_s=0.001, quota_burst=1) as serving:
        serving.say(BASEL, REVIEWED)
        leaf = serving.federation.entry(BASEL, REVIEWED).leaf
        answer = httpx.post(serving.url + "/v1/entries", content=leaf, timeout=PATIENCE_S)
    assert refusal(answer)[:2] == (429, "QuotaExceeded")
    assert int(answer.headers["retry-after"]) > 1


# --- proofs and health --------------------------------------------------------------------------


def test_proofs_verify_against_the_log(serving: Serving) -> None:
    federation = serving.federation
    size, root = federation.log.size, federation.log.tree.root()
    at = httpx.get(
        serving.url + f"/v1/proofs/inclusion?index=7&size={size}", timeout=PATIENCE_S
    ).json()["hashes"]
    verify_inclusion(
        index=7,
        size=size,
        leaf=federation.log.tree.leaf(7),
        proof=tuple(decode_b64(h) for h in at),
        root=root,
    )
    grown = httpx.get(
        serving.url + f"/v1/proofs/consistency?old=9&new={size}", timeout=PATIENCE_S
    ).json()["hashes"]
    verify_consistency(
        old_size=9,
        new_size=size,
        old_root=federation.log.tree.root(9),
        new_root=root,
        proof=tuple(decode_b64(h) for h in grown),
    )


@pytest.mark.parametrize("query", ["inclusion?index=0&size=9999", "consistency?old=1&new=9999"])
def test_a_proof_beyond_the_log_is_refused(serving: Serving, query: str) -> None:
    answer = httpx.get(f"{serving.url}/v1/proofs/{query}", timeout=PATIENCE_S)
    assert refusal(answer)[:2] == (404, "OutsideTree")


def test_nonsense_is_refused_in_the_same_shape(serving: Serving) -> None:
    assert (
        refusal(
            httpx.get(serving.url + "/v1/proofs/inclusion?index=-1&size=x", timeout=PATIENCE_S)
        )[0]
        == 400
    )
    assert refusal(httpx.get(serving.url + "/v1/nothing", timeout=PATIENCE_S))[0] == 404
    assert refusal(httpx.delete(serving.url + "/v1/entries"))[0] == 405


def test_a_strangers_request_with_a_number_beyond_every_log_stops_nobody(serving: Serving) -> None:
    """Whoever reads a checkpoint knows what a witness's line looks like; none of this needs a key."""
    serving.cosign(node_of("basel"))
    note = httpx.get(f"{serving.url}/v1/checkpoint", timeout=PATIENCE_S).content
    line = next(each for each in note.splitlines(keepends=True) if b"basel-node" in each)
    for size in (serving.federation.log.size + 1, 2**53 - 1, 2**63, 10**30):
        answer = httpx.post(
            f"{serving.url}/v1/cosignatures?size={size}", content=line, timeout=PATIENCE_S
        )
        known = (409, "NotConsistent") if size < 2**53 else (400, "MalformedInput")
        assert refusal(answer)[:2] == known
    for query in (f"size=0&final={2**63}", f"size={2**63}"):
        assert refusal(httpx.get(f"{serving.url}/v1/log?{query}", timeout=PATIENCE_S))[0] == 400
    assert serving.coordinator.sequencer.view.stopped is None


def test_health_and_metrics_are_public_and_tell_sizes_only(serving: Serving) -> None:
    assert httpx.get(serving.url + "/healthz", timeout=PATIENCE_S).json() == {"alive": True}
    assert httpx.get(serving.url + "/readyz", timeout=PATIENCE_S).json()["ready"] is True
    httpx.get(serving.url + "/v1/genesis", timeout=PATIENCE_S)
    text = httpx.get(serving.url + "/metrics", timeout=PATIENCE_S).text
    assert f"consilium_log_entries {serving.federation.log.size}\n" in text
    assert 'route="/v1/genesis",status="200"} 1' in text
    assert "basel" not in text


def test_the_read_models_agree_with_the_state(serving: Serving) -> None:
    state = serving.federation.state
    with serving.client(BASEL) as client:
        assert client.summary()["experiments"] == {"released": 1}
        assert {m["handle"] for m in client.read("members")} == set(state.members)
        assert [d["dataset"] for d in client.read("datasets")] == ["basel-heart", "bern-heart"]
        (brief,) = client.read("experiments")
        full = client.read(f"experiments/{brief['id']}")
        assert full["reservations"]["basel-heart"]["served"] == 1
        with pytest.raises(RequestRefused, match="outside this tree"):
            client.read("experiments/00")


def test_a_coordinator_that_is_not_there_is_unreachable_with_advice() -> None:
    with (
        CoordinatorClient("http://127.0.0.1:1", federation="ab" * 32) as client,
        pytest.raises(CoordinatorUnreachable, match="nothing is done twice"),
    ):
        client.genesis()


def test_a_caller_that_dies_within_its_body_is_no_error_of_ours(
    serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    host, port = serving.url.removeprefix("http://").split(":")
    for path in ("/v1/entries", "/v1/cosignatures?size=3"):
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: hub\r\nContent-Length: 100\r\n\r\n"
            connection.sendall(head.encode() + b"half")
            time.sleep(0.05)
    time.sleep(0.1)
    with httpx.Client(timeout=PATIENCE_S) as http:
        assert http.get(serving.url + "/healthz").status_code == 200
    assert "internal error" not in capsys.readouterr().out

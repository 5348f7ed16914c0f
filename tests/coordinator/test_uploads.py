"""What a member brings and no entry names has a limit of its own."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from coordinator.errors import DiskFull, NeverTaken, QuotaExceeded, StorageExceeded
from coordinator.http.upload_journal import UploadJournal
from coordinator.http.uploads import UploadLimits, Uploads
from coordinator.settings import UPLOADS
from ledger.copies.blobs import BlobStore, blob_ref
from ledger.entries.cards import DatasetCard, seal_card
from ledger.errors import RequestRefused
from ledger.exchange.client import CoordinatorClient
from ledger.exchange.messages import LEAF_TYPE
from ledger.formats.value import replace
from tests.adversary.changes import weak_policy
from tests.coordinator.serving import Serving
from tests.federation import Federation, node_of, steward_of


def test_what_entries_name_costs_nothing_and_members_do_not_crowd_one_another() -> None:
    named: set[str] = set()
    uploads = Uploads(UploadLimits(10), named.__contains__)
    uploads.claim("basel", "a", 6)
    uploads.claim("basel", "a", 6)  # its next part
    with pytest.raises(StorageExceeded, match="say the entries that name them first"):
        uploads.claim("basel", "b", 5)
    uploads.claim("bern", "b", 10)
    named.add("a")
    with pytest.raises(StorageExceeded):  # it is named, and not whole
        uploads.claim("basel", "b", 10)
    uploads.arrived("a")
    uploads.claim("basel", "b", 10)
    uploads.release("basel", "b")
    uploads.claim("basel", "c", 10)


def test_what_was_stated_once_of_an_unfinished_upload_holds() -> None:
    uploads = Uploads(UploadLimits(10), lambda _: False)
    uploads.claim("basel", "a", 8)
    uploads.claim("basel", "a", 1)
    with pytest.raises(StorageExceeded):
        uploads.claim("basel", "b", 5)
    uploads.release("basel", "b")
    uploads.hold("basel", "b", 5)  # taken while another request let go of it
    with pytest.raises(StorageExceeded):
        uploads.claim("basel", "c", 1)


def test_many_small_blobs_are_bounded_by_their_number() -> None:
    uploads = Uploads(UploadLimits(2**32, blobs=3), lambda _: False)
    for name in "abc":
        uploads.claim("basel", name, 1)
    with pytest.raises(StorageExceeded, match="3 blobs"):
        uploads.claim("basel", "d", 1)
    uploads.claim("basel", "c", 2)


def test_a_member_cannot_fill_the_disk_with_what_nobody_names(tmp_path: Path) -> None:
    federation = Federation.found(("basel", "bern"))
    federation.register_dataset("basel")
    card = seal_card(DatasetCard(title="Herz"))
    with Serving(federation, tmp_path, unnamed_limit=2000) as serving:
        with serving.client(node_of("basel")) as client, serving.client(node_of("bern")) as other:
            client.put_blob(card.blob)
            client.put_blob(card.blob)
            with pytest.raises(RequestRefused, match="no entry names") as refused:
                client.put_blob(os.urandom(1900))
            assert refused.value.status == 429
            other.put_blob(os.urandom(1900))
            terms = federation.state.datasets["basel-heart"].terms
            op = replace(terms, card=card.commitment)
            assert serving.say(node_of("basel"), op).applied
            client.put_blob(os.urandom(1900))
        assert serving.coordinator.blobs.has(blob_ref(card.blob))


def test_no_refused_request_lets_parts_pile_up_that_nobody_counts(tmp_path: Path) -> None:
    federation = Federation.found(("basel", "bern"))
    federation.register_dataset("basel")
    with (
        Serving(federation, tmp_path, unnamed_limit=2000) as serving,
        serving.client(node_of("basel")) as client,
    ):
        blobs = serving.coordinator.blobs
        kept = 0
        for _ in range(4):
            begun = os.urandom(32).hex()
            with suppress(RequestRefused):  # 429 in time
                put(client, begun, 0, 901, bytes(900))
                put(client, begun, 0, 1, b"x")  # refused, as if nothing were here
            kept += blobs.open_upload(begun).offset
            with suppress(RequestRefused):
                whole = client.put_blob(os.urandom(900)).sha256
                kept += blobs.size(whole) or 0
                put(client, whole, 0, 1, b"x")
        assert 0 < kept <= 2000


def test_a_blob_that_is_here_takes_no_parts_that_nobody_counts(tmp_path: Path) -> None:
    federation = Federation.found(("basel", "bern"))
    federation.register_dataset("basel")
    with (
        Serving(federation, tmp_path, unnamed_limit=2000) as serving,
        serving.client(node_of("basel")) as client,
    ):
        schema = federation.state.datasets["basel-heart"].terms.schema_
        client.put_blob(federation.blobs[schema.sha256])
        with pytest.raises(RequestRefused) as refused:
            put(client, schema.sha256, 0, 2001, bytes(1900))
        assert refused.value.status == 413


def test_a_restart_gives_nobody_new_room_for_what_no_entry_names(tmp_path: Path) -> None:
    federation = Federation.found(("basel", "bern"))
    held: list[bytes] = []
    for _ in range(3):  # a member that brings junk, and waits for restarts
        with (
            Serving(federation, tmp_path, unnamed_limit=2000) as serving,
            serving.client(node_of("basel")) as client,
            serving.client(node_of("bern")) as other,
        ):
            for _ in range(2):
                junk = os.urandom(700)
                with suppress(RequestRefused):
                    client.put_blob(junk)
                    held.append(junk)
            begun = os.urandom(32).hex()
            with suppress(RequestRefused):
                put(client, begun, 0, 600, bytes(100))
            assert other.put_blob(b"mine" + os.urandom(4)), "others are not crowded by it"
            blobs = serving.coordinator.blobs
    assert len(held) == 2
    assert sum(blobs.size(blob_ref(junk).sha256) or 0 for junk in held) == 1400


def test_what_was_named_or_has_gone_meanwhile_counts_no_more_after_a_restart(
    tmp_path: Path,
) -> None:
    blobs, journal = BlobStore(tmp_path / "blobs"), UploadJournal(tmp_path / UPLOADS)
    gone = blob_ref(os.urandom(40))
    named, kept = blobs.put(os.urandom(40)), blobs.put(os.urandom(40))
    uploads = Uploads(UploadLimits(150), lambda _: False, journal=journal)
    for ref in (named, kept, gone):
        uploads.claim("basel", ref.sha256, ref.bytes)
        uploads.arrived(ref.sha256)
    again = Uploads(UploadLimits(150), {named.sha256}.__contains__, journal=journal)
    again.resume(blobs)
    assert journal.read() == {"basel": {kept.sha256: 40}}
    again.claim("basel", "d" * 64, 110)
    with pytest.raises(StorageExceeded):
        again.claim("basel", "e" * 64, 1)


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\n\n",
        b"basel " + b"a" * 64,
        b"basel " + b"a" * 64 + b" -5\n",
        b"\xff\x00" * 50,
        b"basel ../../x 5\n",
        b"basel " + b"a" * 64 + b" 9999999999999999999999\n",
    ],
)
def test_a_journal_that_was_cut_short_or_damaged_counts_what_is_whole_in_it(
    tmp_path: Path, junk: bytes
) -> None:
    journal = UploadJournal(tmp_path / UPLOADS)
    journal.add("bern", "b" * 64, 7)
    with (tmp_path / UPLOADS).open("ab") as file:
        file.write(junk)
    assert journal.read() == {"bern": {"b" * 64: 7}}


def test_a_journal_does_not_grow_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.http.upload_journal.SPARE_LINES", 20)
    journal = UploadJournal(tmp_path / UPLOADS)
    uploads = Uploads(UploadLimits(100), lambda _: False, journal=journal)
    for number in range(200):
        name = f"{number:064x}"
        uploads.claim("basel", name, 10)
        uploads.release("basel", name)
    assert len((tmp_path / UPLOADS).read_bytes().splitlines()) <= 22


def test_a_member_brings_so_much_a_day_and_no_more_named_or_not() -> None:
    now_s = [0.0]
    uploads = Uploads(UploadLimits(2**40, daily=864), lambda _: True, now_s=lambda: now_s[0])
    for name in "ab":
        uploads.claim("basel", name, 432)
        uploads.arrived(name)
    with pytest.raises(QuotaExceeded, match="basel sends too many bytes") as caught:
        uploads.claim("basel", "c", 10)
    assert caught.value.retry_after_s == pytest.approx(1000)
    uploads.claim("bern", "c", 864)
    now_s[0] = 1001.0
    uploads.claim("basel", "c", 10)


def test_an_upload_for_which_there_was_room_is_not_refused_for_the_room_that_it_took() -> None:
    disk = [1000]
    uploads = Uploads(UploadLimits(2**40, keep_free=100), lambda _: False, free=lambda: disk[0])
    for offset in range(0, 900, 100):
        uploads.claim("basel", "a", 900, offset)
        disk[0] -= 100
    assert disk == [100]
    with pytest.raises(DiskFull):
        uploads.claim("bern", "b", 1)


def test_two_uploads_that_do_not_fit_together_do_not_stall_each_other() -> None:
    disk, now_s = [1000], [0.0]
    uploads = Uploads(
        UploadLimits(2**40, keep_free=100),
        lambda _: False,
        free=lambda: disk[0],
        now_s=lambda: now_s[0],
    )
    uploads.claim("basel", "a", 600, 0, 100)
    with pytest.raises(DiskFull):  # it would fit beside the part that is here, not beside the rest
        uploads.claim("bern", "b", 600, 0, 100)
    uploads.claim("chur", "c", 300, 0, 300)  # fits beside all of it
    for offset in range(100, 700, 100):
        disk[0] -= 100
        uploads.landed("basel", "a", 700 - offset - 100)
        if offset < 600:
            uploads.claim("basel", "a", 600, offset, 100)
    uploads.arrived("a")
    disk[0] -= 300
    uploads.arrived("c")
    assert disk == [100]


def test_room_that_was_set_aside_lapses_when_nothing_comes_and_is_asked_for_again() -> None:
    disk, now_s = [1000], [0.0]
    uploads = Uploads(
        UploadLimits(2**40, keep_free=100),
        lambda _: False,
        free=lambda: disk[0],
        now_s=lambda: now_s[0],
    )
    uploads.claim("basel", "a", 900, 0, 10)
    disk[0] -= 10
    uploads.landed("basel", "a", 890)
    now_s[0] = 601.0
    uploads.claim("bern", "b", 500, 0, 500)
    with pytest.raises(DiskFull):
        uploads.claim("basel", "a", 900, 10, 10)
    uploads.arrived("b")
    uploads.claim("basel", "a", 900, 10, 10)


def test_parts_in_flight_do_not_pass_the_logs_room_together() -> None:
    disk = [1000]
    uploads = Uploads(UploadLimits(2**40, keep_free=100), lambda _: False, free=lambda: disk[0])
    for name in "abc":
        uploads.claim(name, name, 300, 0, 1)
        uploads.landed(name, name, 300)
    disk[0] = 450  # the log took the rest
    uploads.claim("a", "a", 300, 0, 150)
    uploads.claim("b", "b", 300, 0, 150)
    with pytest.raises(DiskFull):
        uploads.claim("c", "c", 300, 0, 150)
    uploads.landed("a", "a", None)
    uploads.claim("c", "c", 300, 0, 150)


def test_a_blob_that_is_larger_than_a_day_is_not_told_to_wait(tmp_path: Path) -> None:
    federation = Federation.found(("basel", "bern"))
    with (
        Serving(federation, tmp_path, daily_limit=2000) as serving,
        serving.client(node_of("basel")) as client,
    ):
        with pytest.raises(
            RequestRefused, match="waiting does not help; make it smaller"
        ) as refused:
            client.put_blob(os.urandom(2001))
        assert (refused.value.status, refused.value.error) == (413, "NeverTaken")
        assert "daily_limit" in refused.value.reason
        client.put_blob(os.urandom(1900))
    uploads = Uploads(UploadLimits(10), lambda _: False)
    with pytest.raises(NeverTaken, match="unnamed_limit"):
        uploads.claim("basel", "a", 11)


def test_a_journal_keeps_what_a_disk_takes_in_pieces_and_the_line_after_one_that_was_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, write, room = UploadJournal(tmp_path / UPLOADS), os.write, [10**6]

    def little(file: int, data: bytes) -> int:
        if room[0] <= 0:
            raise OSError(28, "No space left on device")
        room[0] -= 5
        return write(file, data[:5])

    monkeypatch.setattr(os, "write", little)
    journal.add("basel", "a" * 64, 7)
    room[0] = 20
    journal.add("basel", "b" * 64, 8)
    room[0] = 10**6
    journal.add("basel", "c" * 64, 9)
    assert journal.read() == {"basel": {"a" * 64: 7, "c" * 64: 9}}


def test_uploads_leave_the_log_its_room_on_the_disk(tmp_path: Path) -> None:
    uploads = Uploads(UploadLimits(2**40, keep_free=100), lambda _: False, free=lambda: 150)
    uploads.claim("basel", "a", 50)
    with pytest.raises(DiskFull, match="the 100 bytes that are kept for the log"):
        uploads.claim("bern", "b", 51)
    federation = Federation.found(("basel", "bern"))
    with Serving(federation, tmp_path, keep_free=2**62) as serving:
        with serving.client(node_of("basel")) as client:
            with pytest.raises(RequestRefused, match="disk is full but for") as refused:
                client.put_blob(os.urandom(100))
            assert (refused.value.status, refused.value.error) == (503, "DiskFull")
        assert serving.say(steward_of("basel"), weak_policy()).applied, "the log goes on"


def put(client: CoordinatorClient, sha256: str, offset: int, total: int, data: bytes) -> None:
    """One part of a blob, as a client of its own making sends it."""
    client._connection.call(
        "PUT",
        f"/v1/blobs/{sha256}?offset={offset}&total={total}",
        body=data,
        content_type=LEAF_TYPE,
        signed=True,
    )

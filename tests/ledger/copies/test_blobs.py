from __future__ import annotations

import os
import threading
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.copies.blobs import BlobStore, blob_ref
from ledger.entries.operations.values import BlobRef
from ledger.errors import BlobCorrupt, BlobMissing, MalformedInput, UploadOutOfStep

DATA = b"a model" * 1000
REF = BlobRef(sha256=sha256(DATA).hexdigest(), bytes=len(DATA))
BAD_NAMES = ["", "abc", "A" * 64, "../" + "a" * 61, "a" * 63 + "\n", "a" * 65, "é" * 64]


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def files(store: BlobStore) -> list[str]:
    found = (path for path in store.directory.rglob("*") if not path.is_dir())
    return sorted(str(path.relative_to(store.directory)) for path in found)


# --- put and get --------------------------------------------------------------------------------


def test_a_blob_comes_back_by_its_reference(blobs: BlobStore) -> None:
    assert blobs.put(DATA) == REF == blob_ref(DATA)
    assert blobs.put(DATA) == REF
    assert blobs.get(REF) == DATA
    assert blobs.has(REF)
    assert blobs.size(REF.sha256) == len(DATA)
    digest = REF.sha256
    assert files(blobs) == [f"{digest[:2]}/{digest[2:4]}/{digest}"]


def test_the_empty_blob_is_a_blob(blobs: BlobStore) -> None:
    assert blobs.get(blobs.put(b"")) == b""
    assert list(blobs.chunks(blob_ref(b"").sha256)) == []


def test_only_the_owner_may_read_the_files(blobs: BlobStore) -> None:
    blobs.put(DATA)
    for path in [blobs.directory, *blobs.directory.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0


def test_an_absent_blob_is_missing_by_type(blobs: BlobStore) -> None:
    with pytest.raises(BlobMissing, match="is not in this store; fetch it again") as caught:
        blobs.get(REF)
    assert caught.value.path == blobs.path(REF.sha256)
    assert not blobs.has(REF)
    assert blobs.size(REF.sha256) is None
    with pytest.raises(BlobMissing):
        list(blobs.chunks(REF.sha256))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_changed_file_is_never_handed_out_and_heals(
    blobs: BlobStore, data: st.DataObject
) -> None:
    blobs.put(DATA)
    path = blobs.path(REF.sha256)
    changed = bytearray(DATA)
    match data.draw(st.sampled_from(["flip", "cut", "grow"])):
        case "flip":
            at = data.draw(st.integers(0, len(DATA) - 1))
            changed[at] ^= 1 << data.draw(st.integers(0, 7))
        case "cut":
            del changed[data.draw(st.integers(0, len(DATA) - 1)) :]
        case "grow":
            changed += b"x"
    path.write_bytes(changed)
    with pytest.raises(BlobCorrupt) as caught:
        blobs.get(REF)
    assert caught.value.path == path
    assert str(path) in str(caught.value)
    assert blobs.put(DATA) == REF
    assert blobs.get(REF) == DATA


def test_a_reference_with_another_length_is_refused(blobs: BlobStore) -> None:
    blobs.put(DATA)
    other = BlobRef(sha256=REF.sha256, bytes=1)
    with pytest.raises(BlobCorrupt, match="has 7000 bytes where its reference says 1"):
        blobs.get(other)
    assert not blobs.has(other)


def test_chunks_go_on_from_anywhere(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.copies.blob_files.CHUNK", 1000)
    blobs.put(DATA)
    assert b"".join(blobs.chunks(REF.sha256, 1234)) == DATA[1234:]
    assert max(len(chunk) for chunk in blobs.chunks(REF.sha256)) == 1000
    assert list(blobs.chunks(REF.sha256, 10**6)) == []


def test_a_blob_over_the_limit_is_refused(tmp_path: Path) -> None:
    small = BlobStore(tmp_path, limit=10)
    small.put(b"x" * 10)
    with pytest.raises(MalformedInput, match="has 11 bytes; at most 10 are accepted"):
        small.put(b"x" * 11)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_no_hash_reaches_no_file(blobs: BlobStore, name: str) -> None:
    for use in (blobs.path, blobs.size, blobs.delete, blobs.open_upload):
        with pytest.raises(MalformedInput, match="is not 64 lowercase hexadecimal digits"):
            use(name)
    with pytest.raises(MalformedInput):
        list(blobs.chunks(name))
    assert files(blobs) == []


def test_an_erased_blob_is_gone_with_its_partial_upload(blobs: BlobStore) -> None:
    blobs.put(DATA)
    blobs.open_upload(REF.sha256).append(0, b"a mo")
    assert blobs.delete(REF.sha256)
    assert files(blobs) == []
    assert not blobs.delete(REF.sha256)
    assert not blobs.delete("0" * 64)


def test_no_temporary_file_stays_when_the_disk_is_full(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        blobs.put(DATA)
    assert files(blobs) == []
    assert not blobs.has(REF)


# --- links --------------------------------------------------------------------------------------


def test_a_link_in_place_of_a_blob_is_not_followed(blobs: BlobStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(DATA)
    path = blobs.path(REF.sha256)
    path.parent.mkdir(parents=True)
    path.symlink_to(outside)
    with pytest.raises(BlobCorrupt, match="cannot be opened"):
        blobs.get(REF)
    blobs.put(DATA)
    assert not path.is_symlink()
    assert outside.read_bytes() == DATA
    assert blobs.get(REF) == DATA


def test_a_link_in_place_of_a_directory_is_not_followed(blobs: BlobStore, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (blobs.directory / REF.sha256[:2]).symlink_to(elsewhere)
    (blobs.directory / "uploads").symlink_to(elsewhere)
    for use in (
        lambda: blobs.put(DATA),
        lambda: blobs.get(REF),
        lambda: blobs.open_upload(REF.sha256).append(0, DATA),
    ):
        with pytest.raises(BlobCorrupt, match="is no directory of this store"):
            use()
    assert list(elsewhere.iterdir()) == []


def test_a_link_in_place_of_a_partial_upload_is_not_followed(
    blobs: BlobStore, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"")
    (blobs.directory / "uploads").mkdir()
    (blobs.directory / "uploads" / f"{REF.sha256}.part").symlink_to(outside)
    with pytest.raises(OSError, match="symbolic links"):
        blobs.open_upload(REF.sha256).append(0, DATA)
    assert outside.read_bytes() == b""


@pytest.mark.parametrize("kind", ["directory", "pipe"])
def test_what_is_no_plain_file_is_not_handed_out(blobs: BlobStore, kind: str) -> None:
    path = blobs.path(REF.sha256)
    path.parent.mkdir(parents=True)
    if kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(BlobCorrupt, match="is no plain file"):
        blobs.get(REF)
    assert blobs.size(REF.sha256) is None


# --- uploads ------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.lists(st.integers(0, len(DATA)), max_size=4))
def test_an_upload_in_any_parts_gives_the_blob(blobs: BlobStore, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(DATA)]
    for low, high in pairwise(edges):
        upload = blobs.open_upload(REF.sha256)  # each part as after a restart
        assert upload.offset == low
        assert upload.append(low, DATA[low:high]) == high
    assert not blobs.has(REF)
    assert blobs.open_upload(REF.sha256).finish() == REF
    assert blobs.get(REF) == DATA
    assert len(files(blobs)) == 1
    blobs.delete(REF.sha256)


def test_a_part_out_of_step_is_told_where_to_go_on(blobs: BlobStore) -> None:
    upload = blobs.open_upload(REF.sha256)
    upload.append(0, DATA[:100])
    for offset in (0, 99, 101):
        with pytest.raises(UploadOutOfStep, match="go on at 100") as caught:
            upload.append(offset, b"x")
        assert caught.value.expected == 100
    upload.append(100, DATA[100:])
    assert upload.finish() == REF


def test_finishing_again_answers_again(blobs: BlobStore) -> None:
    upload = blobs.open_upload(REF.sha256)
    upload.append(0, DATA)
    assert upload.finish() == REF
    assert upload.finish() == REF
    assert upload.offset == 0
    empty = blobs.open_upload(sha256(b"").hexdigest())
    assert empty.finish() == blob_ref(b"")


def test_an_upload_with_other_bytes_is_refused_and_dropped(blobs: BlobStore) -> None:
    upload = blobs.open_upload(REF.sha256)
    upload.append(0, DATA[:-1] + b"?")
    with pytest.raises(MalformedInput, match="its 7000 bytes have another SHA-256"):
        upload.finish()
    assert upload.offset == 0
    assert files(blobs) == []
    assert not blobs.has(REF)


def test_an_upload_over_the_limit_is_refused_before_it_is_written(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, limit=10)
    upload = store.open_upload(sha256(b"x" * 11).hexdigest())
    upload.append(0, b"x" * 6)
    with pytest.raises(MalformedInput, match="grows beyond the 10 bytes accepted"):
        upload.append(6, b"x" * 5)
    assert upload.offset == 6


def test_abandoned_and_expired_uploads_leave_nothing(blobs: BlobStore) -> None:
    first, second = (blobs.open_upload(digit * 64) for digit in "12")
    first.append(0, b"x")
    second.append(0, b"y")
    first.abandon()
    first.abandon()
    part = blobs.directory / "uploads" / f"{second.sha256}.part"
    assert blobs.expire_uploads(before=part.stat().st_mtime - 1) == 0
    assert second.offset == 1
    assert blobs.expire_uploads(before=part.stat().st_mtime + 1) == 1
    assert files(blobs) == []


def test_two_uploaders_of_one_blob_do_not_mix_their_parts(blobs: BlobStore) -> None:
    step = 500
    start = threading.Barrier(3)
    done: list[BlobRef] = []

    def send() -> None:
        upload = blobs.open_upload(REF.sha256)
        start.wait()
        at = 0
        while at < len(DATA) and not blobs.has(REF):
            try:
                at = upload.append(at, DATA[at : at + step])
            except UploadOutOfStep as error:
                at = error.expected
        done.append(upload.finish())

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [REF] * 3
    assert blobs.get(REF) == DATA

"""A bundle has one spelling: what is read is what was written, and anything else is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ledger.copies.blobs import BlobStore
from ledger.copies.bundle import MAGIC, Bundle, export_bundle, read_bundle, scan_bundle
from ledger.copies.store import LogStore
from ledger.entries.operations.values import BlobRef
from ledger.errors import BlobMissing, MalformedInput
from tests.federation import Federation

Section = tuple[bytes, bytes]


@pytest.fixture(scope="module")
def federation() -> Federation:
    made = Federation.found()
    made.finalize()
    made.start()
    made.finalize()
    return made


@pytest.fixture(scope="module")
def exported(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    store = federation.persist(home)
    path = home / "x.consilium"
    refs = [BlobRef(sha256=name, bytes=len(data)) for name, data in federation.blobs.items()]
    assert export_bundle(store, BlobStore(home / "blobs"), path, refs) == ()
    store.close()
    return path


def sections(path: Path) -> list[Section]:
    data, at, found = path.read_bytes(), len(MAGIC), []
    while at < len(data):
        length = int.from_bytes(data[at + 4 : at + 12], "big")
        found.append((data[at : at + 4], data[at + 12 : at + 12 + length]))
        at += 12 + length
    return found


def assemble(path: Path, parts: list[Section]) -> Path:
    """A bundle of these sections with a digest that fits, as a forger would write it."""
    data = MAGIC + b"".join(t + len(p).to_bytes(8, "big") + p for t, p in parts if t != b"HASH")
    path.write_bytes(data + b"HASH" + (32).to_bytes(8, "big") + hashlib.sha256(data).digest())
    return path


def test_what_was_written_is_read(federation: Federation, exported: Path) -> None:
    bundle = read_bundle(exported)
    assert list(bundle.leaves()) == federation.leaves
    assert list(bundle.leaves(3, 5)) == federation.leaves[3:5]
    assert [note.size for note in bundle.checkpoints] == sorted(federation.notes)
    assert [note.size for note in bundle.finals] == sorted(federation.finals)
    assert set(bundle.blobs) == set(federation.blobs)
    for name, data in federation.blobs.items():
        assert bundle.blob(name) == data


def test_the_same_copy_exports_to_the_same_bytes(exported: Path, tmp_path: Path) -> None:
    store = LogStore.open(f"sqlite:///{exported.parent / 'ledger.db'}")
    again = tmp_path / "again.consilium"
    blobs = BlobStore(exported.parent / "blobs")
    refs = [
        BlobRef(sha256=name, bytes=span.length)
        for name, span in read_bundle(exported).blobs.items()
    ]
    export_bundle(store, blobs, again, reversed([*refs, *refs]))
    store.close()
    assert again.read_bytes() == exported.read_bytes()


def test_blobs_that_are_not_here_are_told_and_left_out(exported: Path, tmp_path: Path) -> None:
    store = LogStore.open(f"sqlite:///{exported.parent / 'ledger.db'}")
    wanted = BlobRef(sha256="ab" * 32, bytes=5)
    target = tmp_path / "thin.consilium"
    assert export_bundle(store, None, target, [wanted]) == (wanted,)
    store.close()
    with pytest.raises(BlobMissing, match="ask for a fuller export"):
        read_bundle(target).blob(wanted.sha256)


def test_a_failed_export_leaves_no_file(exported: Path, tmp_path: Path) -> None:
    store = LogStore.open(f"sqlite:///{tmp_path / 'empty.db'}")
    with pytest.raises(MalformedInput, match="no log to export"):
        export_bundle(store, None, tmp_path / "x.consilium")
    store.close()
    assert not list(tmp_path.glob("*consilium*"))


def test_every_section_out_of_order_or_twice_is_refused_even_with_a_fitting_digest(
    exported: Path, tmp_path: Path
) -> None:
    parts = sections(exported)
    by_tag: dict[bytes, list[int]] = {}
    for at, (tag, _) in enumerate(parts):
        by_tag.setdefault(tag, []).append(at)
    for tag in (b"SIGN", b"FINA", b"BLOB"):
        first, second = by_tag[tag][:2]
        swapped = list(parts)
        swapped[first], swapped[second] = parts[second], parts[first]
        refused(assemble(tmp_path / "x", swapped), "twice, or out of order")
        refused(assemble(tmp_path / "x", [*parts[:second], parts[first], *parts[second:]]), "twice")
    moved = [*parts[by_tag[b"BLOB"][0] :], *parts[: by_tag[b"BLOB"][0]]]
    refused(assemble(tmp_path / "x", moved), "after BLOB")


def test_slack_bytes_unknown_sections_and_short_files_are_refused(
    exported: Path, tmp_path: Path
) -> None:
    data = exported.read_bytes()
    target = tmp_path / "x"
    target.write_bytes(data + b"\n")
    refused(target, "after the last section")
    for length in (0, 5, len(MAGIC), len(MAGIC) + 7, len(data) // 2, len(data) - 1):
        target.write_bytes(data[:length])
        with pytest.raises(MalformedInput, match=r"^bundle byte"):
            read_bundle(target)
    parts = sections(exported)
    refused(assemble(target, [(b"MORE", b"x"), *parts]), "no section is called")
    refused(assemble(target, [(b"ENTR", b""), *parts]), "a section ENTR of 0 bytes")
    refused(assemble(target, []), "it holds no entry")


def test_a_length_beyond_the_file_is_refused_before_it_is_read(
    exported: Path, tmp_path: Path
) -> None:
    data = bytearray(exported.read_bytes())
    at = data.index(b"BLOB") + 4
    data[at : at + 8] = (200 * 2**20).to_bytes(8, "big")
    (tmp_path / "x").write_bytes(data)
    refused(tmp_path / "x", "ends after the file does")


def test_a_blob_under_another_name_is_refused(exported: Path, tmp_path: Path) -> None:
    parts = sections(exported)
    at = next(i for i, (tag, _) in enumerate(parts) if tag == b"BLOB")
    tag, payload = parts[at]
    parts[at] = (tag, payload[:32] + b"other" + payload[37:])
    refused(assemble(tmp_path / "x", parts), "does not have its SHA-256")


def test_a_scan_goes_on_past_a_changed_content_so_that_its_place_can_be_found(
    exported: Path, tmp_path: Path
) -> None:
    data = bytearray(exported.read_bytes())
    data[data.index(b'"author"')] ^= 1
    (tmp_path / "x").write_bytes(data)
    bundle = scan_bundle(tmp_path / "x")
    assert isinstance(bundle, Bundle)
    assert [fault.where for fault in bundle.faults] == ["bundle digest"]


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ((b"SIGN", b"x"), "the 101 before it"),
        ((b"BLOB", bytes(32)), "the 101 before it"),
        ((b"ENTR", b"x"), "a section ENTR of 1 bytes"),
    ],
)
def test_a_file_of_nothing_but_faults_is_given_up(
    exported: Path, tmp_path: Path, section: Section, reason: str
) -> None:
    parts = [(tag, payload) for tag, payload in sections(exported) if tag == b"ENTR"]
    path = assemble(tmp_path / "x", parts + [section] * 1000)
    with pytest.raises(MalformedInput, match=reason):
        scan_bundle(path)


def refused(path: Path, reason: str) -> None:
    with pytest.raises(MalformedInput, match=reason) as caught:
        read_bundle(path)
    assert caught.value.where.startswith("bundle")

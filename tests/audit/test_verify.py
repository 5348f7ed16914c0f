"""Verification proves an honest copy, and names the place of any change."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from audit.verification.findings import STEPS, Report
from audit.verification.sources import parse_trust
from audit.verification.verify import verify_at
from ledger.copies.evidence import Fork
from ledger.copies.store import LogStore
from ledger.entries.operations.experiments import ModelReleased
from ledger.entries.operations.rounds import RoundAggregated, UpdateSubmitted
from ledger.experiment.tensors import encode_update
from ledger.formats.checkpoint import Checkpoint, sign_checkpoint
from ledger.formats.value import replace
from tests.audit.conftest import World, write
from tests.federation import COORDINATOR, RESEARCHER, Federation


def report_of(at: Path, **options: object) -> Report:
    verdicts = verify_at(str(at), **options)  # type: ignore[arg-type]
    assert len(verdicts.reports) == 1
    return verdicts.reports[0]


def places(report: Report) -> list[str]:
    assert report.exit_code == 1
    found = [check.place for check in report.refuted]
    assert all(found)
    return [place for place in found if place]


def change(home: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(home / "ledger.db")) as database, database:
        named = database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in named:
            database.execute(f"DROP TRIGGER {name}")
        database.execute(sql, values)


def read(home: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(home / "ledger.db")) as database:
        return database.execute(sql).fetchall()


def test_an_honest_copy_is_proved_in_every_step_under_a_trusted_genesis(world: World) -> None:
    for at in (world.home, world.bundle):
        report = report_of(at, trust=world.federation.id)
        assert report.exit_code == 0
        assert [report.verdict_of(step) for step, _ in STEPS] == ["proved"] * len(STEPS)
        assert report.anchored
        assert report.completeness().endswith("witnessed by 4 of 4 to size 61")


def test_without_an_anchor_the_copy_is_called_self_anchored(world: World) -> None:
    report = report_of(world.home)
    assert report.exit_code == 0
    assert report.verdict_of(2) == "not_checkable"
    assert "self-anchored" in next(c.detail for c in report.checks if c.step == 2)


def test_another_federations_genesis_is_refuted(world: World, tmp_path: Path) -> None:
    other = tmp_path / "genesis.leaf"
    other.write_bytes(Federation.found(("ulm",)).leaves[0])
    report = report_of(world.home, trust=parse_trust(str(other)))
    assert places(report) == ["entry 0"]


def test_reading_leaves_nothing_beside_the_store(world: World, tmp_path: Path) -> None:
    home = world.copy_home(tmp_path / "home")
    before = {p: p.read_bytes() for p in home.iterdir() if p.is_file()}
    home.chmod(0o500)
    assert report_of(home).exit_code == 0
    assert {p: p.read_bytes() for p in home.iterdir() if p.is_file()} == before


@pytest.mark.parametrize("column", ["body", "signature", "leaf", "key", "seq"])
def test_any_changed_byte_of_an_entry_is_named(world: World, tmp_path: Path, column: str) -> None:
    dice = random.Random(f"entries {column}")
    for attempt in range(14):
        home = world.copy_home(tmp_path / f"home{attempt}")
        index = dice.randrange(world.federation.log.size)
        ((value,),) = read(home, f'SELECT {column} FROM entries WHERE "index" = {index}')
        sql = f'UPDATE entries SET {column} = ? WHERE "index" = {index}'
        change(home, sql, flipped(value, dice))
        assert any(f"entry {index}" in place for place in places(report_of(home))), (index, column)
        shutil.rmtree(home)


@pytest.mark.parametrize("table", ["checkpoints", "finals"])
def test_any_changed_byte_of_a_checkpoint_is_named(
    world: World, tmp_path: Path, table: str
) -> None:
    dice = random.Random(table)
    sizes = [size for (size,) in read(world.home, f"SELECT size FROM {table}")]
    for attempt in range(25):
        home = world.copy_home(tmp_path / f"home{attempt}")
        size = dice.choice(sizes)
        ((note,),) = read(home, f"SELECT note FROM {table} WHERE size = {size}")
        change(home, f"UPDATE {table} SET note = ? WHERE size = {size}", flipped(note, dice))
        assert any(f"size {size}" in place for place in places(report_of(home)))
        shutil.rmtree(home)


def test_any_changed_byte_of_a_blob_is_named(world: World, tmp_path: Path) -> None:
    dice = random.Random("blobs")
    home = world.copy_home(tmp_path / "home")
    files = sorted(p for p in (home / "blobs").rglob("*") if p.is_file())
    for path in dice.sample(files, 16):
        data = path.read_bytes()
        changed = flipped(data, dice)
        assert isinstance(changed, bytes)
        path.write_bytes(changed)
        assert any(path.name[:12] in place for place in places(report_of(home)))
        path.write_bytes(data)
    assert report_of(home).exit_code == 0


def test_any_changed_bit_of_a_bundle_is_refuted(world: World, tmp_path: Path) -> None:
    dice = random.Random("bundle")
    data = world.bundle.read_bytes()
    target = tmp_path / "changed.consilium"
    for _ in range(150):
        at, bit = dice.randrange(len(data)), dice.randrange(8)
        changed = bytearray(data)
        changed[at] ^= 1 << bit
        target.write_bytes(changed)
        assert places(report_of(target)), (at, bit)


def test_raw_bytes_of_the_database_file_are_noticed_where_they_mean_something(
    world: World, tmp_path: Path
) -> None:
    """Bytes of entries, found in the file itself and changed below SQLite's feet."""
    dice = random.Random("pages")
    data = (world.home / "ledger.db").read_bytes()
    home = world.copy_home(tmp_path / "home")
    for _ in range(20):
        entry = dice.choice(world.federation.entries())
        at = data.find(entry.raw[:64]) + dice.randrange(64)
        assert at > 64
        changed = bytearray(data)
        changed[at] ^= 1 << dice.randrange(8)
        (home / "ledger.db").write_bytes(changed)
        assert places(report_of(home))


def test_a_changed_write_ahead_log_is_no_shorter_log(world: World, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    store = world.federation.persist(home)
    try:
        target = tmp_path / "killed"
        shutil.copytree(home, target)
    finally:
        store.close()
    wal = target / "ledger.db-wal"
    assert report_of(target).size == world.federation.log.size
    data = bytearray(wal.read_bytes())
    data[len(data) // 2] ^= 1
    wal.write_bytes(data)
    assert any("ledger.db-wal" in place for place in places(report_of(target)))


def test_a_database_that_cannot_be_opened_is_named(world: World, tmp_path: Path) -> None:
    home = world.copy_home(tmp_path / "home")
    path = home / "ledger.db"
    data = path.read_bytes()
    for broken in (b"\xff" + data[1:], data[: len(data) // 3], b"", data[:100] + bytes(3996)):
        path.write_bytes(broken)
        assert any("ledger.db" in place or "entries" in place for place in places(report_of(home)))


def test_a_specification_that_is_not_its_plans_is_refuted_and_stops_nothing(
    tmp_path: Path,
) -> None:
    federation = Federation.found()
    datasets = [federation.register_dataset(name) for name in ("basel", "bern", "chur")]
    asked = federation.proposal(federation.spec(datasets[:2], name="one"))
    other = federation.proposal(federation.spec(datasets[2:], name="one"))
    said = federation.say(RESEARCHER, replace(asked, spec=other.spec))
    federation.finalize()
    report = report_of(write(federation, said.entry.hash, tmp_path).home)
    assert [(c.step, c.place) for c in report.refuted] == [(9, f"entry {said.index} (one)")]
    assert report.verdict_of(12) == "not_checkable"


def test_a_missing_entry_a_moved_entry_and_an_added_one_are_named(
    world: World, tmp_path: Path
) -> None:
    gone = world.copy_home(tmp_path / "gone")
    change(gone, 'DELETE FROM entries WHERE "index" = 30')
    assert "entry 30" in places(report_of(gone))

    swapped = world.copy_home(tmp_path / "swapped")
    change(swapped, 'UPDATE entries SET "index" = 1000 WHERE "index" = 20')
    change(swapped, 'UPDATE entries SET "index" = 20 WHERE "index" = 21')
    change(swapped, 'UPDATE entries SET "index" = 21 WHERE "index" = 1000')
    assert "entry 20" in places(report_of(swapped))

    added = world.copy_home(tmp_path / "added")
    change(
        added,
        "INSERT INTO entries SELECT 61, body, signature, randomblob(32), key, 99 FROM entries "
        'WHERE "index" = 60',
    )
    assert "entry 61" in places(report_of(added))


def test_a_log_cut_off_below_its_checkpoints_is_refuted(world: World, tmp_path: Path) -> None:
    home = world.copy_home(tmp_path / "home")
    change(home, 'DELETE FROM entries WHERE "index" >= 50')
    assert any(place.startswith("checkpoint of size") for place in places(report_of(home)))


def test_checkpoints_that_are_gone_are_refuted(world: World, tmp_path: Path) -> None:
    home = world.copy_home(tmp_path / "home")
    change(home, "DELETE FROM checkpoints")
    assert "entry 0" in places(report_of(home))


def test_a_line_by_nobody_we_know_is_refuted(world: World, tmp_path: Path) -> None:
    home = world.copy_home(tmp_path / "home")
    line = "— example.org/stranger KXm3MAAAAABpVGeAplK1t41wdvhJF32k9ON4b35L\n".encode()
    change(home, "UPDATE finals SET note = CAST(note || ? AS BLOB)", line)
    report = report_of(home)
    assert any("example.org/stranger" in check.detail for check in report.refuted)


def test_missing_blobs_are_not_checkable_and_never_good(world: World, tmp_path: Path) -> None:
    home = world.copy_home(tmp_path / "home")
    shutil.rmtree(home / "blobs")
    report = report_of(home, trust=world.federation.id)
    assert report.exit_code == 0
    assert [report.verdict_of(step) for step in (9, 12, 13)] == ["not_checkable"] * 3
    assert "proved" not in {check.verdict for check in report.checks if check.step in (9, 12, 13)}


def test_rounds_whose_updates_a_copy_does_not_keep_are_named_together(
    world: World, tmp_path: Path
) -> None:
    home = world.copy_home(tmp_path / "home")
    said = [entry.body.op for entry in world.federation.entries()]
    updates = {op.update.sha256 for op in said if isinstance(op, UpdateSubmitted)}
    for blob in (home / "blobs").rglob("*"):
        if blob.name in updates:
            blob.unlink()
    details = [check.detail for check in report_of(home).checks if check.step == 12]
    assert details[0].startswith("first, rounds 1 to 4: updates or models are not in this copy;")
    assert not any("cannot be read" in detail for detail in details)


def test_a_sum_that_is_not_that_of_its_updates_is_refuted(tmp_path: Path) -> None:
    federation = Federation.found()
    experiment = federation.start()
    federation.play_round(experiment)
    federation.open_round(experiment)
    for dataset in federation.experiment(experiment).reservations:
        federation.submit(experiment, dataset)
    current = federation.experiment(experiment).round
    assert current is not None
    lie = federation.say(
        COORDINATOR,
        RoundAggregated(
            type="round.aggregated",
            experiment=experiment,
            round=current.number,
            attempt=current.attempt,
            updates=tuple(sorted(update.entry for update in current.updates.values())),
            aggregate=federation.put(encode_update(np.arange(3, dtype=np.int64))),
            model=current.model,
        ),
    )
    federation.finalize()
    home = write(federation, experiment, tmp_path).home
    report = report_of(home)
    assert [(c.step, c.place) for c in report.refuted] == [(12, f"entry {lie.index}")]
    assert "the sum is not that of its updates" in report.refuted[0].detail


def test_two_signed_trees_of_one_size_in_the_evidence_are_a_fork(
    world: World, tmp_path: Path
) -> None:
    home = world.copy_home(tmp_path / "home")
    federation = world.federation
    log_key = federation.rings[COORDINATOR].log
    assert log_key is not None
    size = federation.log.size
    lie = sign_checkpoint(log_key, Checkpoint(federation.origin, size, b"\x07" * 32))
    store = LogStore.open(f"sqlite:///{home / 'ledger.db'}")
    store.put_conflict("fork", Fork(federation.notes[size], lie).encode())
    store.close()
    report = report_of(home)
    assert any("two different trees" in check.detail for check in report.refuted)


def test_a_release_before_any_final_checkpoint_is_not_called_good(tmp_path: Path) -> None:
    federation = Federation.found()
    experiment = federation.start()
    federation.finalize()
    real = federation.finalize
    federation.finalize = lambda: b""  # type: ignore[method-assign]
    federation.play(experiment)
    federation.finalize = real  # type: ignore[method-assign]
    assert isinstance(federation.entries()[-1].body.op, ModelReleased)
    federation.finalize()
    report = report_of(write(federation, experiment, tmp_path).home)
    assert report.verdict_of(14) == "not_checkable"


def test_copies_of_two_histories_do_not_agree(world: World, tmp_path: Path) -> None:
    world.copy_home(tmp_path / "coordinator")
    other = Federation.found(now_ms=world.federation.now_ms + 5)
    other.finalize()
    other.persist(tmp_path / "nodes" / "basel").close()
    verdicts = verify_at(str(tmp_path))
    assert [report.exit_code for report in verdicts.reports] == [0, 0]
    assert verdicts.exit_code == 1
    assert verdicts.agreement[0].place == "nodes/basel"


def test_a_shorter_copy_of_the_same_log_agrees(world: World, tmp_path: Path) -> None:
    world.copy_home(tmp_path / "coordinator")
    shutil.copy(world.bundle, tmp_path / "out.consilium")
    verdicts = verify_at(str(tmp_path), trust=world.federation.id)
    assert verdicts.exit_code == 0
    assert verdicts.agreement[0].verdict == "proved"
    assert verdicts.as_json()["ok"] is True


def test_a_place_without_any_copy_says_what_to_give(tmp_path: Path) -> None:
    report = report_of(tmp_path)
    assert report.exit_code == 1
    assert "ledger.db" in report.refuted[0].detail


def flipped(value: object, dice: random.Random) -> object:
    """The value with one byte (or the number) changed."""
    if isinstance(value, int):
        return value + dice.choice((1000, 2**40))
    if isinstance(value, str):
        at = dice.randrange(len(value))
        other = dice.choice([c for c in "0123456789abcdef" if c != value[at]])
        return value[:at] + other + value[at + 1 :]
    assert isinstance(value, bytes)
    at = dice.randrange(len(value))
    changed = bytearray(value)
    changed[at] ^= 1 << dice.randrange(8)
    return bytes(changed)

"""An administrator with database access edits a row, triggers dropped: every verification finds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.errors import LedgerError, StoreCorrupt
from tests.adversary.coordinator import copy_home, edit
from tests.adversary.registry import attack
from tests.adversary.world import World, refuted

BY = "the copy's own program on opening, and every sceptic"


def opens(home: Path, federation: str) -> bool:
    """Whether a node would work with this copy."""
    store = LogStore.open(f"sqlite:///{home / 'ledger.db'}")
    try:
        Replica.open(store, federation)
    except LedgerError:
        return False
    finally:
        store.close()
    return True


def case(name: str, evidence: str, sql: str, step: int, place: str) -> object:
    """One edit of one row, and where it must be found."""
    mark = attack(name=f"administrator {name}", exposed_by=BY, evidence=evidence)
    return pytest.param(sql, step, place, marks=mark, id=name.replace(" ", "-"))


@pytest.mark.parametrize(
    ("sql", "step", "place"),
    [
        case(
            "changes a byte of an entry",
            "the entry's signature, with its index",
            "UPDATE entries SET body = CAST(replace(body, '\"at_ms\":1', '\"at_ms\":2') AS BLOB)"
            ' WHERE "index" = 5',
            5,
            "entry 5",
        ),
        case(
            "changes an entry's signature",
            "a signature by nobody, with its index",
            'UPDATE entries SET signature = zeroblob(64) WHERE "index" = 5',
            5,
            "entry 5",
        ),
        case(
            "deletes an entry in the middle",
            "a hole, with its index",
            'DELETE FROM entries WHERE "index" = 5',
            3,
            "entry 5",
        ),
        case(
            "changes an index column beside an entry",
            "the column that contradicts the entry's bytes",
            'UPDATE entries SET seq = 77 WHERE "index" = 5',
            1,
            "entry 5, column seq",
        ),
        case(
            "changes the size in a checkpoint",
            "the log's signature, with the size",
            "UPDATE checkpoints SET note = CAST(replace(note, char(10) || size || char(10), "
            "char(10) || '9' || size || char(10)) AS BLOB) "
            "WHERE size = (SELECT max(size) FROM checkpoints)",
            6,
            "checkpoint of size {size}",
        ),
    ],
)
def test_an_edited_row_is_named_with_its_place(
    world: World, sql: str, step: int, place: str
) -> None:
    size = world.federation.log.size
    basel = world.hospital("basel")
    home = copy_home(basel.back_up(world.directory / "basel-again"), world.directory / "edited")
    assert opens(home, world.federation.id)
    world.attack_begins()
    edit(home / "ledger.db", (sql, ()))  # the lie
    assert not opens(home, world.federation.id)
    verdicts = world.audit(home)
    assert verdicts.exit_code == 1
    assert (step, place.format(size=size)) in refuted(verdicts)
    world.exposed(BY)
    assert world.audit(basel.directory).exit_code == 0  # the untouched copy still holds


@attack(
    name="administrator puts text where a checkpoint's bytes belong",
    exposed_by="the copy's own program on opening, and every sceptic",
    evidence="the row and the column",
)
def test_a_column_of_another_type_is_a_typed_refusal(world: World) -> None:
    home = world.hospital("basel").back_up(world.directory / "edited")
    world.attack_begins()
    edit(home / "ledger.db", ("UPDATE checkpoints SET note = CAST(note AS TEXT)", ()))  # the lie
    store = LogStore.open(f"sqlite:///{home / 'ledger.db'}")
    with pytest.raises(StoreCorrupt, match=r"checkpoint of size \d+, column note, holds str"):
        Replica.open(store, world.federation.id)
    store.close()
    assert world.audit(home).exit_code == 1
    world.exposed(BY)


@attack(
    name="administrator takes two cosignatures out of a final checkpoint",
    exposed_by=BY,
    evidence="who cosigned, who is missing, how many are needed",
)
def test_a_final_checkpoint_with_fewer_cosignatures_is_refuted(world: World) -> None:
    basel = world.hospital("basel")
    final = basel.replica.final
    assert final.note is not None
    home = basel.back_up(world.directory / "edited")
    world.attack_begins()
    fewer = b"".join(final.note.splitlines(keepends=True)[:-2])
    sql = "UPDATE finals SET note = ? WHERE size = ?"
    edit(home / "ledger.db", (sql, (fewer, final.size)))  # the lie
    assert not opens(home, world.federation.id)
    verdicts = world.audit(home)
    assert refuted(verdicts) == [(7, f"final checkpoint of size {final.size}")]
    assert "2 hospitals cosigned where 3 must" in verdicts.best.refuted[0].detail
    world.exposed(BY)


@attack(
    name="administrator makes a witness forget what it cosigned",
    exposed_by="a sceptic with that copy",
    evidence="the witness remembers a root that is not its note's",
)
def test_an_edited_witness_memory_is_refuted(world: World) -> None:
    home = world.hospital("basel").back_up(world.directory / "edited")
    world.attack_begins()
    edit(home / "ledger.db", ("UPDATE witnessed SET root = zeroblob(32)", ()))  # the lie
    assert refuted(world.audit(home)) == [(7, "the witness's memory")]
    world.exposed("a sceptic with that copy")

"""Which cells a dataset's patients belong to where a hospital's cells are by calendar block.

What is said of a dataset (``calendar_cells``) follows from the schema, the hospital's declarations, its
cells and the date: no row decides it, so tables that differ in patients make the same entries but for the
snapshot's root. Who belongs where (``place_patients``) is kept in the hospital alone: a patient that the
node knows stays in the block of his first registration; a newcomer comes into the open block, that of
today, and into none where the hospital opened none. Rows of patients in none of the dataset's cells are
never read for an experiment.

A node whose ``patients.db`` lacks a registration of the log has forgotten patients. It cannot tell them
from newcomers, so it takes nobody into a block later than the first that it forgot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from immutables import Map

from ledger.entries.operations.datasets import CellRegistered, CellUse
from ledger.experiment.plan.sites import ACTUAL_OVER_DECLARED
from ledger.experiment.schema import Schema
from ledger.formats.snapshot_proof import salted
from ledger.rules.blocks import ALL, Period, block_of, covers, overlap, period_of
from node.data.intake import Table
from node.errors import DatasetError, RegistrationRefused
from node.register.accounts import PrivateCell
from node.register.patients import Half, Place, places_of, snapshots_known

_LONGEST = 40
"""Characters of a cell's name."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """What a hospital declares of its patients' blocks when it registers a dataset.

    Attributes:
        file: ``patients.db`` in the node's home.
        today: the date, UTC, by the node's clock.
        said: snapshot and time (POSIX milliseconds, 0 where unknown) of every registration of this
            hospital in the log; asked for only where the hospital's cells are by calendar.
        period: how long blocks are; said with the hospital's first dataset, None after it or where its
            patients are one block for all time.
        new_patients: nominal number of patients who will be registered for the first time in today's
            block, over all datasets: opens it. 0 takes in nobody new. By default the declared size for
            the first dataset, and after it nobody where today's block has no promise yet.
    """

    file: Path
    today: date
    said: Callable[[], Iterable[tuple[str, int]]]
    period: Period | None = None
    new_patients: int | None = None


@dataclass(frozen=True, slots=True)
class NewCell:
    """A promise to be made: its name, block and half, and how many patients are declared."""

    name: str
    block: str
    half: Half
    declared: int


@dataclass(frozen=True, slots=True)
class CalendarCells:
    """What a dataset's registration says of cells.

    Attributes:
        uses: every cell of the hospital, the new ones included.
        new: promises to be made.
        opened: the block that newcomers come into, or None.
        blocks: of all of ``uses``.
    """

    uses: tuple[CellUse, ...]
    new: tuple[NewCell, ...]
    opened: str | None
    blocks: frozenset[str]


@dataclass(frozen=True, eq=False)
class Placed:
    """Where a table's rows belong; none of it leaves the hospital.

    Attributes:
        inside: bool [n], rows of patients in one of the dataset's cells.
        newcomers: patients known from now on, by HMAC.
        left_out: number of patients outside.
        per_cell: number of patients by block and half.
    """

    inside: npt.NDArray[np.bool_]
    newcomers: Mapping[bytes, Place]
    left_out: int
    per_cell: Mapping[tuple[str, Half], int]


def is_by_calendar(schema: Schema, known: Map[str, PrivateCell], calendar: Calendar | None) -> bool:
    """Whether a dataset's patients are in cells by calendar block.

    Raises:
        RegistrationRefused: the hospital's other datasets say otherwise, or there are no patient ids.
    """
    divided = any(cell.terms.block != ALL for cell in known.values())
    asked = calendar is not None and (calendar.period, calendar.new_patients) != (None, None)
    if asked and known and not divided:
        raise RegistrationRefused(
            schema.dataset,
            "this hospital's patients are one block for all time, which never ends; leave --blocks "
            "and --new-patients out",
        )
    if calendar is None or not (divided or calendar.period is not None):
        if divided:
            raise RegistrationRefused(schema.dataset, "its cells are by calendar block")
        if asked:
            raise RegistrationRefused(
                schema.dataset, "say with --blocks how long blocks are, year or quarter"
            )
        return False
    if schema.patient_column is None:
        raise RegistrationRefused(
            schema.dataset,
            "cells by calendar block need patient ids; declare a column of type patient_id, or "
            "leave --blocks out with the hospital's first dataset",
        )
    return True


def calendar_cells(
    schema: Schema, organisation: str, known: Map[str, PrivateCell], calendar: Calendar
) -> CalendarCells:
    """Work out a dataset's cells from declarations alone.

    Raises:
        RegistrationRefused: block, size or division are not possible.
    """
    percent = schema.test_percent
    for cell in known.values():
        if cell.test_percent != percent:
            raise RegistrationRefused(
                schema.dataset,
                f"test_percent is {percent}, but this hospital divided its patients at "
                f"{cell.test_percent}; use the same, or a patient would be trained on and measured",
            )
    blocks = sorted({cell.terms.block for cell in known.values()})
    sizes: dict[tuple[str, Half], tuple[str, int]] = {
        (cell.terms.block, "test" if cell.terms.half == "test" else "train"): (
            cell.terms.cell,
            cell.terms.declared_patients,
        )
        for cell in known.values()
    }
    begun = [block for block in blocks if percent and (block, "test") not in sizes]
    opened, asked = _open_block(schema, blocks, begun, calendar)
    new = []
    for block in begun:  # its registration was cut off between the two cells
        name = block_cell_name(organisation, block, "test")
        said = asked if block == opened else 0
        declared = _other_half(schema, block, sizes[(block, "train")][1], said)
        new.append(NewCell(name, block, "test", declared))
        sizes[(block, "test")] = (name, declared)
    if opened is not None and opened not in blocks:
        halves: tuple[tuple[Half, int], ...] = (
            ("train", asked - asked * percent // 100),
            ("test", -(-asked * percent // 100)),
        )
        for half, declared in halves[: 2 if percent else 1]:
            name = block_cell_name(organisation, opened, half)
            new.append(NewCell(name, opened, half, declared))
            sizes[(opened, half)] = (name, declared)
    for half, declared in (("train", schema.declared_train), ("test", schema.declared_test)):
        promised = sum(size for (_, of), (_, size) in sizes.items() if of == half)
        if declared > promised:
            raise RegistrationRefused(
                schema.dataset,
                f"its schema declares {declared} patients for {half}, but the hospital's blocks hold "
                f"{promised}; lower declared_rows, or open today's block with --new-patients",
            )
    uses = tuple(CellUse(cell=name, use=half) for (_, half), (name, _) in sorted(sizes.items()))
    return CalendarCells(uses, tuple(new), opened, frozenset(block for block, _ in sizes))


def place_patients(
    table: Table,
    test: npt.NDArray[np.bool_],
    schema: Schema,
    hospital_key: bytes,
    cells: CalendarCells,
    sizes: Mapping[tuple[str, Half], int],
    calendar: Calendar,
) -> Placed:
    """Find every patient's place, and give newcomers theirs.

    Args:
        table: with patient ids.
        test: bool [n], rows of patients kept for evaluation.
        schema: the table's.
        hospital_key: 32 bytes.
        cells: what will be said.
        sizes: declared patients of each cell, by block and half.
        calendar: of this registration.

    Raises:
        RegistrationRefused: ``patients.db`` has forgotten patients, or divided them otherwise.
        DatasetError: a cell would hold more than twice its declared patients.
    """
    if table.patients is None:
        raise ValueError("a table without patient ids has no patients to place")
    if cells.opened is not None:
        _check_memory(schema, cells.opened, calendar)
    half_of: dict[str, Half] = {
        patient: "test" if kept else "train"
        for patient, kept in zip(table.patients, test, strict=True)
    }
    member_of = {patient: member(hospital_key, patient) for patient in half_of}
    known = places_of(calendar.file, tuple(member_of.values()))
    newcomers: dict[bytes, Place] = {}
    place: dict[str, Place] = {}
    for patient, half in half_of.items():
        found = known.get(member_of[patient])
        if found is None:
            if cells.opened is None:
                continue
            found = newcomers[member_of[patient]] = Place(cells.opened, half)
        elif found.half != half:
            raise RegistrationRefused(
                schema.dataset,
                f"{calendar.file.name} divided patients otherwise; use the test_percent and the "
                "hospital.key of the first registration",
            )
        if found.block in cells.blocks:
            place[patient] = found
    per_cell = Counter((found.block, found.half) for found in place.values())
    for at, count in per_cell.items():
        if count > ACTUAL_OVER_DECLARED * sizes[at]:
            raise DatasetError(
                schema.dataset,
                f"{count} patients are in block {at[0]}, {at[1]}, more than twice the {sizes[at]} that "
                "are declared for it; divide the file, or register newcomers when the next block opens",
            )
    inside = np.array([patient in place for patient in table.patients], dtype=np.bool_)
    return Placed(inside, newcomers, len(half_of) - len(place), per_cell)


def rows_of_blocks(
    table: Table, hospital_key: bytes, file: Path, snapshot: str, blocks: frozenset[str]
) -> npt.NDArray[np.bool_]:
    """Say which rows are of patients in these blocks, as registered with this snapshot: bool [n].

    Raises:
        StoreUnusable: the file cannot be read, or does not know the dataset.
    """
    if table.patients is None:
        return np.zeros(table.rows, dtype=np.bool_)
    member_of = {
        patient: member(hospital_key, patient) for patient in dict.fromkeys(table.patients)
    }
    places = places_of(file, tuple(member_of.values()), snapshot=snapshot)
    here = {
        patient
        for patient, key in member_of.items()
        if key in places and places[key].block in blocks
    }
    return np.array([patient in here for patient in table.patients], dtype=np.bool_)


def member(hospital_key: bytes, patient: str) -> bytes:
    """What a patient is known by inside the hospital: HMAC-SHA256 of the id, 32 bytes."""
    return salted(hospital_key, "patient", patient)


def block_cell_name(organisation: str, block: str, half: str) -> str:
    """Name of a hospital's cell of one block; short where the hospital's name is long."""
    name = f"{organisation}-{block}-{half}"
    return name if len(name) <= _LONGEST else f"{organisation}-{block}{half[1]}"


def declared_sizes(
    cells: CalendarCells, known: Mapping[str, CellRegistered]
) -> dict[tuple[str, Half], int]:
    """Declared patients by block and half, of known and new cells."""
    sizes: dict[tuple[str, Half], int] = {
        (terms.block, "test" if terms.half == "test" else "train"): terms.declared_patients
        for terms in known.values()
    }
    return sizes | {(cell.block, cell.half): cell.declared for cell in cells.new}


def _other_half(schema: Schema, block: str, train: int, asked: int) -> int:
    """The size of a block's cell for evaluation where the log has only the one for training.

    Args:
        schema: of the dataset that is registered now.
        block: the block.
        train: declared for training.
        asked: nominal patients of both as said now; 0 where nothing is said.

    Raises:
        RegistrationRefused: what is said now is not what the block was opened for.
    """
    percent = schema.test_percent
    for both in (asked,) if asked else (schema.declared_rows, 100 * train // (100 - percent)):
        if both - both * percent // 100 == train:
            return -(-both * percent // 100)
    raise RegistrationRefused(
        schema.dataset,
        f"block {block} was opened for {train} patients for training; say the same --new-patients "
        "again, or leave it out",
    )


def _open_block(
    schema: Schema, blocks: list[str], begun: list[str], calendar: Calendar
) -> tuple[str | None, int]:
    """The block that newcomers come into, and the patients that it is opened for (0: it is open)."""
    asked = calendar.new_patients
    if asked is not None and asked < 0:
        raise RegistrationRefused(schema.dataset, f"--new-patients {asked} is below 0")
    current = next((block for block in blocks if covers(block, calendar.today)), None)
    if current is not None:
        if asked and current not in begun:
            raise RegistrationRefused(
                schema.dataset,
                f"block {current} is open and has its promise, which is for ever; leave --new-patients "
                "out, or say 0 to take in nobody new",
            )
        if calendar.period not in (None, period_of(current)):
            raise RegistrationRefused(
                schema.dataset, f"block {current} is open until its end; leave --blocks out"
            )
        return (None if asked == 0 else current), asked or 0
    period = calendar.period or (period_of(blocks[-1]) if blocks else None)
    if asked is None and not blocks:
        asked = schema.declared_rows
    if not asked or period is None:
        return None, 0
    block = block_of(calendar.today, period)
    clash = next((one for one in blocks if overlap(one, block)), None)
    if clash is not None:
        raise RegistrationRefused(
            schema.dataset, f"block {block} would overlap {clash}; use --blocks {period_of(clash)}"
        )
    return block, asked


def _check_memory(schema: Schema, opened: str, calendar: Calendar) -> None:
    known = snapshots_known(calendar.file)
    forgotten = [at_ms for snapshot, at_ms in calendar.said() if snapshot not in known]
    if not forgotten:
        return
    first = datetime.fromtimestamp(min(forgotten) / 1000, UTC).date()
    if covers(opened, first):
        return
    raise RegistrationRefused(
        schema.dataset,
        f"{calendar.file} does not know the patients of {len(forgotten)} registrations in the log, "
        f"the first of {first}: it was lost, or restored from a backup. So newcomers cannot be told "
        f"from patients of earlier blocks. Restore a newer {calendar.file.name}, or take in nobody new: "
        "--new-patients 0",
    )

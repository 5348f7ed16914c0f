"""Offering a dataset: rows are judged here, once and locally; what leaves is declared.

`prepare` reads the file, judges it and works out what would be said, without writing anything.
`register` says it: first the private record (unfinished), then the schema's blob, the cell's promise
where the hospital has none yet, and the dataset. A crash in between leaves an unfinished record;
`finish_registrations` completes it from the log. A refusal leaves nothing but a cell's promise, which
charges nothing.

Which cells a dataset uses, and what their patients are promised: ``promised_cells.py``.
"""

from __future__ import annotations

import math
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from immutables import Map

from ledger.copies.blobs import blob_ref
from ledger.entries.operations.datasets import CellRegistered, DatasetRegistered
from ledger.entries.operations.purposes import PurposeLimited
from ledger.errors import PlanRefused
from ledger.experiment.plan.sites import ACTUAL_OVER_DECLARED, rows_each
from ledger.experiment.purpose_parts import Parts, part_for, parts_inherited, parts_said
from ledger.experiment.schema import Schema
from ledger.formats.documents import encode_document, parse_document
from ledger.formats.snapshot_proof import SALT_BYTES
from ledger.formats.value import replace
from ledger.rules.individual import is_individual
from ledger.rules.state import State
from ledger.rules.verdict import EXPLANATIONS
from node.data.blocks import Calendar, declared_sizes, place_patients
from node.data.individual import counts_one_by_one, one_by_one
from node.data.intake import Table, identify, read_table
from node.data.promised_cells import promised_cells
from node.data.renewal import Asked, Renewal, renewal_for
from node.data.said_cells import Say, check_said, say_cell
from node.data.snapshot import split_table, take_snapshot
from node.duties.recovery import counted_in, spend_in
from node.duties.renewing import periods_in
from node.errors import DatasetError, RegistrationRefused
from node.register.accounts import DatasetRecord, PrivateCell
from node.register.patients import Enrolment, Place, enrol
from node.register.private import PrivateRegister
from node.register.promises import PromiseBook


@dataclass(frozen=True, slots=True)
class Prepared:
    """A dataset that can be registered.

    Attributes:
        record: for the private register.
        organisation: the hospital's.
        cells: promises to be made, with the percentage of their patients kept for evaluation.
        dataset: what will be said of it.
        enrolment: patients that get their calendar block with it; None where all are one block.
        left_out: number of its patients in none of its cells; like every count it stays here.
        shortened: number of its training patients with more rows than the fast engine reads; stays here.
        purposes: parts of its cells' promises to be said; new cells without any get those of the
            hospital's newest cell.
        renewal: how the promises to its new cells renew; None where they are for ever.
    """

    record: DatasetRecord
    organisation: str
    cells: tuple[tuple[CellRegistered, int | None], ...]
    dataset: DatasetRegistered
    enrolment: Enrolment | None = None
    left_out: int = 0
    purposes: Parts = field(default_factory=dict)
    shortened: int = 0
    renewal: Renewal | None = None


def prepare(
    path: Path,
    schema: Schema,
    *,
    organisation: str,
    hospital_key: bytes,
    cells: Map[str, PrivateCell],
    epsilon: float | None,
    delta: float | None = None,
    calendar: Calendar | None = None,
    purposes: Parts | None = None,
    individual: bool = False,
    renewing: Asked | None = None,
) -> Prepared:
    """Read and judge a file; nothing is written and nothing is said.

    Args:
        path: CSV (plain or gzip) or Parquet.
        schema: what is declared.
        organisation: the hospital's.
        hospital_key: 32 bytes, the same for all its datasets.
        cells: the hospital's cells that have a promise.
        epsilon: the lifetime promise to patients; needed for the first dataset only, and for a new
            calendar block where it is to be another than that of the block before.
        delta: its delta; by default the most that is allowed, min(1e-5, 1/(10 N)).
        calendar: what the hospital declares of its patients' blocks; None where it never does.
        purposes: how much of each cell's promise a purpose may use.
        individual: account for each training patient alone (``ledger.rules.individual``); said with
            the hospital's first dataset, and true of its later cells from then on.
        renewing: whether its promises renew; said with the hospital's first dataset.

    Raises:
        DatasetError: the file does not fit its schema, or its declared size.
        RegistrationRefused: the promise or the division into halves is not possible.
    """
    _check_numbers(schema, epsilon=epsilon, delta=delta)
    path = path.resolve()
    try:
        before = identify(path)
    except OSError as error:
        raise DatasetError(schema.dataset, f"{path}: {error.strerror}") from None
    table = read_table(path, schema, registering=True)
    if path.stat().st_mtime_ns != before.mtime_ns:
        raise DatasetError(schema.dataset, f"{path} changed while it was read; try again")
    test = split_table(table, schema, hospital_key)
    uses, new, placing = promised_cells(schema, organisation, cells, epsilon, delta, calendar)
    alone = counts_one_by_one(schema, cells, individual)
    renewal = renewal_for(schema, cells, renewing, individual=alone)
    if alone:
        new = tuple((one_by_one(terms), percent) for terms, percent in new)
    inside = np.ones(table.rows, dtype=np.bool_)
    newcomers: Mapping[bytes, Place] = {}
    left_out = 0
    if placing is not None and calendar is not None:
        sizes = declared_sizes(placing, {name: cell.terms for name, cell in cells.items()})
        placed = place_patients(table, test, schema, hospital_key, placing, sizes, calendar)
        inside, newcomers, left_out = placed.inside, placed.newcomers, placed.left_out
    if table.patients is None:
        test_units = int(test.sum())
        train_units = table.rows - test_units
    else:
        here = [
            (p, kept) for p, kept, there in zip(table.patients, test, inside, strict=True) if there
        ]
        train_units = len({patient for patient, kept in here if not kept})
        test_units = len({patient for patient, kept in here if kept})
    _check_size(schema, train_units, test_units)
    snapshot = take_snapshot(table, schema, salt=secrets.token_bytes(SALT_BYTES))
    document = encode_document(schema)
    record = DatasetRecord(
        name=schema.dataset,
        path=str(path),
        sha256=before.sha256,
        schema_document=document,
        rows=table.rows,
        train_units=train_units,
        test_units=test_units,
        snapshot=snapshot.root.hex(),
        salt=snapshot.salt,
    )
    return Prepared(
        record=record,
        organisation=organisation,
        cells=new,
        dataset=DatasetRegistered(
            type="dataset.registered",
            dataset=schema.dataset,
            schema_=blob_ref(document),
            unit="record" if table.patients is None else "patient",
            declared_train=schema.declared_train,
            declared_test=schema.declared_test,
            cells=uses,
            snapshot=record.snapshot,
            card=None,
        ),
        enrolment=None
        if placing is None or calendar is None
        else Enrolment(calendar.file, record.snapshot, newcomers),
        left_out=left_out,
        shortened=_count_shortened(table, schema, inside & ~test),
        purposes=purposes or {},
        renewal=renewal,
    )


def register(
    prepared: Prepared,
    register: PrivateRegister,
    *,
    state: Callable[[], State],
    publish: Callable[[bytes], object],
    say: Say,
    book: PromiseBook | None = None,
) -> DatasetRecord:
    """Say what was prepared, and make it usable when the log has it.

    The same bytes under the same declaration are not said again: plans that wait for them stay good.

    Args:
        prepared: by ``prepare``, from this register's cells.
        register: private.
        state: the newest fold of the own copy.
        publish: keeps a blob and brings it to the coordinator.
        say: says one operation and waits for its verdict.
        book: of the hospital's promises in all its federations, where it keeps one.

    Raises:
        PromiseExceeded: other federations have too much of the lifetime promise; nothing was said.
        RegistrationRefused: the log did not take it, or has one of its cells with another promise
            or from another hospital; nothing of that is stored.
        LedgerError: the coordinator cannot be reached; said again, it goes on where it stopped.
    """
    name = prepared.record.name
    finish_registrations(
        register, state()
    )  # of one before whose end was not heard: its secret is kept
    parts = _parts(prepared, state())
    known = register.view.datasets.get(name)
    if known is not None and _says_nothing_new(prepared, known, state()):
        _limit_purposes(name, parts, state, say)
        return register.datasets.move(known, prepared.record.path)
    for terms, _ in prepared.cells:
        check_said(name, prepared.organisation, terms, prepared.renewal, state())
    if book is not None:
        promised = [cell.terms for cell in register.view.cells.values()]
        cells = [*promised, *(terms for terms, _ in prepared.cells)]
        renewal = prepared.renewal
        shared = None if renewal is None else (renewal.days, renewal.from_ms)
        book.allot(state().federation, cells, shared)
    register.datasets.note(prepared.record)
    if prepared.enrolment is not None:
        enrol(prepared.enrolment)
    publish(prepared.record.schema_document)
    for terms, test_percent in prepared.cells:
        try:
            renewal = prepared.renewal
            say_cell(name, prepared.organisation, terms, renewal, state=state, say=say)
        except RegistrationRefused:
            register.datasets.forget(prepared.record.snapshot)
            raise
        _add_cell(register, state(), terms, test_percent)
    try:
        _limit_purposes(name, parts, state, say)
    except RegistrationRefused:
        register.datasets.forget(prepared.record.snapshot)
        raise
    void = say(prepared.dataset)
    if void is not None:
        register.datasets.forget(prepared.record.snapshot)
        raise RegistrationRefused(name, EXPLANATIONS[void])
    finished = finish_registrations(register, state())
    found = next((r for r in finished if r.snapshot == prepared.record.snapshot), None)
    if found is None:
        raise RegistrationRefused(name, "the log has it with another content; register it again")
    return found


def finish_registrations(register: PrivateRegister, state: State) -> tuple[DatasetRecord, ...]:
    """Complete what a crash left unfinished and the log has all the same."""
    finished = []
    for record in register.datasets.unfinished():
        dataset = state.datasets.get(record.name)
        if dataset is None or dataset.terms.snapshot != record.snapshot:
            continue
        for use in dataset.terms.cells:
            cell = state.cells[use.cell]
            percent = None if cell.terms.half == "both" else _percent_of(record)
            _add_cell(register, state, cell.terms, percent)
        finished.append(register.datasets.finish(record.snapshot, dataset.registration))
    return tuple(finished)


def _add_cell(
    register: PrivateRegister, state: State, terms: CellRegistered, percent: int | None
) -> None:
    """Make a cell's promise here, too, with what the log has charged to it."""
    name = terms.cell
    periods = periods_in(state, name, register.now_ms())
    register.add_cell(terms, percent, spend_in(state, name), counted_in(state, name), periods)


def _parts(prepared: Prepared, state: State) -> tuple[PurposeLimited, ...]:
    """The parts for purposes of the dataset's cells, as they shall be."""
    new = {terms.cell: terms for terms, _ in prepared.cells}
    # A cell that no dataset names is new, or its registration was cut off: perhaps before its parts.
    used = {use.cell for dataset in state.datasets.values() for use in dataset.terms.cells}
    begun = {use.cell for use in prepared.dataset.cells} - used
    before = parts_inherited(state, prepared.organisation, begun)
    found = []
    try:
        for use in prepared.dataset.cells:
            held = state.cells.get(use.cell)
            terms = new.get(use.cell) or (None if held is None else held.terms)
            if terms is None:
                continue  # the log will refuse the dataset for naming it
            if is_individual(terms):
                if prepared.purposes:
                    raise RegistrationRefused(
                        prepared.record.name,
                        f"the patients of {use.cell} have accounts of their own, of which no purpose "
                        "has a part; leave --purpose-budget out",
                    )
                continue
            inherited = {
                purpose: min(part, terms.epsilon_micro)
                for purpose, part in (before if use.cell in begun else {}).items()
                if purpose not in parts_said(state, use.cell)
            }
            for purpose, part in (prepared.purposes or inherited).items():
                found.append(part_for(terms, purpose, part))
    except PlanRefused as error:
        raise RegistrationRefused(prepared.record.name, str(error)) from None
    return tuple(found)


def _limit_purposes(
    name: str, parts: tuple[PurposeLimited, ...], state: Callable[[], State], say: Say
) -> None:
    """Say the parts that the log does not have yet."""
    for part in parts:
        share = state().cells[part.cell].purposes.get(part.purpose)
        if share is not None and share.terms == part:
            continue
        void = say(part)
        if void is not None:
            raise RegistrationRefused(name, f"part for {part.purpose}: {EXPLANATIONS[void]}")


def _check_numbers(schema: Schema, **promised: float | None) -> None:
    for name, value in promised.items():
        if value is not None and not math.isfinite(value):
            raise RegistrationRefused(
                schema.dataset, f"{name} {value:g} cannot be promised: it is no finite number"
            )


def _says_nothing_new(prepared: Prepared, known: DatasetRecord, state: State) -> bool:
    """Whether the log's newest version is this very file, declared alike, with a commitment to open."""
    dataset = state.datasets.get(known.name)
    if dataset is None or dataset.registration != known.registration or dataset.withdrawn_at:
        return False
    said = replace(dataset.terms, snapshot=prepared.dataset.snapshot)
    fresh = prepared.record
    return (
        said == prepared.dataset
        and (fresh.sha256, fresh.schema_document) == (known.sha256, known.schema_document)
        and known.salt != b""
        and not (prepared.enrolment is not None and prepared.enrolment.newcomers)
    )


def _check_size(schema: Schema, train_units: int, test_units: int) -> None:
    word = "patients" if schema.patient_column is not None else "rows"
    actual = train_units + test_units
    declared = schema.declared_rows
    if not declared <= ACTUAL_OVER_DECLARED * actual <= ACTUAL_OVER_DECLARED**2 * declared:
        raise DatasetError(
            schema.dataset,
            f"the file has {actual} {word}, but the schema declares {declared}; declare a round "
            f"number between {-(-actual // ACTUAL_OVER_DECLARED)} and "
            f"{ACTUAL_OVER_DECLARED * actual} as declared_rows",
        )
    if train_units > ACTUAL_OVER_DECLARED * schema.declared_train:
        raise DatasetError(
            schema.dataset,
            f"{train_units} {word} fall into the training half, more than twice the declared "
            f"{schema.declared_train}; raise declared_rows or lower test_percent",
        )


def _count_shortened(table: Table, schema: Schema, here: npt.NDArray[np.bool_]) -> int:
    """How many patients have more rows than an experiment by the fast engine reads of them."""
    if table.patients is None:
        return 0
    rows = Counter(patient for patient, inside in zip(table.patients, here, strict=True) if inside)
    return sum(count > rows_each(schema) for count in rows.values())


def _percent_of(record: DatasetRecord) -> int:
    return parse_document(record.schema_document, Schema).test_percent

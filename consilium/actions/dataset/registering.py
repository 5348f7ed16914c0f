"""Registering a hospital's file from the command line: read, judged and recorded on this machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from immutables import Map
from msgspec import structs

from consilium.actions.dataset.purposes import read_parts
from consilium.actions.speaking import open_member, positive_number, say
from consilium.actions.written import read_written
from consilium.errors import InputError, RefusedByFederation
from consilium.settings import Settings
from ledger.entries.cards import DatasetCard, Sealed, seal_card
from ledger.entries.operations.vocabulary import Operation
from ledger.experiment.schema import Schema
from ledger.rules.blocks import Period
from ledger.rules.datasets import DELTA_MAX_E15
from node.data import registration, saying
from node.data.blocks import Calendar
from node.data.hospital_key import ensure_hospital_key, has_cells
from node.data.renewal import Asked
from node.register.patients import PATIENTS
from node.register.private import PRIVATE, PrivateRegister
from node.register.promises import PromiseBook
from node.service.settings import SETTINGS_FILE
from node.service.settings import load_settings as load_node_settings

_ANY_KEY = bytes(32)
_ANY_EPSILON = 1.0


class LocalCounts(TypedDict):
    """What a file holds, for the hospital's own administrator; none of it leaves.

    ``shortened`` counts the training patients with more rows than the fast engine reads of one.
    """

    dataset: str
    rows: int
    training_units: int
    test_units: int
    shortened: int
    declared_rows: int
    sha256: str


class Registered(TypedDict):
    """What was published of a dataset; ``left_out`` and ``shortened`` are for the hospital's own eyes alone.

    They count the patients in none of the dataset's cells, whose rows nobody reads, and those for training
    with more rows than the fast engine reads of one.
    """

    dataset: str
    unit: str
    declared_train: int
    declared_test: int
    cells: list[str]
    epsilon: float
    delta: float
    registration: str
    left_out: int
    shortened: int
    refresh_days: int | None


def check_file(data: Path, schema: Path) -> LocalCounts:
    """Judge a file as registration would.

    Raises:
        InputError: the schema is none.
        DatasetError: the file does not fit it; names column and row.
    """
    prepared = registration.prepare(
        data,
        read_written(schema, Schema),
        organisation="check",
        hospital_key=_ANY_KEY,
        cells=Map(),
        epsilon=_ANY_EPSILON,
    )
    record = prepared.record
    return LocalCounts(
        dataset=record.name,
        rows=record.rows,
        training_units=record.train_units,
        test_units=record.test_units,
        shortened=prepared.shortened,
        declared_rows=prepared.dataset.declared_train + prepared.dataset.declared_test,
        sha256=record.sha256,
    )


def register_file(
    settings: Settings,
    data: Path,
    schema: Path,
    *,
    epsilon: float | None,
    delta: float | None,
    card: Path | None,
    blocks: Period | None = None,
    new_patients: int | None = None,
    lifetime: float | None = None,
    purposes: Sequence[str] = (),
    individual: bool = False,
    refresh_days: int | None = None,
) -> Registered:
    """Register a file as one of this hospital's datasets.

    Args:
        settings: a node's home and passphrase.
        data: CSV or Parquet.
        schema: its schema, as a person wrote it.
        epsilon: the lifetime promise; needed for a hospital's first dataset, fixed after it.
        delta: of that promise; the most that is allowed by default.
        card: a YAML file with a ``DatasetCard``, or None.
        blocks: cells by calendar year or quarter; said with a hospital's first dataset.
        lifetime: epsilon promised to a patient over all federations; said once for a book of promises.
        purposes: as ``research=2``: how much of each cell's promise a purpose may use.
        new_patients: opens today's block for so many, see ``node.data.blocks.Calendar``.
        individual: account for each training patient alone; said with a hospital's first dataset.
        refresh_days: days after which the promise renews; said with a hospital's first dataset.

    Raises:
        InputError, DatasetError, RegistrationRefused: why not; nothing is registered.
    """
    positive_number(epsilon, "--epsilon")
    positive_number(delta, "--delta")
    positive_number(lifetime, "--lifetime")
    parts = read_parts(purposes)
    declared = read_written(schema, Schema)
    sealed = None if card is None else seal_card(read_written(card, DatasetCard))
    with open_member(settings.home, settings.passphrase_file, ("node",)) as member:
        member.follow()
        path = member.home.path
        book = _book(path, declared, lifetime)

        def said(operation: Operation) -> str | None:
            try:
                say(member, operation)
            except RefusedByFederation as error:
                return error.reason
            return None

        with closing(PrivateRegister.open(path / PRIVATE)) as private:
            registration.finish_registrations(private, member.replica.state)
            organisation = member.config.organisation
            begun = has_cells(organisation, member.replica.state, private.view)
            prepared = registration.prepare(
                data,
                declared,
                organisation=organisation,
                hospital_key=ensure_hospital_key(path, member.keyring.sealing, begun=begun),
                cells=private.view.cells,
                epsilon=epsilon,
                delta=_share(book, epsilon) if delta is None else delta,
                calendar=Calendar(
                    path / PATIENTS,
                    datetime.now(UTC).date(),
                    said=lambda: saying.registrations_said(
                        member.replica, member.replica.state, member.config.organisation
                    ),
                    period=blocks,
                    new_patients=new_patients,
                ),
                purposes=parts,
                individual=individual,
                renewing=Asked.of(refresh_days, private.now_ms(), book),
            )
            if sealed is not None:
                prepared = _with_card(prepared, sealed)
                member.publish(sealed.blob)
            registration.register(
                prepared,
                private,
                state=lambda: member.replica.state,
                publish=member.publish,
                say=said,
                book=book,
            )
        state = member.replica.state
        dataset = state.datasets[declared.dataset]
        promises = [state.cells[use.cell].terms for use in dataset.terms.cells]
        held = state.cells[promises[0].cell].periods
        return Registered(
            dataset=declared.dataset,
            unit=dataset.terms.unit,
            declared_train=dataset.terms.declared_train,
            declared_test=dataset.terms.declared_test,
            cells=[promise.cell for promise in promises],
            epsilon=min(promise.epsilon_micro for promise in promises) / 1e6,
            delta=max(promise.delta_e15 for promise in promises) / 1e15,
            registration=dataset.registration,
            left_out=prepared.left_out,
            shortened=prepared.shortened,
            refresh_days=None if held is None else held.days,
        )


def _book(home: Path, declared: Schema, lifetime: float | None) -> PromiseBook | None:
    """The hospital's book of promises, with its lifetime promise when that is said now."""
    place = load_node_settings(home).promises
    if place is None:
        if lifetime is not None:
            raise InputError(
                f"--lifetime belongs into a book of promises, and {home / SETTINGS_FILE} names none; "
                'write promises = "/a/file/for/all/homes/promises.db" there'
            )
        return None
    book = PromiseBook(place)
    if lifetime is not None:
        delta_e15 = min(DELTA_MAX_E15, 10**15 // (10 * declared.declared_rows))
        book.promise(round(lifetime * 10**6), delta_e15)
    return book


def _share(book: PromiseBook | None, epsilon: float | None) -> float | None:
    """The part of the lifetime's delta that goes with a part of its epsilon."""
    lifetime = None if book is None else book.lifetime()
    if lifetime is None or epsilon is None:
        return None
    part = min(1.0, epsilon * 10**6 / lifetime.epsilon_micro)
    return math.floor(lifetime.delta_e15 * part) / 10**15


def _with_card(prepared: registration.Prepared, card: Sealed) -> registration.Prepared:
    stated = structs.replace(prepared.dataset, card=card.commitment)
    return replace(prepared, dataset=stated)

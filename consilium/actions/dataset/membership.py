"""Was this patient's data in that dataset? Proofs by the hospital, and their judgement by anyone."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TypedDict

from pydantic import ValidationError

from audit.verification.verify import Verification
from consilium.actions.files import write_file
from consilium.actions.speaking import open_member
from consilium.errors import InputError, UnknownName
from consilium.settings import Settings
from ledger.entries.operations.datasets import DatasetRegistered
from ledger.errors import MalformedInput
from ledger.experiment.schema import Schema
from ledger.formats.documents import MAX_DOCUMENT, encode_document, explain, parse_document
from ledger.formats.snapshot_proof import SnapshotProof, judge
from node.data.intake import identify, read_table
from node.data.snapshot import prove, take_snapshot, unit_text
from node.register.accounts import DatasetRecord
from node.register.private import PRIVATE, PrivateRegister
from node.register.tables import empty_journal


class Judged(TypedDict):
    """What a proof shows.

    Attributes:
        present: whether the unit was in the dataset.
        rows: its rows as the hospital committed to them, where the proof opens them.
    """

    present: bool
    dataset: str
    unit: str
    rows: list[str] | None
    registration: str
    entry: int
    ledger: str


class Proved(TypedDict):
    """What was written."""

    present: bool
    dataset: str
    registration: str
    file: str


def prove_unit(
    settings: Settings, dataset: str, unit: str, registration: str | None, out: Path, *, rows: bool
) -> Proved:
    """Write a proof about one unit of a registered dataset, inside the hospital.

    Args:
        settings: a node's home and passphrase.
        dataset: its name.
        unit: a patient id, or the row's number from 0 where records are the units.
        registration: hash of the entry of an older version; None for the newest.
        out: the file to write.
        rows: also open the unit's rows, as they were committed to.

    Raises:
        InputError: no such version, its file changed, its secret was erased, or no proof can hold the
            unit's name or its rows.
    """
    with open_member(settings.home, settings.passphrase_file, ("node",)) as member:
        with closing(PrivateRegister.open(member.home.path / PRIVATE)) as private:
            record = _version(private, dataset, registration)
        federation = member.config.federation
    if not record.salt:
        raise InputError(
            f"{dataset}: the secret of version {_short(record)} was erased; nothing can be proved of it"
        )
    schema = parse_document(record.schema_document, Schema)
    path = Path(record.path)
    try:
        same = identify(path).sha256 == record.sha256
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; put back the file as registered") from None
    if not same:
        raise InputError(f"{path} is not the file of version {_short(record)}: put that file back")
    table = read_table(path, schema)
    snapshot = take_snapshot(table, schema, salt=record.salt)
    leaves = prove(snapshot, unit)
    text = unit_text(table, schema, unit)
    assert record.registration is not None
    try:
        proof = SnapshotProof(
            federation=federation,
            dataset=dataset,
            registration=record.registration,
            size=snapshot.size,
            salt=record.salt.hex(),
            unit=unit,
            rows=text if rows else None,
            leaves=leaves,
        )
    except ValidationError as error:
        raise InputError(f"no proof can hold this: {explain(error)}") from None
    present = judge(proof, record.snapshot)
    write_file(out, encode_document(proof), private=True)
    return Proved(present=present, dataset=dataset, registration=record.registration, file=str(out))


def judge_file(found: Verification, path: Path) -> Judged:
    """Judge a proof by the registration that a verified copy of the ledger holds.

    Raises:
        InputError: it is no proof, or of another federation, or its registration is not in the copy.
        NotConsistent: it does not show what it claims.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DOCUMENT + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    try:
        proof = parse_document(data, SnapshotProof)
    except MalformedInput as error:
        raise InputError(f"{path} is no proof of `dataset prove`: {error.reason}") from None
    if proof.federation != found.report.federation:
        raise InputError(f"{path}: it is about federation {proof.federation}, not this one")
    record = found.history.datasets.get(proof.dataset)
    versions = record.versions if record else []
    version = next((v for v in versions if v.said.hash == proof.registration), None)
    if version is None:
        raise InputError(
            f"{path}: this copy has no registration {proof.registration[:16]} of {proof.dataset!r}; it "
            f"has {found.report.size} entries, a longer one may have it"
        )
    terms: DatasetRegistered = version.terms
    present = judge(proof, terms.snapshot)
    return Judged(
        present=present,
        dataset=proof.dataset,
        unit=proof.unit,
        rows=None if proof.rows is None else proof.rows.split("\n"),
        registration=proof.registration,
        entry=version.said.index,
        ledger=found.report.completeness(),
    )


def forget_secret(settings: Settings, dataset: str, registration: str | None) -> str:
    """Erase the secret of a version's commitment; returns the version's registration.

    Raises:
        InputError: no such version.
    """
    with open_member(settings.home, settings.passphrase_file, ("node",)) as member:
        path = member.home.path / PRIVATE
        with closing(PrivateRegister.open(path)) as private:
            record = _version(private, dataset, registration)
            assert record.registration is not None
            private.datasets.forget_salt(record.registration)
        empty_journal(path)
    return record.registration


def _version(private: PrivateRegister, dataset: str, registration: str | None) -> DatasetRecord:
    known = private.view.datasets
    if registration is None:
        record = known.get(dataset)
        if record is None:
            raise UnknownName("dataset", dataset, sorted(known))
        return record
    record = private.datasets.registered(registration)
    if record is None or record.name != dataset:
        raise InputError(f"{dataset} was never registered here by entry {registration}")
    return record


def _short(record: DatasetRecord) -> str:
    return (record.registration or "")[:16]

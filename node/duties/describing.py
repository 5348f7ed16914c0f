"""Answering a steward's permission for statistics: reserve, intend, count, say, and never twice.

In this order, each step durable before the next: the register charges the cells; an intent is recorded;
the noisy vector goes to the blob store and the outbox; the entry is said; only then do its bytes leave.
After a crash the same bytes go out again. An intent without a vector is a crash in between: nobody can say
what its noise was used for, so it is not drawn again, and the charge stays.

What is asked and paid is judged from the own verified copy: a permission counts when a quorum of
hospitals has cosigned it, young enough, and when its sensitivity covers what is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from ledger.copies.blobs import BlobStore
from ledger.copies.replica import Replica
from ledger.entries.operations.statistics import StatisticsReleased
from ledger.entries.operations.values import BlobRef
from ledger.errors import MalformedInput, PlanRefused
from ledger.experiment.pure_statistics import release_purely, shortfall
from ledger.experiment.schema import Schema
from ledger.experiment.statistics import Question, Shape, shape_of
from ledger.experiment.tensors import encode_update
from ledger.formats.documents import parse_document
from ledger.rules.blocks import ALL
from ledger.rules.experiments import was_held_back
from ledger.rules.state import State, Statistics
from node.data.blocks import rows_of_blocks
from node.data.holdings import Holdings
from node.data.statistics import count_patients
from node.duties.renewing import out_of_step
from node.duties.told import account_for_told
from node.errors import JobRefused
from node.register.accounts import DatasetRecord
from node.register.private import PrivateRegister
from privacy.errors import BudgetExceeded
from privacy.noise import Randomness, SecureRandom

_ROUND = 1


def unanswered(state: State, me: str) -> tuple[str, ...]:
    """Permissions for this node's datasets that it has not answered, oldest first."""
    waiting = [
        (held.index, identity)
        for identity, held in state.statistics.items()
        if held.result is None and state.datasets[held.terms.dataset].node == me
    ]
    return tuple(identity for _, identity in sorted(waiting))


def answer_statistics(
    replica: Replica,
    identity: str,
    register: PrivateRegister,
    blobs: BlobStore,
    *,
    hospital_key: Callable[[], bytes],
    patients: Path,
    fetch: Callable[[BlobRef], bytes],
    now_ms: int,
    open_noise: Callable[[], Randomness] = SecureRandom,
) -> tuple[StatisticsReleased, bytes]:
    """Make the one answer, or find the one that was made.

    Args:
        replica: this node's own copy.
        identity: of the permission.
        register: private.
        blobs: this node's own.
        hospital_key: opens the hospital's secret.
        patients: ``patients.db``.
        fetch: gets a blob and checks it.
        now_ms: this node's clock.
        open_noise: in tests, repeatable noise.

    Returns:
        What to say, and the bytes to bring to the coordinator after it.

    Raises:
        JobRefused: it gives no permission, or was begun and lost.
        DatasetChanged, DatasetError: the file is not what was registered.
        LedgerError: a blob cannot be fetched.
    """
    held = replica.state.statistics[identity]
    key = (identity, held.terms.dataset)
    kept = register.view.outbox.get((*key, _ROUND))
    if kept is None:
        account_for_told(replica.state, replica.state.datasets[held.terms.dataset].node, register)
        record = _permitted(replica, held, register, now_ms)
        shape = _shape(replica.state, held, record, fetch)
        if register.intended(*key, _ROUND):
            raise JobRefused("it was begun before and its noise may be used; what it cost stays")
        try:
            register.reserve(replica.state.federation, *key, held.terms.charges)
        except (BudgetExceeded, KeyError) as error:
            raise JobRefused(f"the private register does not admit it: {error}") from None
        exact = _counted(replica.state, held, record, shape, hospital_key(), patients)
        register.record_intent(*key, "evaluate", round_number=_ROUND, steps=1, at_ms=now_ms)
        with closing(open_noise()) as rng:
            if shape.pure:
                noisy = release_purely(rng, shape, held.terms, exact)
            else:
                noisy = exact + rng.gaussian_integers(held.terms.noise_sd, shape.size)
        kept = blobs.put(encode_update(noisy.astype(np.int64)))
        register.outbox.store(*key, _ROUND, kept)
    said = StatisticsReleased(type="statistics.released", reservation=identity, result=kept)
    return said, blobs.get(kept)


def _permitted(
    replica: Replica, held: Statistics, register: PrivateRegister, now_ms: int
) -> DatasetRecord:
    state = replica.state
    dataset = state.datasets[held.terms.dataset]
    record = register.view.datasets.get(held.terms.dataset)
    if dataset.withdrawn_at is not None:
        raise JobRefused("the dataset was withdrawn")
    if dataset.registration != held.terms.registration or record is None:
        raise JobRefused("the dataset was registered anew, or not by this node; ask again")
    if record.registration != dataset.registration:
        raise JobRefused("this node does not hold the dataset as it is registered")
    cosigned_s = replica.cosigned_s(held.index)
    if held.index >= replica.final.size or cosigned_s is None:
        raise JobRefused("no quorum of hospitals has cosigned the steward's permission yet")
    if was_held_back(held.at_ms, cosigned_s, state.policy):
        raise JobRefused("the steward's permission was too old when hospitals cosigned it")
    why = out_of_step(state, held.terms.charges, now_ms)
    if why is not None:
        raise JobRefused(why)
    if held.at_ms > now_ms + state.policy.skew_ms:
        raise JobRefused("the steward's permission is from the future by this node's clock")
    return record


def _shape(
    state: State, held: Statistics, record: DatasetRecord, fetch: Callable[[BlobRef], bytes]
) -> Shape:
    try:
        question = parse_document(fetch(held.terms.question), Question)
        shape = shape_of(question, parse_document(record.schema_document, Schema))
    except (PlanRefused, MalformedInput) as error:
        raise JobRefused(str(error)) from None
    terms = held.terms
    cells = {charge.cell: state.cells[charge.cell].terms for charge in terms.charges}
    short = shortfall(shape, terms, cells)
    if question.dataset != terms.dataset:
        raise JobRefused("the question is not the one that was paid for")
    if short is not None:
        raise JobRefused(f"what was paid does not cover what is asked: {short}")
    return shape


def _counted(
    state: State,
    held: Statistics,
    record: DatasetRecord,
    shape: Shape,
    hospital_key: bytes,
    patients: Path,
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    holdings = Holdings()
    path = Path(record.path)
    table = holdings.table(path, record.schema_document, record.sha256)
    keep = ~holdings.split(path, record.schema_document, hospital_key, record.sha256)
    cells = [state.cells[charge.cell].terms for charge in held.terms.charges]
    blocks = frozenset(cell.block for cell in cells) - {ALL}
    if blocks:
        keep &= rows_of_blocks(table, hospital_key, patients, record.snapshot, blocks)
    return count_patients(table, shape, keep)

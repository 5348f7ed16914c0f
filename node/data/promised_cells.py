"""Which cells a dataset uses, and what the patients of a new one are promised.

Cells: one for all patients where the first dataset has no patient ids (training and evaluation add
up in it); else one for each half, fixed by keyed hash of the patient id, and, where the hospital
declared calendar blocks, one of these for each block of first registration (``blocks.py``). A patient
has one cell for ever, so a later dataset uses the cells that are there.
"""

from __future__ import annotations

from typing import Literal

from immutables import Map

from ledger.entries.operations.datasets import CellLimit, CellRegistered, CellUse
from ledger.experiment.schema import Schema
from ledger.rules.blocks import ALL
from ledger.rules.datasets import DELTA_MAX_E15
from node.data.blocks import Calendar, CalendarCells, calendar_cells, is_by_calendar
from node.errors import RegistrationRefused
from node.register.accounts import PrivateCell
from privacy.errors import PrivacyError
from privacy.filters import limit_for


def cell_name(organisation: str, half: str) -> str:
    """Name of a hospital's cell."""
    return f"{organisation}-{half}"


def promised_cells(
    schema: Schema,
    organisation: str,
    known: Map[str, PrivateCell],
    epsilon: float | None,
    delta: float | None,
    calendar: Calendar | None,
) -> tuple[
    tuple[CellUse, ...], tuple[tuple[CellRegistered, int | None], ...], CalendarCells | None
]:
    """What the dataset reads, the promises to be made with who stays for evaluation, and its blocks.

    Raises:
        RegistrationRefused: the promise or the division into halves is not possible.
    """
    if is_by_calendar(schema, known, calendar) and calendar is not None:
        cells = calendar_cells(schema, organisation, known, calendar)
        return cells.uses, _block_promises(schema, cells, known, epsilon, delta), cells
    uses, new = _undivided_cells(schema, organisation, known, epsilon, delta)
    return uses, new, None


def _block_promises(
    schema: Schema,
    cells: CalendarCells,
    known: Map[str, PrivateCell],
    epsilon: float | None,
    delta: float | None,
) -> tuple[tuple[CellRegistered, int | None], ...]:
    if not cells.new:
        for cell in known.values():
            _check_promise(schema, cell.terms, epsilon, delta)
        return ()
    promises = []
    for new in cells.new:
        sibling = next((c.terms for c in known.values() if c.terms.block == new.block), None)
        if sibling is not None:
            terms = _other_half(schema, sibling, new.name, new.declared, epsilon, delta)
        else:
            asked = _promised_before(schema, known) if epsilon is None else epsilon
            declared = max(1, new.declared)
            terms = _terms(schema, new.name, new.half, declared, asked, delta, block=new.block)
        promises.append((terms, schema.test_percent))
    return tuple(promises)


def _promised_before(schema: Schema, known: Map[str, PrivateCell]) -> float:
    """What a new block's patients are promised where nothing is said: as those of the newest one."""
    if not known:
        raise _no_promise(schema)
    newest = max(known.values(), key=lambda cell: cell.terms.block)
    return newest.terms.epsilon_micro / 10**6


def _other_half(
    schema: Schema,
    sibling: CellRegistered,
    name: str,
    declared: int,
    epsilon: float | None,
    delta: float | None,
) -> CellRegistered:
    """The second cell of a pair whose registration was cut off after the first: the same promise."""
    _check_promise(schema, sibling, epsilon, delta)
    most_e15 = min(DELTA_MAX_E15, 10**15 // (10 * sibling.declared_patients))
    if sibling.delta_e15 != most_e15:  # it was said
        delta = sibling.delta_e15 / 10**15
    promised = sibling.epsilon_micro / 10**6
    return _terms(schema, name, "test", max(1, declared), promised, delta, block=sibling.block)


def _no_promise(schema: Schema) -> RegistrationRefused:
    return RegistrationRefused(
        schema.dataset,
        "it is the hospital's first dataset: say the epsilon that its patients are promised "
        "for ever (--epsilon)",
    )


def _undivided_cells(
    schema: Schema,
    organisation: str,
    known: Map[str, PrivateCell],
    epsilon: float | None,
    delta: float | None,
) -> tuple[tuple[CellUse, ...], tuple[tuple[CellRegistered, int | None], ...]]:
    whole = cell_name(organisation, "all")
    halves = (cell_name(organisation, "train"), cell_name(organisation, "test"))
    has_ids = schema.patient_column is not None
    divided = any(name in known for name in halves)
    if divided and not has_ids:
        raise RegistrationRefused(
            schema.dataset,
            "this hospital's patients are told apart by patient id; declare a column of type "
            "patient_id, so that each patient's budget is one over all datasets",
        )
    wanted: tuple[tuple[str, CellUse, int], ...]
    percent: int | None = None
    if whole in known or not has_ids:
        wanted = ((whole, CellUse(cell=whole, use="both"), schema.declared_rows),)
    else:
        percent = schema.test_percent
        wanted = (
            (halves[0], CellUse(cell=halves[0], use="train"), schema.declared_train),
            (halves[1], CellUse(cell=halves[1], use="test"), schema.declared_test),
        )[: 2 if percent else 1]
        for name, _, _ in wanted:
            if name in known and known[name].test_percent != percent:
                raise RegistrationRefused(
                    schema.dataset,
                    f"test_percent is {percent}, but this hospital divided its patients at "
                    f"{known[name].test_percent}; use the same, or a patient would be trained on "
                    "and measured",
                )
    new = []
    for name, use, declared in wanted:
        if name in known:
            _check_promise(schema, known[name].terms, epsilon, delta)
            continue
        if name == halves[1] and halves[0] in known:
            sibling = known[halves[0]].terms
            terms = _other_half(schema, sibling, name, declared, epsilon, delta)
        elif epsilon is None:
            raise _no_promise(schema)
        else:
            terms = _terms(schema, name, use.use, max(1, declared), epsilon, delta)
        new.append((terms, percent))
    return tuple(use for _, use, _ in wanted), tuple(new)


def _check_promise(
    schema: Schema, terms: CellRegistered, epsilon: float | None, delta: float | None
) -> None:
    promised = terms.epsilon_micro / 10**6
    if epsilon is not None and round(epsilon * 10**6) != terms.epsilon_micro:
        raise RegistrationRefused(
            schema.dataset,
            f"its patients were promised epsilon {promised:g} for ever (cell {terms.cell}); "
            f"leave --epsilon out",
        )
    if delta is not None and round(delta * 10**15) != terms.delta_e15:
        raise RegistrationRefused(
            schema.dataset,
            f"its patients were promised delta {terms.delta_e15 / 10**15:g} for ever "
            f"(cell {terms.cell}); leave --delta out",
        )


def _terms(
    schema: Schema,
    name: str,
    half: Literal["train", "test", "both"],
    declared: int,
    epsilon: float,
    delta: float | None,
    *,
    block: str = ALL,
) -> CellRegistered:
    most_e15 = min(DELTA_MAX_E15, 10**15 // (10 * declared))
    delta_e15 = most_e15 if delta is None else round(delta * 10**15)
    if not 1 <= delta_e15 <= most_e15:
        raise RegistrationRefused(
            schema.dataset,
            f"delta {delta:g} is outside 1e-15..{most_e15 / 10**15:g} "
            "(the most is 1e-5, or a tenth of 1 / declared patients)",
        )
    epsilon_micro = round(epsilon * 10**6)
    try:
        limit = limit_for(epsilon_micro / 10**6, delta_e15 / 10**15)
        return CellRegistered(
            type="cell.registered",
            cell=name,
            block=block,
            half=half,
            declared_patients=declared,
            epsilon_micro=epsilon_micro,
            delta_e15=delta_e15,
            limit=CellLimit(g_max=limit.g_max, r_max=limit.r_max, order_centi=limit.order_centi),
        )
    except (PrivacyError, ValueError) as error:
        raise RegistrationRefused(
            schema.dataset, f"epsilon {epsilon:g} cannot be promised: {error}"
        ) from None

"""Short forms of what a ledger says, as tables show them and ``--json`` prints them.

Numbers are in people's units: epsilon, patients, ISO times; what an entry holds exactly is in
``consilium ledger show``.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypedDict

from audit.reports.budget import DELTAS, FALSE_ALARMS
from consilium.commands.naming import SHORT
from ledger.entries.operations.federation import (
    ExpelChange,
    InviteChange,
    Policy,
    RekeyChange,
    WithdrawChange,
)
from ledger.entries.operations.plans import Plan
from ledger.experiment.schema import CategoryColumn, NumberColumn, Schema
from ledger.formats.checkpoint import parse_checkpoint
from ledger.formats.note import parse_note
from ledger.rules.log import Sequenced
from ledger.rules.purposes import NONE, fitting, gate, is_closed
from ledger.rules.state import Cell, Dataset, Experiment, Member, State
from privacy.calibrate import epsilon_of
from privacy.curves import true_positive_rate
from privacy.events import CHARGE_UNIT, FULL_BATCH
from privacy.filters import Charge, left
from privacy.histogram import Measure

if TYPE_CHECKING:
    from consilium.rehearsal import Rehearsal


class MemberSummary(TypedDict):
    """A member of the federation."""

    handle: str
    role: str
    organisation: str
    joined_at: int
    ready: bool
    revoked: bool
    expelled: bool
    disputed_since: str | None


class DatasetSummary(TypedDict):
    """A dataset and what its patients' budget still holds (its worst cell's)."""

    dataset: str
    organisation: str
    unit: str
    declared_train: int
    declared_test: int
    cells: list[str]
    epsilon_promised: float
    epsilon_spent: float
    withdrawn: bool
    registered_at: int


class CellSummary(TypedDict):
    """A cell of patients and its lifetime promise; ``left`` is a share of the wider open lane."""

    cell: str
    organisation: str
    half: str
    block: str
    declared_patients: int
    epsilon: float
    delta: float
    epsilon_spent: float
    left: float


class CurvePoint(TypedDict):
    """What a cell's spend amounts to at another delta."""

    delta: float
    epsilon: float


class PurposeSummary(TypedDict):
    """What was spent of a cell for one purpose; ``epsilon`` is the most that may be, or None for all.

    ``closed`` says that nothing more is admitted for it.
    """

    purpose: str
    epsilon: float | None
    epsilon_spent: float
    closed: bool


class CellBudgetSummary(CellSummary):
    """A cell with what its spend means: an attacker's chance, and epsilon at any delta.

    ``attacker_gain_at_1_percent`` is the most true positives at 1 % false ones; without any spend it is
    0.01 itself. ``more_like_last`` is how many more reservations like the dataset's last one it admits.
    """

    attacker_gain_at_1_percent: float
    more_like_last: int | None
    purposes: list[PurposeSummary]
    curve: list[CurvePoint]


class DatasetBudgetSummary(TypedDict):
    """A dataset's budget: its cells, and what fits into the one that holds the least."""

    dataset: str
    unit: str
    last_experiment: str | None
    more_like_last: int | None
    cells: list[CellBudgetSummary]


class ExperimentSummary(TypedDict):
    """An experiment, how far it is, and who said what about it."""

    id: str
    name: str
    status: str
    reason: str | None
    researcher: str
    round: int
    rounds: int
    asked: list[str]
    approved: list[str]
    refused: dict[str, str]
    epsilon: float


class ChangeSummary(TypedDict):
    """A proposed change of the federation and who stands behind it."""

    change: str
    what: str
    proposed_by: str
    organisations: str
    in_force: bool


class CheckpointSummary(TypedDict):
    """A signed checkpoint: root in hexadecimal, names of the keys under it, and the note itself."""

    origin: str
    size: int
    root: str
    signed_by: list[str]
    note: str


class EntrySummary(TypedDict):
    """An entry of the log in a line."""

    index: int
    operation: str
    author: str
    at: str
    verdict: str
    hash: str


def member_summary(member: Member) -> MemberSummary:
    """Summarise a member."""
    return MemberSummary(
        handle=member.handle,
        role=member.role,
        organisation=member.organisation,
        joined_at=member.joined_at,
        ready=member.ready,
        revoked=member.revoked_at is not None,
        expelled=member.expelled_at is not None,
        disputed_since=(
            None if member.disputed_since_ms is None else iso_time(member.disputed_since_ms)
        ),
    )


def dataset_summary(state: State, name: str, dataset: Dataset) -> DatasetSummary:
    """Summarise a dataset."""
    cells = [state.cells[use.cell] for use in dataset.terms.cells]
    return DatasetSummary(
        dataset=name,
        organisation=dataset.organisation,
        unit=dataset.terms.unit,
        declared_train=dataset.terms.declared_train,
        declared_test=dataset.terms.declared_test,
        cells=[cell.terms.cell for cell in cells],
        epsilon_promised=min(cell.terms.epsilon_micro for cell in cells) / 1e6,
        epsilon_spent=max(epsilon_spent(cell) for cell in cells),
        withdrawn=dataset.withdrawn_at is not None,
        registered_at=dataset.registered_at,
    )


def cell_summary(cell: Cell) -> CellSummary:
    """Summarise a cell."""
    terms = cell.terms
    limit, room = gate(cell), left(cell.spend, gate(cell))
    return CellSummary(
        cell=terms.cell,
        organisation=cell.organisation,
        half=terms.half,
        block=terms.block,
        declared_patients=terms.declared_patients,
        epsilon=terms.epsilon_micro / 1e6,
        delta=terms.delta_e15 / 1e15,
        epsilon_spent=epsilon_spent(cell),
        left=max(room.g / limit.g_max, room.r / limit.r_max),
    )


def dataset_budget_summary(state: State, dataset: Dataset) -> DatasetBudgetSummary:
    """Summarise what a dataset's patients were promised, what is spent, and what still fits.

    Reserved counts as spent until it is settled.
    """
    name = dataset.terms.dataset
    users = [e for e in state.experiments.values() if name in e.reservations]
    last = max(users, key=lambda e: e.reservations[name].index, default=None)
    charges = {} if last is None else {c.cell: c for c in last.reservations[name].charges}
    cells = []
    for use in dataset.terms.cells:
        cell = state.cells[use.cell]
        more = None
        if use.cell in charges:
            one = charges[use.cell]
            purpose = last.plan.purpose if last is not None else "research"
            more = fitting(cell, purpose, Charge(one.g, one.r))
        cells.append(_cell_budget(cell, more))
    repeatable = [c["more_like_last"] for c in cells if c["more_like_last"] is not None]
    return DatasetBudgetSummary(
        dataset=name,
        unit=dataset.terms.unit,
        last_experiment=None if last is None else last.name,
        more_like_last=min(repeatable, default=None),
        cells=cells,
    )


def purpose_summary(cell: Cell, purpose: str) -> PurposeSummary:
    """Summarise what a purpose has used of a cell, and may use."""
    share = cell.purposes.get(purpose, NONE)
    spend, terms = share.spend, cell.terms
    return PurposeSummary(
        purpose=purpose,
        epsilon=None if share.terms is None else share.terms.epsilon_micro / 1e6,
        epsilon_spent=epsilon_of(spend.g, spend.r, terms.limit.order_centi, terms.delta_e15 / 1e15),
        closed=is_closed(cell, purpose),
    )


def _cell_budget(cell: Cell, more: int | None) -> CellBudgetSummary:
    spend, order = cell.spend, cell.terms.limit.order_centi
    mu = math.sqrt(spend.g / CHARGE_UNIT)
    return CellBudgetSummary(
        **cell_summary(cell),
        attacker_gain_at_1_percent=true_positive_rate(mu, FALSE_ALARMS),
        more_like_last=more,
        purposes=[purpose_summary(cell, code) for code in sorted(cell.purposes)],
        curve=[
            CurvePoint(delta=delta, epsilon=epsilon_of(spend.g, spend.r, order, delta))
            for delta in DELTAS
        ],
    )


def experiment_summary(experiment: Experiment) -> ExperimentSummary:
    """Summarise an experiment."""
    plan = experiment.plan
    rounds = plan.rounds + plan.evaluate + plan.baseline
    refused = {name: said.reason for name, said in sorted(experiment.refusals.items())}
    refused |= {name: said.reason for name, said in sorted(experiment.budget_refusals.items())}
    return ExperimentSummary(
        id=experiment.id,
        name=experiment.name,
        status=experiment.status,
        reason=experiment.reason,
        researcher=experiment.researcher,
        round=min(experiment.next_round, rounds),
        rounds=rounds,
        asked=[site.dataset for site in plan.sites],
        approved=sorted(experiment.approvals),
        refused=refused,
        epsilon=max(site.epsilon_micro for site in plan.sites) / 1e6,
    )


def change_summary(state: State, change: str) -> ChangeSummary:
    """Summarise a proposed change."""
    pending = state.changes[change]
    inner = pending.change
    if isinstance(inner, InviteChange):
        handles = ", ".join(seat.handle for seat in inner.invitation.seats)
        what = f"invite {inner.invitation.organisation}: {handles}"
    elif isinstance(inner, RekeyChange):
        what = f"new keys for {inner.member}"
    elif isinstance(inner, WithdrawChange):
        known = state.invitations[inner.invitation].invitation
        what = f"withdraw invitation {inner.invitation[:SHORT]} of {known.organisation}"
    elif isinstance(inner, ExpelChange):
        what = f"expel {inner.organisation}"
    else:
        change_of = policy_difference(state.policy, inner.policy)
        what = f"new policy: {change_of}" if change_of else "new policy: what is in force"
    return ChangeSummary(
        change=change[:12],
        what=what,
        proposed_by=pending.proposed_by,
        organisations=", ".join(sorted(pending.organisations)),
        in_force=pending.effective_at is not None,
    )


def policy_difference(now: Policy, wanted: Policy) -> str:
    """The fields in which a policy differs, in a line; empty when it does not."""
    fields = Policy.model_fields
    return ", ".join(
        f"{name} {getattr(now, name):,} -> {getattr(wanted, name):,}"
        for name in fields
        if getattr(now, name) != getattr(wanted, name)
    )


def entry_summary(item: Sequenced) -> EntrySummary:
    """Summarise an entry."""
    body = item.entry.body
    return EntrySummary(
        index=item.index,
        operation=body.op.type,
        author=body.author,
        at=iso_time(body.at_ms),
        verdict="applied" if item.outcome.applied else f"void: {item.outcome.void}",
        hash=item.entry.hash,
    )


def checkpoint_summary(note: bytes) -> CheckpointSummary:
    """A signed checkpoint; its signatures are named, not verified.

    Raises:
        MalformedInput: it is none.
    """
    parsed = parse_note(note)
    checkpoint = parse_checkpoint(parsed.text)
    return CheckpointSummary(
        origin=checkpoint.origin,
        size=checkpoint.size,
        root=checkpoint.root.hex(),
        signed_by=[signature.name for signature in parsed.signatures],
        note=note.decode("utf-8"),
    )


def epsilon_spent(cell: Cell) -> float:
    """Epsilon at the cell's delta of all that is reserved or spent, by the lanes' closed form."""
    spend, terms = cell.spend, cell.terms
    return epsilon_of(spend.g, spend.r, terms.limit.order_centi, terms.delta_e15 / 1e15)


def epsilon_after(cell: Cell, g: int, r: int) -> float:
    """`epsilon_spent` if a further charge were made."""
    spend, terms = cell.spend, cell.terms
    delta = terms.delta_e15 / 1e15
    return epsilon_of(spend.g + g, spend.r + r, terms.limit.order_centi, delta)


def iso_time(at_ms: int) -> str:
    """A time in milliseconds as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def schema_columns(schema: Schema) -> list[dict[str, str]]:
    """A schema's columns as rows: what may be named as a feature or a target, and its range."""
    rows = []
    for column in schema.columns:
        if isinstance(column, NumberColumn):
            values = f"{column.low} .. {column.high} {column.unit}".strip()
            policy = f"outside: {column.outside}, missing: {column.missing}"
        elif isinstance(column, CategoryColumn):
            values = ", ".join(column.values)
            policy = f"outside: {column.outside}, missing: {column.missing}"
        else:
            values, policy = "the unit of privacy; never a feature", ""
        rows.append(
            {
                "column": column.name,
                "type": column.type,
                "values": values,
                "policy": policy,
                "about": column.about,
            }
        )
    return rows


def plan_sites(plan: Plan) -> list[dict[str, str | float | int]]:
    """What a plan asks of each dataset, as rows; noise as a multiple of the clip norm."""
    rows: list[dict[str, str | float | int]] = []
    for site in plan.sites:
        train = next(r for r in site.releases if r.purpose == "train")
        rows.append(
            {
                "dataset": site.dataset,
                "epsilon": site.epsilon_micro / 1e6,
                "steps": train.steps,
                "noise_multiplier": train.noise_sd / train.sensitivity,
                "sampling": train.sampling / FULL_BATCH,
                "weight": site.weight,
            }
        )
    return rows


def experiment_row(summary: ExperimentSummary) -> dict[str, str | float | None]:
    """An experiment's summary as one row of a table."""
    refused = ", ".join(f"{name}: {reason}" for name, reason in summary["refused"].items())
    status = summary["status"] + (f" ({summary['reason']})" if summary["reason"] else "")
    return {
        "id": summary["id"][:SHORT],
        "name": summary["name"],
        "status": status,
        "round": f"{summary['round']}/{summary['rounds']}",
        "researcher": summary["researcher"],
        "epsilon": summary["epsilon"],
        "approved": f"{len(summary['approved'])} of {len(summary['asked'])}",
        "refused": refused or None,
    }


def measure_row(name: str, measure: Measure) -> dict[str, str | float | None]:
    """One measure as a row."""
    return {
        "measure": name,
        "value": measure.value,
        "low": measure.low,
        "high": measure.high,
        "reason": measure.reason,
    }


def rehearsal_summary(done: Rehearsal) -> dict[str, str | float | int | None]:
    """What a rehearsal showed, without its measures."""
    seconds = sorted(done.round_seconds)
    noise = max(done.noise_per_step.values())
    return {
        "parameters": done.plan.parameters,
        "rounds": done.rounds,
        "datasets": len(done.rows),
        "rows_made_up": sum(done.rows.values()),
        "update_bytes": done.update_bytes,
        "seconds_per_round": seconds[len(seconds) // 2],
        "noise_per_step": noise,
        "epsilon": max(site.epsilon_micro for site in done.plan.sites) / 1e6,
    }


def federation_summary(state: State, final_size: int) -> dict[str, str | int | list[str]]:
    """A federation as a whole."""
    witnesses = sorted(state.witnesses_at(final_size))
    hospitals = {m.organisation for m in state.members.values() if m.role == "node"}
    return {
        "name": state.name,
        "federation": state.federation,
        "coordinator": state.coordinator,
        "entries": state.size,
        "final_entries": final_size,
        "log_time": iso_time(state.log_time),
        "hospitals": sorted(hospitals),
        "witnesses": witnesses,
        "independently_witnessed": "yes" if len(witnesses) >= 3 else "no, fewer than three",
        "members": len(state.members),
        "datasets": len(state.datasets),
        "experiments": len(state.experiments),
        "endorsements": state.policy.endorsements,
    }

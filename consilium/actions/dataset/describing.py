"""Noisy statistics of a dataset: a steward allows and pays, the node answers once, every member reads."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from html import escape
from typing import Literal, TypedDict

from consilium.actions.speaking import open_member, say
from consilium.errors import InputError
from consilium.naming import the_dataset
from consilium.settings import Settings
from ledger.entries.operations.statistics import StatisticsReserved
from ledger.entries.operations.values import BlobRef
from ledger.errors import PlanRefused
from ledger.experiment.pure_statistics import divide_epsilon, pure_charges, scale_for
from ledger.experiment.schema import CategoryColumn, NumberColumn, Schema
from ledger.experiment.statistics import (
    ColumnStatistics,
    Figure,
    Question,
    charges_of,
    estimates,
    noise_for,
    shape_of,
)
from ledger.experiment.tensors import decode_update
from ledger.formats.documents import encode_document, parse_document
from ledger.rules.state import State
from ledger.rules.statistics import cells_read
from node.data.hospital_key import load_hospital_key
from node.duties.describing import answer_statistics, unanswered
from node.errors import JobRefused
from node.register.patients import PATIENTS
from node.register.private import PRIVATE, PrivateRegister
from privacy.calibrate import epsilon_of
from privacy.events import GRID


class Allowed(TypedDict):
    """Statistics that a steward allowed and paid for."""

    dataset: str
    reservation: str
    columns: list[str]
    epsilon: float
    noise: float
    cells: list[str]


class Released(TypedDict):
    """What the node answered."""

    dataset: str
    reservation: str
    result: str


@dataclass(frozen=True, slots=True)
class Description:
    """Released statistics as they can be read.

    Attributes:
        noise: of each count, in patients: deviation of the Gaussian, or scale of the Laplace noise.
        interval: half of a count's 95 % interval.
    """

    dataset: str
    reservation: str
    noise: float
    interval: float
    columns: tuple[ColumnStatistics, ...]


def allow_statistics(
    settings: Settings,
    name: str,
    epsilon: Decimal,
    columns: tuple[str, ...],
    bins: int,
    mechanism: Literal["gaussian", "laplace"] = "gaussian",
) -> Allowed:
    """Let the hospital's node release statistics once; the budget pays at this entry.

    Raises:
        InputError, PlanRefused: what is asked makes no sense.
        RefusedByFederation: the budget cannot pay, or the dataset is another hospital's.
    """
    with open_member(settings.home, settings.passphrase_file, ("steward",)) as member:
        member.follow()
        state = member.replica.state
        dataset = the_dataset(state, name)
        schema = parse_document(member.fetch(dataset.terms.schema_), Schema)
        every = tuple(
            c.name for c in schema.columns if isinstance(c, NumberColumn | CategoryColumn)
        )
        question = Question(
            consilium=1, dataset=name, columns=columns or every, bins=bins, mechanism=mechanism
        )
        shape = shape_of(question, schema)
        cells = {cell: state.cells[cell].terms for cell in cells_read(dataset)}
        if shape.pure:
            pure = divide_epsilon(epsilon, shape)
            noise = scale_for(shape.sensitivity, pure[0].epsilon_micro)
            charges = pure_charges(cells, pure)
        else:
            pure = ()
            noise = noise_for(epsilon, tuple(cells.values()), shape.sensitivity)
            charges = charges_of(cells, shape.sensitivity, noise)
        said = say(
            member,
            StatisticsReserved(
                type="statistics.reserved",
                dataset=name,
                registration=dataset.registration,
                question=member.publish(encode_document(question)),
                size=shape.size,
                sensitivity=shape.sensitivity,
                noise_sd=noise,
                pure=pure,
                charges=charges,
            ),
        )
    costs = [
        epsilon_of(c.g, c.r, cells[c.cell].limit.order_centi, cells[c.cell].delta_e15 / 1e15)
        for c in charges
    ]
    return Allowed(
        dataset=name,
        reservation=said.entry.hash,
        columns=list(question.columns),
        epsilon=max(costs),
        noise=noise / GRID,
        cells=sorted(cells),
    )


def answer_all(settings: Settings, name: str) -> list[Released]:
    """Answer what the steward allowed of a dataset, as its node; the service must be stopped.

    Raises:
        JobRefused: a permission does not hold, or there is none.
    """
    found: list[Released] = []
    with open_member(settings.home, settings.passphrase_file, ("node",)) as member:
        member.follow()
        the_dataset(member.replica.state, name)
        path = member.home.path
        waiting = [
            identity
            for identity in unanswered(member.replica.state, member.config.handle)
            if member.replica.state.statistics[identity].terms.dataset == name
        ]
        if not waiting:
            raise JobRefused(f"no statistics of {name} wait for an answer of this node")
        with closing(PrivateRegister.open(path / PRIVATE)) as private:
            for identity in waiting:
                op, data = answer_statistics(
                    member.replica,
                    identity,
                    private,
                    member.blobs,
                    hospital_key=lambda: load_hospital_key(path, member.keyring.sealing),
                    patients=path / PATIENTS,
                    fetch=member.fetch,
                    now_ms=time.time_ns() // 10**6,
                )
                say(member, op)
                member.publish(data)
                found.append(Released(dataset=name, reservation=identity, result=op.result.sha256))
    return found


def told_of(state: State, name: str, blob: Callable[[BlobRef], bytes]) -> tuple[Description, ...]:
    """Every released description of a dataset, oldest first."""
    dataset = the_dataset(state, name)
    found = []
    for identity, held in sorted(state.statistics.items(), key=lambda item: item[1].index):
        terms = held.terms
        if terms.dataset != name or held.result is None:
            continue
        if terms.registration != dataset.registration:
            continue  # its schema was another version's
        question = parse_document(blob(terms.question), Question)
        shape = shape_of(question, parse_document(blob(dataset.terms.schema_), Schema))
        if shape.size != terms.size:
            raise PlanRefused("statistics", f"{identity[:12]} is not what its question asks")
        vector = decode_update(blob(held.result), terms.size)
        columns = estimates(shape, vector, terms.noise_sd, question.bins)
        half = 1.96 if not terms.pure else math.log(20.0)
        interval = half * terms.noise_sd / GRID
        found.append(Description(name, identity, terms.noise_sd / GRID, interval, columns))
    return tuple(found)


def as_json(described: Description) -> dict[str, object]:
    """A description as plain values."""
    return {
        "dataset": described.dataset,
        "reservation": described.reservation,
        "noise": described.noise,
        "columns": [
            {
                "column": c.column,
                "unit": c.unit,
                "counts": [
                    {"label": label, **_plain(figure)}
                    for label, figure in zip(c.labels, c.counts, strict=True)
                ],
                "mean": None if c.mean is None else _plain(c.mean),
                "quantiles": [_plain(figure) for figure in c.quantiles],
            }
            for c in described.columns
        ],
    }


def as_lines(described: Description) -> list[str]:
    """A description for a terminal: bars, with the noise's 95 % interval."""
    lines = [f"{described.dataset}: counts are of patients, +- {described.interval:.1f}"]
    for c in described.columns:
        lines.append(f"{c.column}{f' ({c.unit})' if c.unit else ''}")
        if c.mean is not None:
            shown = ", ".join(map(_shown, c.quantiles))
            lines.append(f"  mean {_shown(c.mean)}; quarter, median, three quarters: {shown}")
        most = max(1.0, *(figure.value or 0.0 for figure in c.counts))
        for label, figure in zip(c.labels, c.counts, strict=True):
            value = figure.value or 0.0
            bar = "#" * round(30 * max(0.0, value) / most)
            lines.append(f"  {label:>20} {value:>10.1f} {bar}")
    return lines


def as_html(described: Description) -> str:
    """A description as one page that needs nothing else."""
    parts = []
    for c in described.columns:
        most = max(1.0, *(figure.high or 0.0 for figure in c.counts))
        bars = []
        for at, (label, figure) in enumerate(zip(c.labels, c.counts, strict=True)):
            y = 18 * at
            value, low, high = (
                400 * max(0.0, number or 0.0) / most
                for number in (figure.value, figure.low, figure.high)
            )
            bars.append(
                f'<text x="150" y="{y + 12}" text-anchor="end">{escape(label)}</text>'
                f'<rect x="160" y="{y + 2}" width="{value:.1f}" height="12" fill="#7aa6c2"/>'
                f'<line x1="{160 + low:.1f}" x2="{160 + high:.1f}" y1="{y + 8}" y2="{y + 8}" '
                'stroke="#234"/>'
                f'<text x="{166 + high:.1f}" y="{y + 12}">{figure.value or 0.0:.0f}</text>'
            )
        mean = "" if c.mean is None else f"<p>mean {escape(_shown(c.mean))}</p>"
        unit = f" ({escape(c.unit)})" if c.unit else ""
        parts.append(
            f"<h2>{escape(c.column)}{unit}</h2>{mean}"
            f'<svg width="640" height="{18 * len(c.labels) + 6}" font-size="11" '
            f'font-family="sans-serif">{"".join(bars)}</svg>'
        )
    return (
        f'<!doctype html><meta charset="utf-8"><title>{escape(described.dataset)}</title>'
        f"<h1>{escape(described.dataset)}</h1><p>Noisy counts of patients; lines are 95 % intervals "
        f"of the noise (of a count: +- {described.interval:.2f}). Reservation {described.reservation}.</p>"
        + "".join(parts)
    )


def decimal_epsilon(text: str) -> Decimal:
    """Read ``--epsilon``.

    Raises:
        InputError: it is no number above 0 and at most 100.
    """
    try:
        found = Decimal(text)
    except ArithmeticError:
        raise InputError(f"--epsilon {text!r} is not a number") from None
    if not (found.is_finite() and 0 < found <= 100):
        raise InputError(f"--epsilon {text} must be above 0 and at most 100")
    return found


def _plain(figure: Figure) -> dict[str, float | None]:
    return {"value": figure.value, "low": figure.low, "high": figure.high}


def _shown(figure: Figure) -> str:
    if figure.value is None:
        return "drowned by the noise"
    if figure.low is None:
        return f"{figure.value:.4g}"
    return f"{figure.value:.4g} ({figure.low:.4g}..{figure.high:.4g})"

"""The list of privacy events that a copy of a ledger holds: what a stranger's auditor recomputes.

Parameters, not epsilons: for every cell its promise, gates and sums, and every release that it pays for
by its mechanism. ``audit/standalone/recompute_budget.py`` does the arithmetic again with nothing but
Python's standard library. Mechanisms and their charges are written once; an event is three numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from audit.reports.budget import settled_steps
from audit.reports.periods import Life, Reservation, lives, numbers, reservations_of
from audit.verification.verify import Verification
from ledger.entries.operations.plans import Release
from ledger.entries.operations.statistics import StatisticsReserved
from ledger.entries.operations.values import MAX_INT
from ledger.rules.experiments import site_of
from ledger.rules.individual import is_individual
from privacy.calibrate import epsilon_of
from privacy.events import FULL_BATCH
from privacy.filters import Spend

FORMAT = "consilium-privacy-events-v1"


@dataclass
class _Mechanisms:
    """Kinds of release with their stated charges, each once."""

    places: dict[tuple[int, ...], int] = field(default_factory=dict)
    pure: dict[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)

    def place(self, release: Release | StatisticsReserved, g: int, r: int, order_centi: int) -> int:
        sampling = release.sampling if isinstance(release, Release) else FULL_BATCH
        key = (release.sensitivity, release.noise_sd, sampling, order_centi, g, r)
        if isinstance(release, StatisticsReserved) and release.pure:
            parts = tuple((part.epsilon_micro, part.count) for part in release.pure)
            flat = tuple(number for part in parts for number in part)
            at = self.places.setdefault((*key, *flat), len(self.places))
            self.pure[at] = parts
            return at
        return self.places.setdefault(key, len(self.places))

    def listed(self) -> list[dict[str, Any]]:
        names = ("sensitivity", "noise_sd", "sampling", "order_centi", "g", "r")
        found: list[dict[str, Any]] = []
        for key, at in self.places.items():
            one: dict[str, Any] = {n: _safe(v) for n, v in zip(names, key[:6], strict=True)}
            if at in self.pure:
                one["pure"] = self.pure[at]
            found.append(one)
        return found


def privacy_events(found: Verification) -> dict[str, Any]:
    """All privacy events of a verified copy.

    Args:
        found: a verification of the copy.

    Returns:
        ``format``; ``federation``, ``size`` and ``root`` of the ledger; ``cells`` with promise
        (``epsilon_micro``, ``delta_e15``), gates and sums of both lanes (units of 2^-40) and the epsilon
        of these sums; ``not_recomputable``, the cells whose patients have accounts inside the hospital, with
        their promise alone; a cell whose promise renews is there once for each period in which something counts,
        with the events of that period; ``mechanisms`` with parameters and charges of one step, under ``pure`` the
        epsilons in millionths and the numbers of what they consist of where that is pure; ``events`` as
        ``[cell, mechanism, steps]``, in the order of reservations. Integers above 2^53 - 1 are strings.
    """
    history, state = found.history, found.state
    names = sorted(n for n, cell in state.cells.items() if not is_individual(cell.terms))
    ledgers = _ledgers(found, names)
    apart = sorted(n for n, cell in state.cells.items() if is_individual(cell.terms))
    mechanisms = _Mechanisms()
    events: list[tuple[int, int, int]] = []
    held_in_order = sorted(
        (held.said.index, experiment.id, dataset)
        for experiment in history.experiments.values()
        for dataset, held in experiment.held.items()
    )
    for _, identity, dataset in held_in_order:
        experiment = history.experiments[identity]
        site = site_of(experiment.plan, dataset)
        if site is None:
            continue
        used = settled_steps(experiment, dataset)
        for release in site.releases:
            steps = release.steps if used is None else used.get(release.purpose, 0)
            for charge in release.charges if release.engine != "individual" else ():
                order = state.cells[charge.cell].terms.limit.order_centi
                kind = mechanisms.place(release, charge.g, charge.r, order)
                for ledger in ledgers[charge.cell]:
                    if ledger.holds((identity, dataset)):
                        events.append((ledger.place, kind, steps))
                        ledger.add(steps * charge.g, steps * charge.r)
    for identity, record in history.statistics.items():
        for charge in record.terms.charges:
            order = state.cells[charge.cell].terms.limit.order_centi
            kind = mechanisms.place(record.terms, charge.g, charge.r, order)
            for ledger in ledgers[charge.cell]:
                if ledger.holds((identity, record.terms.dataset)):
                    events.append((ledger.place, kind, 1))
                    ledger.add(charge.g, charge.r)
    return {
        "format": FORMAT,
        "federation": found.report.federation,
        "size": found.report.size,
        "root": found.report.root,
        "cells": [_cell(found, name, one) for name in names for one in ledgers[name]],
        "not_recomputable": [
            {
                "cell": name,
                "epsilon_micro": state.cells[name].terms.epsilon_micro,
                "delta_e15": state.cells[name].terms.delta_e15,
            }
            for name in apart
        ],
        "mechanisms": mechanisms.listed(),
        "events": events,
    }


def events_json(found: Verification) -> bytes:
    """The list as JSON, UTF-8, one line."""
    return orjson.dumps(privacy_events(found)) + b"\n"


@dataclass(slots=True)
class _Ledger:
    """What is summed under one promise: all of a cell, or one period of it.

    Attributes:
        place: in the list of cells.
        period: None where the promise is for ever.
        lives: in which periods each reservation counts.
    """

    place: int
    period: int | None
    lives: Mapping[Reservation, Life]
    g: int = 0
    r: int = 0

    def holds(self, reservation: Reservation) -> bool:
        return self.period is None or self.lives[reservation].reaches(self.period)

    def add(self, g: int, r: int) -> None:
        self.g += g
        self.r += r


def _ledgers(found: Verification, names: Sequence[str]) -> dict[str, list[_Ledger]]:
    """One for each cell, or for each period of a cell in which something counts."""
    ledgers: dict[str, list[_Ledger]] = {}
    place = 0
    for name in names:
        periods = found.state.cells[name].periods
        wanted: list[int | None] = [None]
        lived: dict[Reservation, Life] = {}
        if periods is not None:
            lived = lives(found.history, periods)
            mine = {key: lived[key] for key in reservations_of(found.history, name)}
            wanted = [*numbers(mine, periods.at(found.state.log_time))]
        ledgers[name] = [_Ledger(place + at, number, lived) for at, number in enumerate(wanted)]
        place += len(wanted)
    return ledgers


def _cell(found: Verification, name: str, ledger: _Ledger) -> dict[str, Any]:
    held = found.state.cells[name]
    terms, spend = held.terms, held.spend
    if ledger.period is not None:
        name, spend = f"{name}, period {ledger.period + 1}", Spend(ledger.g, ledger.r)
    order = terms.limit.order_centi
    return {
        "cell": name,
        "epsilon_micro": terms.epsilon_micro,
        "delta_e15": terms.delta_e15,
        "order_centi": order,
        "g_max": _safe(terms.limit.g_max),
        "r_max": _safe(terms.limit.r_max),
        "g": _safe(spend.g),
        "r": _safe(spend.r),
        "epsilon": epsilon_of(spend.g, spend.r, order, terms.delta_e15 / 1e15),
    }


def _safe(value: int) -> int | str:
    """An integer as every JSON reader keeps it."""
    return value if value <= MAX_INT else str(value)

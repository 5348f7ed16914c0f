"""The list of privacy events that a copy of a ledger holds: what a stranger's auditor recomputes.

Parameters, not epsilons: for every cell its promise, gates and sums, and every release that it pays for
by its mechanism. ``audit/standalone/recompute_budget.py`` does the arithmetic again with nothing but
Python's standard library. Mechanisms and their charges are written once; an event is three numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from audit.reports.budget import settled_steps
from audit.verification.verify import Verification
from ledger.entries.operations.plans import Release
from ledger.entries.operations.statistics import StatisticsReserved
from ledger.entries.operations.values import MAX_INT
from ledger.rules.experiments import site_of
from ledger.rules.individual import is_individual
from privacy.calibrate import epsilon_of
from privacy.events import FULL_BATCH

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
        their promise alone; ``mechanisms`` with parameters and charges of one step, under ``pure`` the
        epsilons in millionths and the numbers of what they consist of where that is pure; ``events`` as
        ``[cell, mechanism, steps]``, in the order of reservations. Integers above 2^53 - 1 are strings.
    """
    history, state = found.history, found.state
    names = sorted(n for n, cell in state.cells.items() if not is_individual(cell.terms))
    apart = sorted(n for n, cell in state.cells.items() if is_individual(cell.terms))
    place_of = {name: at for at, name in enumerate(names)}
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
                events.append((place_of[charge.cell], kind, steps))
    for record in history.statistics.values():
        for charge in record.terms.charges:
            order = state.cells[charge.cell].terms.limit.order_centi
            kind = mechanisms.place(record.terms, charge.g, charge.r, order)
            events.append((place_of[charge.cell], kind, 1))
    return {
        "format": FORMAT,
        "federation": found.report.federation,
        "size": found.report.size,
        "root": found.report.root,
        "cells": [_cell(found, name) for name in names],
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


def _cell(found: Verification, name: str) -> dict[str, Any]:
    held = found.state.cells[name]
    terms, spend = held.terms, held.spend
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

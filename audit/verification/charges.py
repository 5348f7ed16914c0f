"""What every release cost every cell, put together anew from reservations, settlements and updates.

The noise that a node showed or stated counts, void updates included, also where it is more than was reserved or
settled: that is the spend of a hostile one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from audit.verification.history import History
from audit.verification.records import ExperimentRecord
from ledger.entries.operations.plans import SitePlan
from ledger.entries.operations.purposes import PurposeCode
from ledger.rules.budget import steps_stated
from ledger.rules.rounds import round_kind

_NOT_THE_NODES = frozenset({"not_permitted", "stale", "not_owner", "unknown_dataset"})
"""Why an update is void that was not the word of the dataset's own node: it states no noise of it."""


class Charged(NamedTuple):
    """What one release, or statistics, cost one cell.

    Attributes:
        within: no more than was reserved, and no more than was settled.
    """

    purpose: PurposeCode
    cell: str
    g: int
    r: int
    reservation: tuple[str, str]
    within: bool


def charged(history: History) -> Iterator[Charged]:
    """Every charge of this log, put together anew."""
    for experiment in history.experiments.values():
        for site in experiment.plan.sites:
            held = experiment.held.get(site.dataset)
            if held is None:
                continue
            noise, key = _noise(experiment, site), (experiment.id, site.dataset)
            stated = {} if held.settled is None else dict(steps_stated(held.settled[1].used))
            for release in site.releases:
                if release.engine == "individual":
                    continue  # of which the log has no sum
                steps = noise.get(release.purpose, 0)
                most = stated.get(release.purpose, 0) if held.settled else release.steps
                within = steps <= most
                if held.settled is None:
                    steps = max(release.steps, steps)
                for charge in release.charges:
                    g, r = steps * charge.g, steps * charge.r
                    yield Charged(experiment.plan.purpose, charge.cell, g, r, key, within)
    for identity, told in history.statistics.items():
        for charge in told.terms.charges:
            key = identity, told.terms.dataset
            yield Charged("statistics", charge.cell, charge.g, charge.r, key, True)


def _noise(experiment: ExperimentRecord, site: SitePlan) -> dict[str, int]:
    """Steps whose noise a node showed or stated, void updates included: the spend of a hostile one.

    It may exceed what was reserved, and what was settled.
    """
    held = experiment.held[site.dataset]
    used: dict[str, int] = {}
    if held.settled is not None:
        used = dict(steps_stated(held.settled[1].used))
    planned = {release.purpose: release.steps for release in site.releases}
    vectors: dict[str, tuple[int, str]] = {}
    for update in experiment.all_updates:
        if (
            update.dataset != site.dataset
            or update.said.index < held.said.index
            or update.void in _NOT_THE_NODES
        ):
            continue
        kind = round_kind(experiment.plan, update.round)
        different, newest = vectors.get(kind, (0, ""))
        different += update.vector != newest
        vectors[kind] = different, update.vector
        implied: dict[str, int] = {"train": experiment.plan.steps_per_round}
        if kind == "evaluate":
            implied = {"evaluate": 1}
        elif kind == "baseline":
            implied = {p: planned.get(p, 0) for p in ("baseline_train", "baseline_evaluate")}
        for purpose, steps in (
            *update.used.items(),
            *((purpose, different * steps) for purpose, steps in implied.items()),
        ):
            used[purpose] = max(steps, used.get(purpose, 0))
    return used

"""What the released histograms say of a model: on one hospital's test patients, and pooled.

A hospital with few declared test patients gets no figure of its own. Where one cannot be given it is null
with the reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audit.reports.contribution.form import NOT_AVAILABLE, Figure, Quality
from audit.verification.documents import UNREADABLE
from audit.verification.records import ExperimentRecord
from audit.verification.verify import Verification
from ledger.entries.operations.plans import Purpose
from ledger.experiment.noise_shares import site_in_round
from ledger.experiment.plan.shape import metric_layout
from ledger.rules.experiments import site_of
from privacy.errors import PrivacyError
from privacy.histogram import MIN_DECLARED_PATIENTS, Layout, Measure, measures


@dataclass(frozen=True)
class Histograms:
    """The histograms of one round of measurement, or why there are none.

    Attributes:
        vectors: each hospital's; none under secure aggregation.
        total: their sum.
        noise: deviation of each hospital's, grid units.
    """

    layout: Layout | None
    vectors: dict[str, npt.NDArray[np.int64]]
    noise: dict[str, int]
    reason: str | None
    total: npt.NDArray[np.int64] | None = None


def histograms_of(found: Verification, record: ExperimentRecord, kind: str) -> Histograms:
    """The newest histograms of a kind of round, ``evaluate`` or ``baseline``."""
    rounds = [(each, op) for each, op in record.aggregates() if each.terms.kind == kind]
    what = "measurement" if kind == "evaluate" else "local baseline"
    if not rounds:
        return Histograms(None, {}, {}, f"no {what} was released")
    purpose: Purpose = "evaluate" if kind == "evaluate" else "baseline_evaluate"
    counted = rounds[-1][0].counted()
    noise: dict[str, int] = {}
    for name in counted:
        site = site_of(record.plan, name)
        if site is not None:
            releases = site_in_round(record.plan, site).releases
            noise[name] = next(r.noise_sd for r in releases if r.purpose == purpose)
    try:
        layout = metric_layout(found.documents.spec(record))
        total = found.documents.update(rounds[-1][1].aggregate, record.plan.metric_size)
        hidden = record.plan.secure_aggregation is not None
        vectors = {
            name: found.documents.update(update.blob, record.plan.metric_size)
            for name, update in counted.items()
            if not hidden
        }
    except (*UNREADABLE, PrivacyError) as error:
        return Histograms(None, {}, {}, f"the {what} is not in this copy ({error})")
    if layout is None or layout.size != record.plan.metric_size:
        return Histograms(None, {}, {}, f"the {what} is not shaped as its specification says")
    return Histograms(layout, vectors, noise, NOT_AVAILABLE if hidden else None, total)


def quality_of(name: str, declared_test: int, federated: Histograms, local: Histograms) -> Quality:
    """One hospital's measures under both models, and their difference."""
    if declared_test < MIN_DECLARED_PATIENTS:
        reason = (
            f"under {MIN_DECLARED_PATIENTS} declared test patients ({declared_test}): a single "
            "hospital's measure is not shown; its counts are in the pooled one"
        )
        return Quality(federated=None, local=None, lift=None, reason=reason)
    ours, own = _read(federated, name), _read(local, name)
    lift = None
    if ours is not None and own is not None:
        lift = {measure: _difference(ours[measure], own[measure]) for measure in ours}
    missing = federated.reason if ours is None else local.reason if own is None else None
    return Quality(
        federated=_figures(ours),
        local=_figures(own),
        lift=lift,
        reason=missing,
    )


def pooled(histograms: Histograms) -> dict[str, Figure] | None:
    """All hospitals' counts together; independent noises add up in variance."""
    if histograms.layout is None or histograms.total is None or not histograms.noise:
        return None
    count = len(histograms.noise)
    variance = sum(float(noise) ** 2 for noise in histograms.noise.values()) / count
    sd = round(math.sqrt(variance))
    return _figures(measures(histograms.layout, histograms.total, sd, count))


def _read(histograms: Histograms, name: str) -> dict[str, Measure] | None:
    if histograms.layout is None or name not in histograms.vectors:
        return None
    return measures(histograms.layout, histograms.vectors[name], histograms.noise[name], 1)


def _figures(read: dict[str, Measure] | None) -> dict[str, Figure] | None:
    if read is None:
        return None
    return {
        name: Figure(value=m.value, low=m.low, high=m.high, reason=m.reason)
        for name, m in read.items()
    }


def _difference(ours: Measure, own: Measure) -> Figure:
    """A difference of two measures; their errors are taken as independent, which errs to wide."""
    if ours.value is None or own.value is None or None in (ours.low, ours.high, own.low, own.high):
        return Figure(value=None, reason=ours.reason or own.reason)
    assert ours.low is not None and ours.high is not None  # noqa: PT018
    assert own.low is not None and own.high is not None  # noqa: PT018
    value = ours.value - own.value
    half = math.hypot((ours.high - ours.low) / 2, (own.high - own.low) / 2)
    return Figure(value=value, low=value - half, high=value + half)

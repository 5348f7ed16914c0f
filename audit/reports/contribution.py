"""The contribution report: what each hospital's updates added, at no privacy cost.

Everything is computed from updates that were released and charged already (post-processing). Each
figure names its method and its limits, and carries its spread over rounds. Where a figure cannot be
given it is null with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from audit.errors import NotInLedger
from audit.reports.data_use_form import Header, Part
from audit.reports.outcomes import outcome_of, rounds_offered, rounds_served
from audit.reports.shapley import MAX_PLAYERS, RoundGame, play_round
from audit.reports.standing import header_of
from audit.verification.documents import UNREADABLE
from audit.verification.history import ExperimentRecord
from audit.verification.verify import Verification
from ledger.entries.operations.plans import Purpose
from ledger.experiment.noise_shares import site_in_round
from ledger.experiment.plan.shape import metric_layout
from ledger.rules.experiments import site_of
from ledger.rules.state import State
from privacy.errors import PrivacyError
from privacy.histogram import MIN_DECLARED_PATIENTS, Layout, Measure, measures

METHODS: dict[str, str] = {
    "shapley": (
        "Exact Shapley value of the cosine-alignment game over all coalitions of a round's updates "
        "(Xu et al., NeurIPS 2021, without their normalisation), averaged over training rounds; the "
        "values of a round add up to 1. It rewards pulling in the direction that all took together: "
        "a hospital with unusual patients can score low and be the one that was needed."
    ),
    "leave_one_out": (
        "How far the sum's direction turns without the hospital: one minus the cosine of the others' "
        "sum with the whole, averaged over rounds. Hospitals with alike patients replace one another "
        "and all score low."
    ),
    "alignment": "Cosine of the hospital's update with the sum, averaged over rounds.",
    "norm_share": (
        "The update's length over the sum of all lengths, averaged over rounds. Noise has length "
        "too: see the share of it that is expected to be noise."
    ),
    "noise_share": (
        "Expected share of the update's squared length that is privacy noise: noise variance times "
        "the number of parameters over the squared length. Near 1 the other figures are mostly "
        "noise."
    ),
    "lift": (
        "Measured quality of the federated model on this hospital's test patients, less that of a "
        "model of its own patients alone, both read from noisy histograms that were charged. The "
        "intervals hold sampling and noise at 95 %, to first order; not the width of a bin."
    ),
}
NOT_AVAILABLE = "not available under secure aggregation: only sums over hospitals are known"
LIMITS: tuple[str, ...] = (
    "Contribution to this model, by its direction; not the worth of the data, and not the care that "
    "went into it.",
    "Updates carry privacy noise. The spread over rounds shows how much of a difference is noise; "
    "rounds build on one another, so it is no strict confidence interval.",
    "A hospital that sends a vector of its own making can shape these figures. They describe what "
    "was summed, not how it came about.",
    "No figure here justifies a payment by itself.",
)


class Figure(Part):
    """A value with its spread, or null with the reason.

    Attributes:
        low, high: mean minus and plus 1.96 standard errors over rounds, or a 95 % interval.
        rounds: how many rounds it rests on; 0 for a single measurement.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    rounds: int = 0
    reason: str | None = None


class Quality(Part):
    """Measures of one model on one hospital's test patients, by name."""

    federated: dict[str, Figure] | None
    local: dict[str, Figure] | None
    lift: dict[str, Figure] | None
    reason: str | None


class SiteContribution(Part):
    """One hospital's figures."""

    dataset: str
    hospital: str
    declared_patients: int
    declared_test: int
    weight: int
    rounds_offered: int
    rounds_served: int
    rounds_refused: int
    rounds_void: int
    shapley: Figure
    leave_one_out: Figure
    alignment: Figure
    norm_share: Figure
    noise_share: Figure
    shapley_by_round: tuple[tuple[int, float], ...]
    quality: Quality


class ContributionReport(Part):
    """The whole report on one experiment."""

    header: Header
    experiment: str
    name: str
    title: str
    outcome: str
    strategy: str
    rounds: int
    parameters: int
    sites: tuple[SiteContribution, ...]
    pooled_federated: dict[str, Figure] | None
    pooled_local: dict[str, Figure] | None
    pooled_reason: str | None
    methods: dict[str, str]
    limits: tuple[str, ...]


@dataclass
class _Track:
    """One site's figures, round by round."""

    rounds: list[int] = field(default_factory=list)
    shapley: list[float] = field(default_factory=list)
    leave_one_out: list[float] = field(default_factory=list)
    alignment: list[float] = field(default_factory=list)
    norm_share: list[float] = field(default_factory=list)
    noise_share: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _Histograms:
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


def contribution_report(
    found: Verification, experiment: str, *, now_ms: int, by: str
) -> ContributionReport:
    """Assemble the report on one experiment.

    Args:
        found: a verification of the copy.
        experiment: its id.
        now_ms: when the report is made, POSIX ms.
        by: who makes it, in words.

    Raises:
        NotInLedger: there is no such experiment.
    """
    record = found.history.experiments.get(experiment)
    if record is None:
        raise NotInLedger("experiment", experiment)
    tracks, why_not = _tracks(found, record)
    federated = _histograms(found, record, "evaluate")
    local = _histograms(found, record, "baseline")
    times = [record.said.at_ms, *(r.said.at_ms for r in record.rounds)]
    try:
        title = found.documents.spec(record).title
    except UNREADABLE:
        title = "its specification is not in this copy"
    return ContributionReport(
        header=header_of(
            found,
            report="contribution",
            subject=record.terms.name,
            version=experiment,
            period=(min(times), max(times)),
            now_ms=now_ms,
            by=by,
        ),
        experiment=experiment,
        name=record.terms.name,
        title=title,
        outcome=_status(record),
        strategy=record.plan.strategy,
        rounds=record.plan.rounds,
        parameters=record.plan.parameters,
        sites=tuple(
            _site(
                record,
                name,
                tracks[name],
                why_not,
                federated,
                local,
                _declared_test(found.state, record, name),
            )
            for name in sorted(record.sites)
        ),
        pooled_federated=_pooled(federated),
        pooled_local=_pooled(local),
        pooled_reason=None if federated.total is not None else federated.reason,
        methods=METHODS,
        limits=LIMITS,
    )


def _tracks(found: Verification, record: ExperimentRecord) -> tuple[dict[str, _Track], str | None]:
    """Play every training round whose updates are here; say why some are not."""
    tracks = {name: _Track() for name in record.sites}
    why_not = None if record.aggregates() else "no training round has ended in a sum yet"
    if record.plan.secure_aggregation is not None:
        return tracks, NOT_AVAILABLE
    for each, op in record.aggregates():
        if each.terms.kind != "train":
            continue
        names = sorted(each.counted())
        try:
            vectors = [
                found.documents.update(each.counted()[name].blob, record.plan.parameters)
                for name in names
            ]
        except UNREADABLE as error:
            why_not = f"the updates of round {op.round} are not all in this copy ({error})"
            continue
        game = play_round(vectors)
        for place, name in enumerate(names):
            _add(tracks[name], op.round, game, place)
            tracks[name].noise_share.append(_noise_share(record, name, vectors[place]))
    return tracks, why_not


def _add(track: _Track, number: int, game: RoundGame, place: int) -> None:
    track.rounds.append(number)
    if game.shapley:
        track.shapley.append(game.shapley[place])
    track.leave_one_out.append(game.leave_one_out[place])
    track.alignment.append(game.alignment[place])
    track.norm_share.append(game.norm_share[place])


def _noise_share(record: ExperimentRecord, name: str, vector: npt.NDArray[np.int64]) -> float:
    """For one noisy sum; local steps of FedAvg scale noise in ways a log does not show."""
    site = site_of(record.plan, name)
    square = float((vector.astype(np.float64) ** 2).sum())
    if site is None or square == 0.0 or record.plan.strategy != "fedsgd":
        return math.nan
    noise = next(r.noise_sd for r in site.releases if r.purpose == "train")
    return min(1.0, float(noise) ** 2 * len(vector) / square)


def _site(
    record: ExperimentRecord,
    name: str,
    track: _Track,
    why_not: str | None,
    federated: _Histograms,
    local: _Histograms,
    declared_test: int,
) -> SiteContribution:
    terms = record.sites[name].terms
    site = site_of(record.plan, name)
    missing = why_not or "it served in no training round"
    many = f"more than {MAX_PLAYERS} hospitals in a round: exact values would take too long"
    too_many = bool(track.rounds) and not track.shapley
    noisy = [x for x in track.noise_share if not math.isnan(x)]
    return SiteContribution(
        dataset=name,
        hospital=record.sites[name].said.organisation,
        declared_patients=terms.declared_train + terms.declared_test,
        declared_test=declared_test,
        weight=site.weight if site else 0,
        rounds_offered=rounds_offered(record, name),
        rounds_served=rounds_served(record, name),
        rounds_refused=sum(name in each.refused for each in record.rounds),
        rounds_void=sum(u.dataset == name and u.void is not None for u in record.all_updates),
        shapley=_figure(track.shapley, many if too_many else missing),
        leave_one_out=_figure(track.leave_one_out, missing),
        alignment=_figure(track.alignment, missing),
        norm_share=_figure(track.norm_share, missing),
        noise_share=_figure(noisy, missing if not track.rounds else "not known for this strategy"),
        shapley_by_round=tuple(zip(track.rounds, track.shapley, strict=False)),
        quality=_quality(name, declared_test, federated, local),
    )


def _declared_test(state: State, record: ExperimentRecord, name: str) -> int:
    """Declared test patients of the calendar blocks that the plan reads, at most the dataset's."""
    declared = record.sites[name].terms.declared_test
    site = site_of(record.plan, name)
    read = [r for r in site.releases if r.purpose == "evaluate"] if site else []
    cells = {charge.cell for release in read for charge in release.charges}
    return min(declared, sum(state.cells[c].terms.declared_patients for c in cells) or declared)


def _figure(values: Sequence[float], missing: str) -> Figure:
    if not values:
        return Figure(value=None, reason=missing)
    mean = float(np.mean(values))
    if len(values) == 1:
        return Figure(value=mean, rounds=1)
    half = 1.96 * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Figure(value=mean, low=mean - half, high=mean + half, rounds=len(values))


def _histograms(found: Verification, record: ExperimentRecord, kind: str) -> _Histograms:
    rounds = [(each, op) for each, op in record.aggregates() if each.terms.kind == kind]
    what = "measurement" if kind == "evaluate" else "local baseline"
    if not rounds:
        return _Histograms(None, {}, {}, f"no {what} was released")
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
        return _Histograms(None, {}, {}, f"the {what} is not in this copy ({error})")
    if layout is None or layout.size != record.plan.metric_size:
        return _Histograms(None, {}, {}, f"the {what} is not shaped as its specification says")
    return _Histograms(layout, vectors, noise, NOT_AVAILABLE if hidden else None, total)


def _quality(name: str, declared_test: int, federated: _Histograms, local: _Histograms) -> Quality:
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


def _read(histograms: _Histograms, name: str) -> dict[str, Measure] | None:
    if histograms.layout is None or name not in histograms.vectors:
        return None
    return measures(histograms.layout, histograms.vectors[name], histograms.noise[name], 1)


def _pooled(histograms: _Histograms) -> dict[str, Figure] | None:
    """All hospitals' counts together; independent noises add up in variance."""
    if histograms.layout is None or histograms.total is None or not histograms.noise:
        return None
    count = len(histograms.noise)
    variance = sum(float(noise) ** 2 for noise in histograms.noise.values()) / count
    sd = round(math.sqrt(variance))
    return _figures(measures(histograms.layout, histograms.total, sd, count))


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


def _status(record: ExperimentRecord) -> str:
    found = outcome_of(record)
    return f"{found.text}: {found.why}" if found.why else found.text

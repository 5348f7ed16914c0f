"""The contribution report: what each hospital's updates added, at no privacy cost.

Everything is computed from updates that were released and charged already (post-processing). Each
figure names its method and its limits, and carries its spread over rounds. Where a figure cannot be
given it is null with the reason.
"""

from __future__ import annotations

import math

from audit.errors import NotInLedger
from audit.reports.contribution.form import LIMITS, METHODS, ContributionReport, SiteContribution
from audit.reports.contribution.quality import Histograms, histograms_of, pooled, quality_of
from audit.reports.contribution.rounds import Track, figure_of, tracks_of
from audit.reports.contribution.shapley import MAX_PLAYERS
from audit.reports.outcomes import (
    outcome_of,
    rounds_in_words,
    rounds_served,
    rounds_trained,
    times_asked,
)
from audit.reports.standing import header_of
from audit.verification.documents import UNREADABLE
from audit.verification.records import ExperimentRecord
from audit.verification.verify import Verification
from ledger.rules.experiments import site_of
from ledger.rules.state import State


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
    tracks, why_not = tracks_of(found, record)
    federated = histograms_of(found, record, "evaluate")
    local = histograms_of(found, record, "baseline")
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
        pooled_federated=pooled(federated),
        pooled_local=pooled(local),
        pooled_reason=None if federated.total is not None else federated.reason,
        methods=METHODS,
        limits=LIMITS,
    )


def _site(
    record: ExperimentRecord,
    name: str,
    track: Track,
    why_not: str | None,
    federated: Histograms,
    local: Histograms,
    declared_test: int,
) -> SiteContribution:
    terms = record.sites[name].terms
    site = site_of(record.plan, name)
    trained = rounds_trained(record, name)
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
        rounds=rounds_in_words(record, name),
        rounds_trained=trained,
        rounds_measured=len(rounds_served(record, name)) - trained,
        times_asked=times_asked(record, name),
        times_left_out=sum(name in each.refused for each in record.rounds),
        times_void=sum(u.dataset == name and u.void is not None for u in record.all_updates),
        shapley=figure_of(track.shapley, many if too_many else missing),
        leave_one_out=figure_of(track.leave_one_out, missing),
        alignment=figure_of(track.alignment, missing),
        norm_share=figure_of(track.norm_share, missing),
        noise_share=figure_of(
            noisy, missing if not track.rounds else "not known for this strategy"
        ),
        shapley_by_round=tuple(zip(track.rounds, track.shapley, strict=False)),
        quality=quality_of(name, declared_test, federated, local),
    )


def _declared_test(state: State, record: ExperimentRecord, name: str) -> int:
    """Declared test patients of the calendar blocks that the plan reads, at most the dataset's."""
    declared = record.sites[name].terms.declared_test
    site = site_of(record.plan, name)
    read = [r for r in site.releases if r.purpose == "evaluate"] if site else []
    cells = {charge.cell for release in read for charge in release.charges}
    return min(declared, sum(state.cells[c].terms.declared_patients for c in cells) or declared)


def _status(record: ExperimentRecord) -> str:
    found = outcome_of(record)
    return f"{found.text}: {found.why}" if found.why else found.text

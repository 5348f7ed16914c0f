"""What was observed of the private mechanism, beside what is proven of it: findings that members signed.

Each is a ``privacy.audited`` of the log: a node's self-test after a start, or an attack on made-up or public
rows (``consilium audit attack``). A finding says what somebody saw, with an interval; it proves nothing about what
was not tried, and who signs a false one is believed as little as whoever else signs a false statement.
"""

from __future__ import annotations

from collections.abc import Iterable

from audit.reports.data_use_form import Observed
from audit.verification.records import Said
from audit.verification.verify import Verification
from ledger.entries.operations.audits import PrivacyAudited


def observed_of_experiment(found: Verification, experiment: str) -> tuple[Observed, ...]:
    """Attacks on an experiment, and the newest self-tests of the hospitals that took part."""
    record = found.history.experiments[experiment]
    hospitals = {found.history.datasets[name].organisation for name in record.held}
    return _newest(
        found,
        (
            (said, op)
            for said, op in found.history.audits
            if op.experiment == experiment
            or (op.experiment is None and said.organisation in hospitals)
        ),
    )


def observed_of_dataset(found: Verification, dataset: str) -> tuple[Observed, ...]:
    """What its hospital's members found, and attacks on the experiments that asked for it."""
    hospital = found.history.datasets[dataset].organisation
    asked = {e.id for e in found.history.experiments.values() if dataset in e.sites}
    return _newest(
        found,
        (
            (said, op)
            for said, op in found.history.audits
            if (op.experiment is None and said.organisation == hospital)
            or (op.experiment in asked and op.dataset in (None, dataset))
        ),
    )


def words_of(op: PrivacyAudited) -> tuple[str, str, str]:
    """What was done, what was observed and what is proven, in words."""
    low, measured, high, bound = (
        value / 10**6 for value in (op.low_ppm, op.measured_ppm, op.high_ppm, op.bound_ppm)
    )
    rows = op.data.replace("_", " ")
    if op.kind == "residuals":
        return (
            f"tested its training code on {rows} rows, over {op.samples:,} values",
            f"noise of {100 * measured:.2f} % ({100 * low:.2f} to {100 * high:.2f} %) of the planned deviation",
            "100 %",
        )
    if op.kind == "known_answers":
        return (
            f"asked accountant and sampler for {op.samples:,} known answers",
            f"{100 * measured:.4g} % right",
            "all",
        )
    if op.kind == "canary":
        return (
            f"ran {op.dataset or 'the'} training {op.samples:,} times on {rows} rows, half of them with a canary",
            f"mu of at least {low:.4f} ({measured:.4f}, at most {high:.4f})",
            f"mu {bound:.4f}",
        )
    if op.kind == "one_run":
        return (
            f"ran {op.dataset or 'the'} training once with many canaries among {rows} rows, a smoke alarm only",
            f"epsilon of at least {low:.3f} from {op.samples:,} guesses",
            f"epsilon {bound:.3f}",
        )
    return (
        f"attacked twins of the released model with {op.samples:,} {rows} records",
        f"{100 * measured:.2f} % ({100 * low:.2f} to {100 * high:.2f} %) of members found at 1 % false alarms",
        f"at most {100 * bound:.2f} %",
    )


def _newest(
    found: Verification, audits: Iterable[tuple[Said, PrivacyAudited]]
) -> tuple[Observed, ...]:
    """The newest of each member and kind, and every contradiction; newest first."""
    grouped: dict[tuple[object, ...], list[tuple[Said, PrivacyAudited]]] = {}
    for said, op in audits:
        key = (said.author, op.kind, op.experiment, op.dataset, op.data, op.finding)
        grouped.setdefault(key, []).append((said, op))
    listed = [_observed(*group[-1], len(group)) for group in grouped.values()]
    return tuple(sorted(listed, key=lambda one: (not one.contradicts, -one.entry)))


def _observed(said: Said, op: PrivacyAudited, times: int) -> Observed:
    what, observed, proven = words_of(op)
    return Observed(
        entry=said.index,
        at_ms=said.at_ms,
        who=f"{said.author}, {said.organisation}",
        kind=op.kind,
        what=what,
        observed=observed,
        proven=proven,
        contradicts=op.finding == "contradicts",
        confidence=op.confidence_ppm / 10**6,
        times=times,
    )

"""What was observed of the private mechanism, beside what is proven of it: findings that members signed.

Each is a ``privacy.audited`` of the log: a node's self-test after a start, or an attack on made-up or public
rows (``consilium audit attack``). A finding says what somebody saw, with an interval; it proves nothing about what
was not tried, and who signs a false one is believed as little as whoever else signs a false statement. What is proven is
computed here from the plan; where a finding was held against another bound, that is said.
"""

from __future__ import annotations

from collections.abc import Iterable

from audit.reports.data_use_form import Observed, Verdict
from audit.reports.proven import is_accounted_alone, proven_epsilon, proven_mu, training_of
from audit.verification.history import History
from audit.verification.records import Said
from audit.verification.verify import Verification
from ledger.entries.operations.audits import TWINS, PrivacyAudited
from ledger.entries.operations.plans import Plan
from privacy.curves import true_positive_rate
from privacy.selfaudit.attacks import ONE_RUN_DELTA

_PPM = 10**6
_FALSE_POSITIVES = 0.01
_ATTACKS = {"membership": "LiRA", "membership_rmia": "RMIA"}
_ROUNDING = 1e-4
"""How far a stated bound may be from ours, as a part of it: what machines' floats and rounding to millionths differ by."""


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


def words_of(op: PrivacyAudited) -> tuple[str, str]:
    """What was done and what was observed, in words."""
    what, figure = _figure_in_words(op)
    if op.finding == "contradicts" and op.low_ppm <= op.bound_ppm <= op.high_ppm:
        return what, f"{figure}; not by this figure: its result says by what"
    return what, figure


def _figure_in_words(op: PrivacyAudited) -> tuple[str, str]:
    low, measured, high = (value / _PPM for value in (op.low_ppm, op.measured_ppm, op.high_ppm))
    rows = op.data.replace("_", " ")
    if op.kind == "residuals":
        return (
            f"tested its training code on {rows} rows, over {op.samples:,} values",
            f"noise of {100 * measured:.2f} % ({100 * low:.2f} to {100 * high:.2f} %) of the planned deviation",
        )
    if op.kind == "known_answers":
        return (
            f"asked accountant and sampler for {op.samples:,} known answers",
            f"{100 * measured:.4g} % right",
        )
    if op.kind == "canary":
        return (
            f"ran {op.dataset or 'the'} training {op.samples:,} times on {rows} rows, half of them with a canary",
            f"mu of at least {low:.4f} ({measured:.4f}, at most {high:.4f})",
        )
    if op.kind == "one_run":
        return (
            f"ran {op.dataset or 'the'} training once with many canaries among {rows} rows, a smoke alarm only",
            f"epsilon of at least {low:.3f} from {op.samples:,} guesses",
        )
    return (
        f"attacked twins of the released model ({_ATTACKS[op.kind]}) with {op.samples:,} {rows} records",
        f"{100 * measured:.2f} % ({100 * low:.2f} to {100 * high:.2f} %) of members found at 1 % false alarms",
    )


def proven_of(op: PrivacyAudited, plan: Plan | None) -> tuple[str, float | None]:
    """What is proven of what a finding is about, in words and as a figure; from the plan, not from the finding.

    Args:
        op: the finding.
        plan: of its experiment; None where it names none.
    """
    if op.kind == "residuals":
        return "100 %", 1.0
    if op.kind == "known_answers":
        return "all", 1.0
    sites = () if plan is None else plan.sites
    asked = [s for s in sites if op.kind in TWINS or op.dataset in (None, s.dataset)]
    releases = [found for site in asked if (found := training_of(site)) is not None]
    if plan is None or not releases:
        return "nothing: it names no training", None
    if any(is_accounted_alone(site) for site in asked):
        return "nothing of a whole run: patients are accounted for one by one", None
    if op.kind == "one_run":
        bound = max(proven_epsilon(plan, release, ONE_RUN_DELTA) for release in releases)
        return f"epsilon {bound:.3f}", bound
    mu = max(proven_mu(plan, release) for release in releases)
    if op.kind == "canary":
        return f"mu {mu:.4f}", mu
    bound = true_positive_rate(mu, _FALSE_POSITIVES)
    return f"at most {100 * bound:.2f} %", bound


def verdict_of(op: PrivacyAudited, bound: float | None) -> Verdict:
    """What a finding says once it is held against what is proven."""
    if bound is None or abs(op.bound_ppm - bound * _PPM) > 2 + _ROUNDING * bound * _PPM:
        return "misstated"
    return op.finding


def plan_of(history: History, op: PrivacyAudited) -> Plan | None:
    """The plan that a finding is about; None where it names none that the log knows."""
    experiment = history.experiments.get(op.experiment or "")
    return None if experiment is None else experiment.plan


def _newest(
    found: Verification, audits: Iterable[tuple[Said, PrivacyAudited]]
) -> tuple[Observed, ...]:
    """The newest of each member and kind, and every contradiction; newest first."""
    grouped: dict[tuple[object, ...], list[tuple[Said, PrivacyAudited]]] = {}
    for said, op in audits:
        key = (said.author, op.kind, op.experiment, op.dataset, op.data, op.finding)
        grouped.setdefault(key, []).append((said, op))
    listed = [_observed(found.history, *group[-1], len(group)) for group in grouped.values()]
    return tuple(sorted(listed, key=lambda one: (not one.contradicts, -one.entry)))


def _observed(history: History, said: Said, op: PrivacyAudited, times: int) -> Observed:
    what, observed = words_of(op)
    proven, bound = proven_of(op, plan_of(history, op))
    verdict = verdict_of(op, bound)
    return Observed(
        entry=said.index,
        at_ms=said.at_ms,
        who=f"{said.author}, {said.organisation}",
        kind=op.kind,
        what=what,
        observed=observed,
        proven=proven,
        verdict=verdict,
        contradicts=verdict == "contradicts",
        confidence=op.confidence_ppm / _PPM,
        times=times,
    )

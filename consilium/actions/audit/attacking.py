"""Auditing an experiment by attack: what runs on rows that are nobody's show, beside what its plan charges.

Everything is taken from an experiment's public part: its spec, its plan, its datasets' schemas. Rows are made up from
the schemas or come from a public file; a file that a hospital's home knows as a dataset is refused. A rate that an
attack reaches on real members would itself be a statistic of patients: it would have to be charged, so it is
not measured at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import orjson

from consilium.actions.audit.attack_target import Target
from consilium.actions.homes import member_homes
from consilium.errors import InputError
from ledger.entries.operations.audits import AuditKind, PrivacyAudited
from ledger.entries.operations.values import MAX_INT, BlobRef
from ledger.experiment.noise_shares import site_in_round
from node.data.intake import identify
from node.register.private import PRIVATE, PrivateRegister
from node.training.attack.canary import run_canaries
from node.training.attack.mechanism import AuditedSite
from node.training.attack.one_run import run_once
from node.training.attack.shadows import (
    PublicTwins,
    likelihoods,
    made_up_pools,
    population,
    train_shadows,
)
from node.training.rounds.train import start_torch
from privacy.noise import Randomness, SecureRandom
from privacy.selfaudit.attacks import (
    ALPHA,
    CONFIDENCE_PPM,
    ONE_RUN_DELTA,
    judge_canaries,
    judge_one_run,
)
from privacy.selfaudit.known_answers import STATISTIC_ALARM, known_answers
from privacy.selfaudit.membership import FALSE_POSITIVE_RATES, Rate, likelihood_ratios, rates
from privacy.selfaudit.population import population_ratios

NOTHING_REAL = (
    "rows are made up or public: a rate measured on real members is itself a statistic of patients, "
    "so this command takes none"
)
_PPM = 10**6
_TPR_AT = 0.01

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Attacked:
    """What an attack found.

    Attributes:
        kind: as the log calls it.
        contradicts: whether it saw more than the proof allows.
        says: in a sentence.
        figures: samples, and measured, low, high and bound; floats.
        confidence_ppm: of the interval.
        experiment, dataset: what was attacked.
        data: what rows it ran on.
        details: everything else.
    """

    kind: AuditKind
    contradicts: bool
    says: str
    samples: int
    measured: float
    low: float
    high: float
    bound: float
    confidence_ppm: int
    experiment: str | None = None
    dataset: str | None = None
    data: str = "synthetic"
    details: Mapping[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        """All of it, for programs."""
        return {
            "consilium": 1,
            "audit": self.kind,
            "finding": "contradicts" if self.contradicts else "as_proved",
            "says": self.says,
            **{
                name: getattr(self, name)
                for name in ("experiment", "dataset", "data", "samples", "measured", "low")
            },
            "high": self.high,
            "bound": self.bound,
            "confidence": self.confidence_ppm / _PPM,
            "software": f"consilium {metadata.version('consilium')}",
            **(self.details or {}),
        }

    def encoded(self) -> bytes:
        """The document as it is kept: JSON with sorted keys."""
        return orjson.dumps(self.document(), option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)

    def audited(self, result: BlobRef) -> PrivacyAudited:
        """What is said in the log; figures rounded so that they never claim more than was found."""
        return PrivacyAudited(
            type="privacy.audited",
            kind=self.kind,
            data="public_twins" if self.data == "public_twins" else "synthetic",
            experiment=self.experiment,
            dataset=self.dataset,
            finding="contradicts" if self.contradicts else "as_proved",
            samples=self.samples,
            measured_ppm=_ppm(math.floor, self.measured),
            low_ppm=_ppm(math.floor, self.low),
            high_ppm=_ppm(math.ceil, self.high),
            bound_ppm=_ppm(math.ceil, self.bound),
            confidence_ppm=self.confidence_ppm,
            result=result,
        )


def ask_known_answers() -> Attacked:
    """T0: whether accountant and sampler of this machine give the answers that are known."""
    answers = known_answers(SecureRandom())
    right = sum(answer.right for answer in answers)
    share = right / len(answers)
    listed = [asdict(answer) | {"right": answer.right} for answer in answers]
    return Attacked(
        kind="known_answers",
        contradicts=right < len(answers),
        says=f"{right} of {len(answers)} known answers are right",
        samples=len(answers),
        measured=share,
        low=share,
        high=share,
        bound=1.0,
        confidence_ppm=_PPM - 1,
        details={"answers": listed, "alarm_of_each_statistic": STATISTIC_ALARM},
    )


def attack_with_canaries(
    target: Target, dataset: str | None, runs: int, progress: Progress
) -> Attacked:
    """T2: runs with and without one made-up person."""
    target.refuse_individual()
    start_torch()
    schema, site = target.site(dataset)
    proven = target.proven(site)
    played = run_canaries(
        AuditedSite(target.spec, schema, site), target.plan.rounds, runs, _noise, progress
    )
    found = judge_canaries(
        played.inside,
        played.outside,
        played.share,
        played.steps,
        played.planned,
        proven,
        only_noise=played.only_noise,
    )
    return _attacked(
        target,
        "canary",
        found,
        _Figure(2 * found.guesses.runs, found.mu, found.mu_low, found.mu_high, proven.mu),
        dataset=site.dataset,
        details={
            "runs": 2 * found.guesses.runs,
            "true_positives": found.guesses.true_positives,
            "false_positives": found.guesses.false_positives,
            "mu_observed_at_least": found.mu_low,
            "mu_by_guesses_at_least": found.mu_guessed,
            "mu_proven": proven.mu,
            "epsilon_observed_at_least": found.epsilon_low,
            "epsilon_without_assumptions_at_least": found.epsilon_any,
            "epsilon_proven": proven.epsilon,
            "delta": proven.delta,
            "canary_share_of_clip_norm": found.share,
            "steps": {
                "charged": found.planned,
                "declared": found.steps.declared,
                "made": found.steps.drawn,
            },
        },
    )


def attack_one_run(
    target: Target, dataset: str | None, canaries: int, progress: Progress
) -> Attacked:
    """T3: one run with many made-up people; a smoke alarm only."""
    target.refuse_individual()
    start_torch()
    schema, site = target.site(dataset)
    proven = target.proven(site, ONE_RUN_DELTA)
    scores, taken = run_once(
        AuditedSite(target.spec, schema, site), target.plan.rounds, canaries, _noise, progress
    )
    found = judge_one_run(scores, taken, proven)
    low = found.epsilon_low
    return _attacked(
        target,
        "one_run",
        found,
        _Figure(found.guesses, low, low, low, proven.epsilon),
        dataset=site.dataset,
        details={
            "smoke_alarm_only": True,
            "canaries": found.canaries,
            "guesses": found.guesses,
            "correct": found.correct,
            "epsilon_observed_at_least": found.epsilon_low,
            "epsilon_proven": proven.epsilon,
            "delta": proven.delta,
        },
    )


def attack_membership(
    kind: AuditKind, target: Target, twins: PublicTwins | None, shadows: int, progress: Progress
) -> Attacked:
    """T4: an attack on twins of the released model, by likelihood ratios or by a population."""
    target.refuse_individual()
    start_torch()
    sites = [
        AuditedSite(target.spec, schema, site_in_round(target.plan, site))
        for schema, site in zip(target.schemas, target.plan.sites, strict=True)
    ]
    pools = made_up_pools(sites) if twins is None else twins.pools(sites)
    apart = population(pools) if kind == "membership_rmia" else None
    signals, members = train_shadows(
        sites, pools, target.start, target.plan.rounds, shadows, _noise, progress, apart
    )
    if apart is None:
        scores = likelihood_ratios(signals, members)
    else:
        scores = population_ratios(likelihoods(target.spec, signals), members, apart)
        members = members[:, ~apart]
    mu = max(target.proven(site).mu for site in target.plan.sites)
    figures = 1 + len(FALSE_POSITIVE_RATES)
    shown = rates(scores, members, mu, ALPHA / figures)
    at = next((rate for rate in shown if rate.false_positive_rate == _TPR_AT), None)
    if at is None:
        raise InputError(
            f"{members.shape[1]} twins and {shadows} shadows cannot show a false positive rate of 1 %; "
            "give more of either"
        )
    return _attacked(
        target,
        kind,
        _Rates(tuple(shown), at),
        _Figure(int(members.size), at.measured, at.low, at.high, at.bound),
        data="synthetic" if twins is None else "public_twins",
        details={
            "attack": "LiRA, online" if apart is None else "RMIA, offline",
            "shadows": shadows,
            "twins": int(members.shape[1]),
            "population": 0 if apart is None else int(apart.sum()),
            "mu_proven": mu,
            "rates": [asdict(rate) for rate in shown],
            "why_no_real_members": NOTHING_REAL,
        },
    )


class _Found(Protocol):
    """What the statistics of an attack say."""

    @property
    def contradicts(self) -> bool: ...

    @property
    def says(self) -> str: ...


@dataclass(frozen=True, slots=True)
class _Figure:
    """What is said of an attack in the log, by the names of ``Attacked``."""

    samples: int
    measured: float
    low: float
    high: float
    bound: float


@dataclass(frozen=True, slots=True)
class _Rates:
    """T4: every rate that was looked at, and the one at 1 % false positives."""

    shown: tuple[Rate, ...]
    at: Rate

    @property
    def contradicts(self) -> bool:
        return any(rate.low > rate.bound for rate in self.shown)

    @property
    def says(self) -> str:
        at, area = self.at, self.shown[0]
        return (
            f"true positives at 1 % false ones: {100 * at.measured:.2f} % ({100 * at.low:.2f} to "
            f"{100 * at.high:.2f}), proven at most {100 * at.bound:.2f} %; area {area.measured:.4f} "
            f"({area.low:.4f} to {area.high:.4f}), at most {area.bound:.4f}"
        )


def _attacked(
    target: Target,
    kind: AuditKind,
    found: _Found,
    figure: _Figure,
    *,
    details: Mapping[str, Any],
    dataset: str | None = None,
    data: str = "synthetic",
) -> Attacked:
    """What an attack on an experiment found: one shape for all that may be said of it."""
    return Attacked(
        kind=kind,
        contradicts=found.contradicts,
        says=found.says,
        samples=figure.samples,
        measured=figure.measured,
        low=figure.low,
        high=figure.high,
        bound=figure.bound,
        confidence_ppm=CONFIDENCE_PPM,
        experiment=target.experiment,
        dataset=dataset,
        data=data,
        details={"name": target.name, **details},
    )


def refuse_datasets(twins: Path, homes: Path) -> None:
    """See that a file of public twins is no dataset of a hospital whose home is here.

    Raises:
        InputError: it is one, or cannot be read.
    """
    try:
        sha256 = identify(twins).sha256
    except OSError as error:
        raise InputError(f"--public-twins {twins}: {error.strerror}") from None
    for home in member_homes(homes):
        if home.config.role != "node" or not (home.path / PRIVATE).exists():
            continue
        with closing(PrivateRegister.open(home.path / PRIVATE)) as private:
            known = private.view.datasets.items()
            for name, record in known:
                if record.sha256 == sha256 or Path(record.path) == twins.resolve():
                    raise InputError(
                        f"--public-twins {twins} is the dataset {name} of {home.config.handle}: {NOTHING_REAL}"
                    )


def _noise(purpose: str) -> Randomness:
    return SecureRandom()


def _ppm(rounded: Callable[[float], int], figure: float) -> int:
    return max(0, min(MAX_INT, rounded(figure * _PPM)))

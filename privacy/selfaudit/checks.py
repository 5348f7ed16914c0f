"""What a residual test says: its checks, its findings, and when a finding is a failure. No statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Check = Literal["sigma", "mean", "shape", "neighbours", "across_sites", "across_rounds", "steps"]

FALSE_ALARMS: Final = 1e-7
"""Probability that an honest run fails, over all its checks together."""
CHECKS: Final[tuple[Check, ...]] = (
    "sigma",
    "mean",
    "shape",
    "neighbours",
    "across_sites",
    "across_rounds",
    "steps",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One check.

    Attributes:
        check: which.
        p: probability of a result as strange under the plan, union bound over its own parts included.
        says: the figure in words.
    """

    check: Check
    p: float
    says: str

    @property
    def failed(self) -> bool:
        """Whether an honest run is too unlikely to look so."""
        return self.p < FALSE_ALARMS / len(CHECKS)


@dataclass(frozen=True, slots=True)
class Report:
    """What a residual test found.

    Attributes:
        residuals: how many numbers were looked at.
        sigma_ratio: observed over planned deviation.
        findings: every check, in the order of ``CHECKS``.
    """

    residuals: int
    sigma_ratio: float
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The checks that failed; empty for a good run."""
        return tuple(finding for finding in self.findings if finding.failed)

    @property
    def failure(self) -> str | None:
        """The checks that failed, in words; None where all passed."""
        return "; ".join(f"{one.check}: {one.says}" for one in self.failed) or None


@dataclass(slots=True)
class Steps:
    """What was said about steps, and what was done.

    Attributes:
        declared: noisy steps that intents declared, over all sites and rounds.
        drawn: times that noise was drawn for a step, as counted at the generator.
        broken: vectors of several steps that are not what their declared steps and draws make.
        wrong: engines and small networks whose clipped sums are not what rows' gradients make.
    """

    declared: int = 0
    drawn: int = 0
    broken: int = 0
    wrong: tuple[str, ...] = ()

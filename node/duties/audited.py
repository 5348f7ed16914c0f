"""What a node's self-test amounts to in the log: integers about synthetic rows, nothing else."""

from __future__ import annotations

import math

from ledger.entries.operations.audits import PrivacyAudited
from privacy.selfaudit.checks import Report

_PPM = 10**6
_Z95 = 1.959963984540054


def residuals_audited(report: Report) -> PrivacyAudited:
    """Say what a residual test found: the deviation of the noise over the planned one.

    The interval is the usual one of a deviation, sd / sqrt(2 n) to either side.
    """
    half = _Z95 / math.sqrt(2 * report.residuals)
    low, high = (max(0.0, report.sigma_ratio * (1 + sign * half)) for sign in (-1, 1))
    return PrivacyAudited(
        type="privacy.audited",
        kind="residuals",
        data="synthetic",
        experiment=None,
        dataset=None,
        finding="as_proved" if report.failure is None else "contradicts",
        samples=report.residuals,
        measured_ppm=round(report.sigma_ratio * _PPM),
        low_ppm=round(low * _PPM),
        high_ppm=round(high * _PPM),
        bound_ppm=_PPM,
        confidence_ppm=950_000,
        result=None,
    )

"""A finding that is signed must be the one that its own figures make."""

from __future__ import annotations

import math
from typing import Any

import pytest
from scipy import stats

from ledger.entries.operations.audits import PrivacyAudited
from ledger.rules.findings import belies_itself
from node.duties.audited import residuals_audited
from privacy.selfaudit.checks import CHECKS, FALSE_ALARMS, Finding, Report


def finding(kind: str, said: str, low: int, measured: int, high: int, bound: int) -> Any:
    return PrivacyAudited(
        type="privacy.audited",
        kind=kind,
        data="synthetic",
        experiment=None,
        dataset=None,
        finding=said,
        samples=18_432,
        measured_ppm=measured,
        low_ppm=low,
        high_ppm=high,
        bound_ppm=bound,
        confidence_ppm=999_900,
        result=None,
    )


@pytest.mark.parametrize(
    ("kind", "said", "figures", "belied"),
    [
        ("canary", "as_proved", (5, 6, 7, 5), False),
        ("canary", "as_proved", (6, 6, 7, 5), True),
        ("canary", "contradicts", (1, 2, 3, 9), False),  # by its steps, or by epsilon
        ("membership_rmia", "as_proved", (6, 6, 7, 5), True),
        ("one_run", "contradicts", (1, 1, 1, 9), True),
        ("one_run", "contradicts", (8, 8, 8, 9), False),  # both were rounded
        ("one_run", "as_proved", (9, 9, 9, 9), False),
        ("known_answers", "as_proved", (981_481, 981_481, 981_481, 10**6), True),
        ("known_answers", "contradicts", (10**6, 10**6, 10**6, 10**6), True),
        ("known_answers", "contradicts", (981_481, 981_481, 981_481, 10**6), False),
        ("residuals", "as_proved", (940_000, 950_000, 960_000, 10**6), True),
        ("residuals", "as_proved", (990_000, 1_005_000, 1_010_000, 10**6), False),
        ("residuals", "contradicts", (990_000, 1_000_000, 1_010_000, 10**6), False),
        ("residuals", "contradicts", (3, 2, 1, 1), True),
        # Held against half of the answers, or a tenth of the noise, all is well.
        ("known_answers", "as_proved", (500_000, 500_000, 500_000, 500_000), True),
        ("known_answers", "as_proved", (0, 0, 0, 0), True),
        ("residuals", "as_proved", (99_000, 100_000, 101_000, 100_000), True),
        ("residuals", "contradicts", (99_000, 100_000, 101_000, 100_000), True),
        ("residuals", "as_proved", (1_001_000, 1_000_000, 1_002_000, 10**6), True),
    ],
)
def test_a_verdict_that_its_figures_belie_is_seen(
    kind: str, said: str, figures: tuple[int, int, int, int], belied: bool
) -> None:
    assert belies_itself(finding(kind, said, *figures)) is belied


@pytest.mark.parametrize("residuals", [1, 2, 5, 40, 1000, 18_432])
@pytest.mark.parametrize("above", [True, False])
def test_no_self_test_that_passes_is_taken_for_one_that_failed(residuals: int, above: bool) -> None:
    """At the edge of what the check of the deviation lets pass, for any number of residuals."""
    chance = FALSE_ALARMS / len(CHECKS)
    law = stats.chi2(residuals)
    edge = law.isf(chance / 2) if above else law.ppf(chance / 2)
    report = Report(
        residuals, math.sqrt(edge / residuals), (Finding("sigma", 1.001 * chance, "at the edge"),)
    )
    assert report.failure is None
    assert not belies_itself(residuals_audited(report))

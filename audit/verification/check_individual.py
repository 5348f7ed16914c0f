"""What an auditor can say of cells whose patients have accounts inside their hospital.

Not that the promise was kept: what each patient spent depends on rows and is in no log. What can be said is
that no plan lets a patient lose more than the promise, and how much that is.
"""

from __future__ import annotations

from collections.abc import Iterator

from audit.reports.budget import CellBudget
from audit.verification.findings import Check
from audit.verification.records import ExperimentRecord
from ledger.entries.operations.datasets import CellCharge, CellLimit
from ledger.entries.operations.plans import Release, SitePlan
from ledger.rules.individual import renyi_of


def release(
    experiment: ExperimentRecord,
    site: SitePlan,
    release: Release,
    stated: CellCharge,
    limit: CellLimit,
) -> Iterator[Check]:
    """Step 10: what a release may cost any one patient, against the promise to the cell."""
    if stated.g > limit.g_max or stated.r < renyi_of(stated.g, limit.order_centi):
        yield Check(
            10,
            "refuted",
            f"{release.purpose} on {site.dataset} may cost a patient of {stated.cell} {stated.g}, "
            f"{stated.r}; the promise is {limit.g_max} in lane G, and both lanes are one mechanism's",
            f"entry {experiment.said.index}",
        )


def promise(place: str, budget: CellBudget) -> Check:
    """Step 11: what is promised to each patient, and that nobody can recompute how it was kept."""
    return Check(
        11,
        "not_checkable",
        f"{place}: what each patient has spent is kept inside the hospital, and not recomputable from "
        f"here. Promised to each: epsilon {budget.limit:g} at delta {budget.delta:.3g}, which the "
        "hospital's node keeps by clipping each patient's gradients to what is left of it; by what was "
        f"reserved and used here, none can have lost more than {budget.epsilon:.4f}",
    )

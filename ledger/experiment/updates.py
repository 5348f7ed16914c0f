"""Whether an update deserves to count: the checks that need nothing but the plan and its bytes.

Pure, and the same for the coordinator that sums and for an auditor who sums again. The reasons are
those of ``update.refused``.
"""

from __future__ import annotations

import math
from typing import Literal

from ledger.entries.operations.plans import Plan, SitePlan
from ledger.entries.operations.rounds import RoundKind
from ledger.entries.operations.values import BlobRef
from ledger.errors import MalformedInput
from ledger.experiment.average import within_l2
from ledger.experiment.tensors import (
    GRID,
    UPDATE_HEADER_BYTES,
    VALUE_BYTES,
    Int64Vector,
    decode_update,
)

Fault = Literal["malformed", "wrong_size", "norm_bound"]

ACTUAL_OVER_DECLARED = 2
"""A node registers no dataset with more than this many times its declared rows."""
NOISE_TAIL = 11
"""With ``sqrt(n) + 10`` deviations an honest noise vector exceeds its norm with chance exp(-50)
(Laurent & Massart 2000, Lemma 1); one more for rounding the root down."""


def update_size(plan: Plan, kind: RoundKind) -> int:
    """Number of values in an update of such a round: parameters, or cells of the histograms."""
    return plan.parameters if kind == "train" else plan.metric_size


def update_bound(plan: Plan, site: SitePlan, kind: RoundKind, declared_test: int) -> int:
    """L2 bound on a site's update, grid units.

    A training update's is in the plan. A histogram's is that of twice the declared test patients,
    each of norm at most 1, and of the noise.
    """
    if kind == "train":
        return site.update_bound
    purpose = "evaluate" if kind == "evaluate" else "baseline_evaluate"
    noise_sd: int = next(r.noise_sd for r in site.releases if r.purpose == purpose)
    counts: int = ACTUAL_OVER_DECLARED * max(1, declared_test) * GRID
    return counts + noise_sd * (math.isqrt(plan.metric_size) + NOISE_TAIL)


def judge_update(
    plan: Plan, site: SitePlan, kind: RoundKind, declared_test: int, ref: BlobRef, data: bytes
) -> Int64Vector | Fault:
    """The update's values ``[n]``, or why it stays out of the sum.

    Args:
        plan: the experiment's.
        site: its part for the update's dataset.
        kind: of the round that the update answers.
        declared_test: declared test patients in the registration that the plan names.
        ref: how the entry names the blob.
        data: the blob.
    """
    size = update_size(plan, kind)
    if ref.bytes != UPDATE_HEADER_BYTES + VALUE_BYTES * size:
        return "wrong_size"
    try:
        values = decode_update(data, size)
    except MalformedInput:
        return "malformed"
    if plan.secure_aggregation is not None:
        return values  # masked: uniform to whoever looks, so no norm of it means anything
    bound = update_bound(plan, site, kind, declared_test)
    return values if within_l2(values, bound) else "norm_bound"

"""What entries about datasets, cells of patients and statistics say."""

from __future__ import annotations

from typing import Any

from audit.reports.outcomes import in_words
from audit.reports.sentences.told import Fact, Teller, Told, blob_fact, dataset_fact, day_of
from audit.verification.history import History


def _cell(who: str, op: Any, history: History) -> Told:
    return Told(
        f"{who} promised its patients of cell {op.cell} at most epsilon "
        f"{op.epsilon_micro / 1e6:g} for ever.",
        (
            Fact("Patients", f"about {op.declared_patients:,} (declared)"),
            Fact("Delta", f"{op.delta_e15 / 1e15:.3g}"),
            Fact("Block", f"{op.block}, {_HALVES[op.half]}"),
        ),
    )


_HALVES = {
    "train": "train half",
    "test": "test half",
    "both": "both half",
    "individual": "train half; each patient has an account of the own inside the hospital, which is not "
    "recomputable from here",
}


def _limited(who: str, op: Any, history: History) -> Told:
    most = f"at most epsilon {op.epsilon_micro / 1e6:g}" if op.epsilon_micro else "nothing"
    return Told(
        f"{who} lets {in_words(op.purpose)} use {most} of what the patients of cell {op.cell} were "
        "promised.",
        (Fact("Gates", f"{op.g_max} in lane G, {op.r_max} in lane R (units of 2^-40)"),),
    )


def _renewing(who: str, op: Any, history: History) -> Told:
    return Told(
        f"{who} declared that the promise to the patients of cell {op.cell} holds for each {op.days} days, "
        "and not for ever: every such period has the whole of it anew.",
        (Fact("First period from", day_of(op.from_ms)),),
    )


def _registered(who: str, op: Any, history: History) -> Told:
    return Told(
        f"{who} offered dataset {op.dataset}: about {op.declared_train + op.declared_test:,} "
        f"{op.unit}s, of which {op.declared_test:,} for measuring.",
        (
            dataset_fact(op.dataset),
            blob_fact("Schema", op.schema_),
            Fact("Snapshot root", f"{op.snapshot[:16]}… (freshly salted)", code=True),
        ),
    )


def _withdrawn(who: str, op: Any, history: History) -> Told:
    return Told(
        f"{who} withdrew dataset {op.dataset}: {in_words(op.reason)}. Nothing uses it after this.",
        (dataset_fact(op.dataset),),
    )


def _statistics(who: str, op: Any, history: History) -> Told:
    return Told(
        f"{who} let its node release {op.size:,} noisy statistics of {op.dataset}, once, and paid for "
        "them from the budget of the patients kept for training.",
        (
            dataset_fact(op.dataset),
            blob_fact("Question", op.question),
            Fact(
                "Noise", f"{op.noise_sd / op.sensitivity:.2f} of what one patient changes at most"
            ),
            *(
                Fact(
                    "Pure epsilon",
                    f"{part.count} x {part.epsilon_micro / 1e6:g} ({in_words(part.mechanism)})",
                )
                for part in op.pure
            ),
        ),
    )


def _statistics_told(who: str, op: Any, history: History) -> Told:
    return Told(
        f"{who} released the noisy statistics that its steward had allowed. Every member may read them.",
        (blob_fact("Numbers", op.result), Fact("Allowed by", op.reservation[:12], code=True)),
    )


TELLERS: dict[str, Teller] = {
    "cell.registered": _cell,
    "purpose.limited": _limited,
    "refresh.declared": _renewing,
    "dataset.registered": _registered,
    "dataset.withdrawn": _withdrawn,
    "statistics.reserved": _statistics,
    "statistics.released": _statistics_told,
}

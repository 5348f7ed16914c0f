"""What entries about rounds, updates and masks say."""

from __future__ import annotations

from typing import Any

from audit.reports.outcomes import in_words
from audit.reports.sentences.told import (
    Fact,
    Teller,
    Told,
    blob_fact,
    dataset_fact,
    experiment_fact,
)
from audit.verification.history import History
from ledger.experiment.round_words import round_phrase


def _opened(who: str, op: Any, history: History) -> Told:
    name, fact = experiment_fact(history, op.experiment)
    kinds = {"train": "trains", "evaluate": "measures the model", "baseline": "measures baselines"}
    return Told(
        f"{who} opened {_round(history, op)} of {name}, which {kinds[op.kind]} with "
        f"{len(op.cohort)} datasets" + (f" (attempt {op.attempt})." if op.attempt > 1 else "."),
        (fact, Fact("Cohort", ", ".join(op.cohort)), blob_fact("From model", op.model)),
    )


def _update(who: str, op: Any, history: History) -> Told:
    name, fact = experiment_fact(history, op.experiment)
    if op.masked is not None:
        return Told(
            f"{who} sent its masked update for {_round(history, op)} of {name}: a noisy vector over the "
            f"{op.dataset} patients that opens only in the sum with the others', "
            f"{op.update.bytes:,} bytes.",
            (fact, dataset_fact(op.dataset), blob_fact("Masked update", op.update)),
        )
    return Told(
        f"{who} sent its update for {_round(history, op)} of {name}: one noisy vector over the "
        f"{op.dataset} patients, {op.update.bytes:,} bytes. It costs each of them at most what was "
        "reserved.",
        (fact, dataset_fact(op.dataset), blob_fact("Update", op.update)),
    )


def _update_refused(who: str, op: Any, history: History) -> Told:
    return Told(f"{who} left an update out of the sum: {in_words(op.reason)}.")


def _aggregated(who: str, op: Any, history: History) -> Told:
    name, fact = experiment_fact(history, op.experiment)
    return Told(
        f"{_round(history, op, first=True)} of {name} ended in the exact sum of {len(op.updates)} updates.",
        (fact, blob_fact("Sum", op.aggregate), blob_fact("Model after it", op.model)),
    )


def _closed(who: str, op: Any, history: History) -> Told:
    name, fact = experiment_fact(history, op.experiment)
    why = "too few answered" if op.reason == "quorum_missed" else in_words(op.reason)
    return Told(f"{_round(history, op, first=True)} of {name} ended without a sum: {why}.", (fact,))


def _advertised(who: str, op: Any, history: History) -> Told:
    name, fact = experiment_fact(history, op.experiment)
    return Told(
        f"{who} offered fresh keys to mask its vector in {_round(history, op)} of {name}.",
        (fact, dataset_fact(op.dataset), Fact("Context", f"{op.context[:16]}…", code=True)),
    )


def _shared(who: str, op: Any, history: History) -> Told:
    name, fact = experiment_fact(history, op.experiment)
    return Told(
        f"{who} divided the secrets of its masks in {_round(history, op)} of {name} among the others, "
        "sealed for each.",
        (fact, dataset_fact(op.dataset), blob_fact("Sealed shares", op.shares)),
    )


def _advanced(who: str, op: Any, history: History) -> Told:
    name, fact = experiment_fact(history, op.experiment)
    what = {
        "share": "divides the secrets of its masks among",
        "mask": "sums masked vectors of",
        "unmask": "takes as the sum that of",
    }
    return Told(
        f"{_round(history, op, first=True)} of {name} {what[op.phase]} {len(op.datasets)} datasets.",
        (fact, Fact("Datasets", ", ".join(op.datasets))),
    )


def _agreed(who: str, op: Any, history: History) -> Told:
    name, fact = experiment_fact(history, op.experiment)
    return Told(
        f"{who} signed whose vectors are in the sum of {_round(history, op)} of {name}.",
        (fact, dataset_fact(op.dataset), Fact("Survivors", f"{op.survivors[:16]}…", code=True)),
    )


def _revealed(who: str, op: Any, history: History) -> Told:
    name, fact = experiment_fact(history, op.experiment)
    gone = [share.secret for share in op.shares].count("key")
    return Told(
        f"{who} revealed its shares that open the sum of {_round(history, op)} of {name}, and no single "
        "vector.",
        (
            fact,
            dataset_fact(op.dataset),
            Fact("Shares", f"{len(op.shares) - gone} in the sum, {gone} dropped out"),
        ),
    )


def _round(history: History, op: Any, *, first: bool = False) -> str:
    """A round as the spec counts it: ``round 3``, or ``the evaluation`` after the last of training."""
    experiment = history.experiments.get(op.experiment)
    training = op.round if experiment is None else experiment.plan.rounds
    words = round_phrase(op.round, training)
    return words.capitalize() if first else words


TELLERS: dict[str, Teller] = {
    "round.opened": _opened,
    "round.aggregated": _aggregated,
    "round.closed": _closed,
    "masking.advertised": _advertised,
    "masking.shared": _shared,
    "masking.advanced": _advanced,
    "masking.agreed": _agreed,
    "masking.revealed": _revealed,
    "update.submitted": _update,
    "update.refused": _update_refused,
}

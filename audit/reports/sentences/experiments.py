"""What entries about experiments, their budgets and their models say."""

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
    speaker,
)
from audit.verification.history import History
from privacy.events import CHARGE_UNIT


def _proposed(who: str, op: Any, history: History) -> Told:
    return Told(
        f"{who} asked for experiment {op.name} on {len(op.plan.sites)} datasets: "
        f"{op.plan.rounds} rounds of {op.plan.strategy}"
        + (", under secure aggregation" if op.plan.secure_aggregation else "")
        + (
            f", with the noise of {op.plan.noise_shares} honest hospitals together."
            if op.plan.noise_shares > 1
            else "."
        ),
        (
            Fact("Datasets", ", ".join(site.dataset for site in op.plan.sites)),
            Fact("Quorum", f"{op.plan.quorum} hospitals a round"),
            blob_fact("Specification", op.spec),
        ),
    )


def _approved(who: str, op: Any, history: History) -> Told:
    name, fact = experiment_fact(history, op.experiment)
    return Told(
        f"{who} approved {name} for dataset {op.dataset}, up to epsilon "
        f"{op.epsilon_max_micro / 1e6:g}.",
        (fact, dataset_fact(op.dataset)),
    )


def _refused(who: str, op: Any, history: History) -> Told:
    name, fact = experiment_fact(history, op.experiment)
    return Told(
        f"{who} refused {name} for dataset {op.dataset}: {in_words(op.reason)}.",
        (fact, dataset_fact(op.dataset)),
    )


def _stopped(who: str, op: Any, history: History) -> Told:
    name, fact = experiment_fact(history, op.experiment)
    return Told(f"{who} ended {name}: {in_words(op.reason)}.", (fact,))


def _completed(who: str, op: Any, history: History) -> Told:
    name, fact = experiment_fact(history, op.experiment)
    return Told(f"{name} ran to the end of its plan.", (fact, blob_fact("Model", op.model)))


def _released(who: str, op: Any, history: History) -> Told:
    name, fact = experiment_fact(history, op.experiment)
    return Told(f"The model of {name} may be handed out.", (fact, blob_fact("Model", op.model)))


def _downloaded(who: str, op: Any, history: History) -> Told:
    name, fact = experiment_fact(history, op.experiment)
    return Told(f"{speaker(op.reader, history)} took the model of {name}.", (fact,))


def _reserved(who: str, op: Any, history: History) -> Told:
    name, fact = experiment_fact(history, op.experiment)
    charged = ", ".join(f"{c.cell}: μ² {c.g / CHARGE_UNIT:.4g}" for c in op.charges)
    return Told(
        f"{who} reserved the most that {name} may cost dataset {op.dataset}, before any data was "
        "touched.",
        (fact, dataset_fact(op.dataset), Fact("Reserved", charged)),
    )


def _budget_refused(who: str, op: Any, history: History) -> Told:
    name, fact = experiment_fact(history, op.experiment)
    return Told(
        f"{who} did not let dataset {op.dataset} into {name}: {in_words(op.reason)}.",
        (fact, dataset_fact(op.dataset)),
    )


def _settled(who: str, op: Any, history: History) -> Told:
    name, fact = experiment_fact(history, op.experiment)
    used = ", ".join(f"{u.steps} × {u.purpose.replace('_', ' ')}" for u in op.used) or "nothing"
    return Told(
        f"{who} settled {name} for dataset {op.dataset}: what was not used is given back.",
        (fact, dataset_fact(op.dataset), Fact("Used", used)),
    )


TELLERS: dict[str, Teller] = {
    "experiment.proposed": _proposed,
    "experiment.approved": _approved,
    "experiment.refused": _refused,
    "experiment.stopped": _stopped,
    "experiment.completed": _completed,
    "model.released": _released,
    "model.downloaded": _downloaded,
    "budget.reserved": _reserved,
    "budget.refused": _budget_refused,
    "budget.settled": _settled,
}

"""Experiments, plans, measures and rehearsals in short."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from consilium.naming import SHORT
from ledger.entries.operations.plans import Plan
from ledger.experiment.recipe import HOUSE, is_house
from ledger.experiment.round_words import round_words
from ledger.experiment.spec import ExperimentSpec
from ledger.rules.experiment_state import Experiment
from privacy.events import FULL_BATCH
from privacy.histogram import Measure

if TYPE_CHECKING:
    from consilium.rehearsal import Rehearsal


class ExperimentSummary(TypedDict):
    """An experiment, how far it is, and who said what about it."""

    id: str
    name: str
    status: str
    reason: str | None
    researcher: str
    round: int
    rounds: int
    training_rounds: int
    asked: list[str]
    approved: list[str]
    refused: dict[str, str]
    epsilon: float


def experiment_summary(experiment: Experiment) -> ExperimentSummary:
    """Summarise an experiment."""
    plan = experiment.plan
    rounds = plan.rounds + plan.evaluate + plan.baseline
    refused = {name: said.reason for name, said in sorted(experiment.refusals.items())}
    refused |= {name: said.reason for name, said in sorted(experiment.budget_refusals.items())}
    return ExperimentSummary(
        id=experiment.id,
        name=experiment.name,
        status=experiment.status,
        reason=experiment.reason,
        researcher=experiment.researcher,
        round=min(experiment.next_round, rounds),
        rounds=rounds,
        training_rounds=plan.rounds,
        asked=[site.dataset for site in plan.sites],
        approved=sorted(experiment.approvals),
        refused=refused,
        epsilon=max(site.epsilon_micro for site in plan.sites) / 1e6,
    )


def plan_sites(plan: Plan) -> list[dict[str, str | float | int]]:
    """What a plan asks of each dataset, as rows; noise as a multiple of the clip norm."""
    rows: list[dict[str, str | float | int]] = []
    for site in plan.sites:
        train = next(r for r in site.releases if r.purpose == "train")
        rows.append(
            {
                "dataset": site.dataset,
                "epsilon": site.epsilon_micro / 1e6,
                "steps": train.steps,
                "noise_multiplier": train.noise_sd / train.sensitivity,
                "sampling": train.sampling / FULL_BATCH,
                "weight": site.weight,
            }
        )
    return rows


def experiment_row(summary: ExperimentSummary) -> dict[str, str | float | None]:
    """An experiment's summary as one row of a table."""
    refused = ", ".join(f"{name}: {reason}" for name, reason in summary["refused"].items())
    status = summary["status"] + (f" ({summary['reason']})" if summary["reason"] else "")
    return {
        "id": summary["id"][:SHORT],
        "name": summary["name"],
        "status": status,
        "round": None
        if summary["status"] == "proposed"
        else round_words(summary["round"], summary["training_rounds"]),
        "researcher": summary["researcher"],
        "epsilon": summary["epsilon"],
        "approved": f"{len(summary['approved'])} of {len(summary['asked'])}",
        "refused": refused or None,
    }


def house_note(spec: ExperimentSpec) -> str | None:
    """What to know of a spec whose open settings nothing was fitted for; None where there is nothing to say."""
    if not is_house(spec):
        return None
    return (
        "nothing was fitted for a model of this kind: what is `auto` has the house's settings, "
        f"{HOUSE.rounds} rounds, a rate of {HOUSE.learning_rate}, a clip norm of {HOUSE.clip_norm}"
    )


def measure_row(name: str, measure: Measure) -> dict[str, str | float | None]:
    """One measure as a row."""
    return {
        "measure": name,
        "value": measure.value,
        "low": measure.low,
        "high": measure.high,
        "reason": measure.reason,
    }


def rehearsal_summary(done: Rehearsal) -> dict[str, str | float | int | None]:
    """What a rehearsal showed, without its measures."""
    seconds = sorted(done.round_seconds)
    noise = max(done.noise_per_step.values())
    return {
        "parameters": done.plan.parameters,
        "rounds": done.rounds,
        "datasets": len(done.rows),
        "rows_made_up": sum(done.rows.values()),
        "update_bytes": done.update_bytes,
        "seconds_per_round": seconds[len(seconds) // 2],
        "noise_per_step": noise,
        "epsilon": max(site.epsilon_micro for site in done.plan.sites) / 1e6,
    }

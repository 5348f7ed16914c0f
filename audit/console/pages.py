"""What each page of the console shows, as plain values for its template.

One question a page: datasets, "who used this?"; experiment, "may it run, and what did it do?";
overview, "is anything waiting for me, is anything wrong?" (``entry_pages`` has the entries).
Everything comes from one verification, so a page never mixes two states of a copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from audit.console.charts import Step, spend_chart
from audit.errors import NotInLedger
from audit.reports.budget import DatasetBudget, dataset_budget, experiment_epsilon
from audit.reports.data_use import experiments_with, spec_of
from audit.reports.data_use_form import Observed
from audit.reports.observed import observed_of_dataset, observed_of_experiment
from audit.reports.outcomes import (
    Outcome,
    in_words,
    last_decision,
    outcome_for,
    outcome_of,
    rounds_in_words,
    rounds_served,
)
from audit.reports.sentences.told import organisation_name
from audit.reports.standing import person
from audit.verification.documents import UNREADABLE
from audit.verification.records import ExperimentRecord
from audit.verification.verify import Verification
from ledger.formats.keys import key_id
from ledger.rules.state import State

NEARLY_SPENT = 0.8


@dataclass(frozen=True)
class DatasetRow:
    """A dataset in a list."""

    name: str
    organisation: str
    declared: int
    budget: DatasetBudget
    uses: int
    last_use_ms: int | None
    withdrawn: bool


@dataclass(frozen=True)
class UseRow:
    """A use of a dataset, or a refused one."""

    experiment: ExperimentRecord
    title: str
    asked_by: str
    decision: str
    decided_at_ms: int | None
    rounds: str
    first_ms: int | None
    outcome: Outcome
    epsilon: float
    settled: bool


@dataclass(frozen=True)
class Waiting:
    """Something that waits for somebody."""

    text: str
    link: str
    tone: str = "warn"


@dataclass(frozen=True)
class SiteRow:
    """A dataset on an experiment's page."""

    dataset: str
    organisation: str
    decision: str
    decided_at_ms: int | None
    decision_entry: int | None
    condition: str
    rounds: str
    outcome: Outcome
    epsilon: float
    limit: float
    delta: float


@dataclass(frozen=True)
class DatasetPage:
    """Everything on a dataset's page."""

    name: str
    title: str
    row: DatasetRow
    uses: tuple[UseRow, ...]
    chart: Markup
    registered_at_ms: int
    registered_entry: int
    institutions: int
    refused_experiments: int
    refused_rounds: int
    model_updates: int
    histograms: int
    models: int
    downloads: int
    observed: tuple[Observed, ...]
    curve: tuple[tuple[int, int, float], ...] = field(default=())


def ended_by_evidence(state: State) -> dict[str, int]:
    """Members whose current key ended by ``key.conflicted``, and the entry that holds the evidence."""
    ended = {}
    for member in state.members.values():
        entry = member.keys.entry
        held = state.keys.get(key_id(entry.alg, bytes.fromhex(entry.public)))
        if held is not None and held.conflicted_at is not None:
            ended[member.handle] = held.conflicted_at
    return ended


def dataset_rows(found: Verification) -> list[DatasetRow]:
    """All datasets, by name."""
    return [_dataset_row(found, name) for name in sorted(found.history.datasets)]


def dataset_page(found: Verification, name: str) -> DatasetPage:
    """A dataset and every use of it.

    Raises:
        NotInLedger: there is no such dataset.
    """
    record = found.history.datasets.get(name)
    if record is None:
        raise NotInLedger("dataset", name, ", ".join(sorted(found.history.datasets)))
    experiments = experiments_with(found, name)
    row = _dataset_row(found, name)
    worst = row.budget.worst
    uses = tuple(_use(found, each, name) for each in reversed(experiments))
    used = [use for use in uses if rounds_served(use.experiment, name)]
    updates = [
        (each, update)
        for each in experiments
        for update in each.all_updates
        if update.dataset == name
    ]
    trained = [u for e, u in updates if u.round <= e.plan.rounds]
    models = [e for e in experiments if e.completed is not None and rounds_served(e, name)]
    return DatasetPage(
        name=name,
        title=_schema_title(found, name),
        row=row,
        uses=uses,
        chart=spend_chart(
            [Step(p.at_ms, p.epsilon) for p in worst.curve],
            worst.limit,
            open_end=worst.epsilon - worst.epsilon_settled > 1e-9,
            days=None if worst.renewal is None else worst.renewal.days,
        ),
        registered_at_ms=record.versions[0].said.at_ms,
        registered_entry=record.current.said.index,
        institutions=len({use.experiment.said.organisation for use in used}),
        refused_experiments=sum(use.outcome.text.startswith("refused") for use in uses),
        refused_rounds=sum(u.void is not None for _, u in updates)
        + sum(name in r.refused for e in experiments for r in e.rounds),
        model_updates=len(trained),
        histograms=len(updates) - len(trained),
        models=len(models),
        downloads=sum(len(e.downloads) for e in models),
        observed=observed_of_dataset(found, name),
        curve=tuple((p.index, p.at_ms, p.epsilon) for p in worst.curve),
    )


def waiting(found: Verification) -> list[Waiting]:
    """What waits for somebody, the most urgent first."""
    items: list[Waiting] = []
    for experiment in found.history.experiments.values():
        if experiment.completed is not None or experiment.stopped is not None:
            open_ = [d for d, held in experiment.held.items() if held.settled is None]
            if open_:
                text = f"{experiment.terms.name} has ended; {', '.join(open_)} not settled yet"
                items.append(Waiting(text, f"/experiments/{experiment.id}", "plain"))
            continue
        for dataset, version in experiment.sites.items():
            if last_decision(experiment, dataset) is None:
                who = organisation_name(version.said.organisation)
                text = f"{experiment.terms.name} waits for {who} to approve or refuse {dataset}"
                items.append(Waiting(text, f"/experiments/{experiment.id}"))
    for row in dataset_rows(found):
        worst = row.budget.worst
        if worst.epsilon >= NEARLY_SPENT * worst.limit:
            until = "for ever" if worst.renewal is None else "for this period"
            text = (
                f"{row.name} has spent epsilon {worst.epsilon:.2f} of {worst.limit:g} {until}; "
                "approve with care"
            )
            items.append(Waiting(text, f"/datasets/{row.name}"))
    return items


def site_rows(found: Verification, experiment: ExperimentRecord) -> list[SiteRow]:
    """The datasets of an experiment, by name."""
    rows = []
    for dataset in sorted(experiment.sites):
        decision = last_decision(experiment, dataset)
        budget = dataset_budget(found.history, found.state, dataset)
        condition = ""
        if decision is not None and decision.approved:
            condition = f"up to ε {decision.epsilon_max_micro / 1e6:g}"
        elif decision is not None:
            condition = in_words(decision.reason or "other")
        word = (
            "not answered" if decision is None else "approved" if decision.approved else "refused"
        )
        rows.append(
            SiteRow(
                dataset=dataset,
                organisation=experiment.sites[dataset].said.organisation,
                decision=word,
                decided_at_ms=decision.said.at_ms if decision else None,
                decision_entry=decision.said.index if decision else None,
                condition=condition,
                rounds=rounds_in_words(experiment, dataset),
                outcome=outcome_for(experiment, dataset),
                epsilon=experiment_epsilon(experiment, dataset, found.state),
                limit=budget.worst.limit,
                delta=budget.worst.delta,
            )
        )
    return rows


def experiment_values(found: Verification, identity: str) -> Mapping[str, Any]:
    """Everything on an experiment's page.

    Raises:
        NotInLedger: there is no such experiment.
    """
    experiment = found.history.experiments.get(identity)
    if experiment is None:
        raise NotInLedger("experiment", identity)
    return {
        "experiment": experiment,
        "spec": spec_of(found, experiment),
        "outcome": outcome_of(experiment),
        "asked_by": person(found, experiment.said.author),
        "sites": site_rows(found, experiment),
        "observed": observed_of_experiment(found, identity),
    }


def _dataset_row(found: Verification, name: str) -> DatasetRow:
    record = found.history.datasets[name]
    terms = record.current.terms
    experiments = experiments_with(found, name)
    times = [u.said.at_ms for e in experiments for u in e.all_updates if u.dataset == name]
    return DatasetRow(
        name=name,
        organisation=record.organisation,
        declared=terms.declared_train + terms.declared_test,
        budget=dataset_budget(found.history, found.state, name),
        uses=sum(bool(rounds_served(e, name)) for e in experiments),
        last_use_ms=max(times, default=None),
        withdrawn=record.withdrawn is not None,
    )


def _use(found: Verification, experiment: ExperimentRecord, dataset: str) -> UseRow:
    spec = spec_of(found, experiment)
    decision = last_decision(experiment, dataset)
    times = [u.said.at_ms for u in experiment.all_updates if u.dataset == dataset]
    said = "not answered yet"
    if decision is not None:
        verb = "approved" if decision.approved else "refused"
        said = f"{verb} by {decision.said.author}"
        if not decision.approved:
            said += f": {in_words(decision.reason or 'other')}"
    held = experiment.held.get(dataset)
    return UseRow(
        experiment=experiment,
        title=spec.title if spec else "its specification is not in this copy",
        asked_by=f"{experiment.said.author}, {organisation_name(experiment.said.organisation)}",
        decision=said,
        decided_at_ms=decision.said.at_ms if decision else None,
        rounds=rounds_in_words(experiment, dataset),
        first_ms=min(times, default=None),
        outcome=outcome_for(experiment, dataset),
        epsilon=experiment_epsilon(experiment, dataset, found.state),
        settled=held is None or held.settled is not None,
    )


def _schema_title(found: Verification, name: str) -> str:
    try:
        return found.documents.schema(found.history.datasets[name].current).title
    except UNREADABLE:
        return ""

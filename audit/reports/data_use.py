"""The data-use report: who used a dataset, for what, on whose approval, at what cost.

Nine blocks (``data_use_form``), assembled from a verified copy in one direction: nothing here judges
or fetches. Every row names the entry that says so.
"""

from __future__ import annotations

from collections.abc import Iterator

from audit.errors import NotInLedger
from audit.reports.budget import DatasetBudget, dataset_budget, experiment_epsilon, merged, pld
from audit.reports.data_use_form import (
    Against,
    CellBlock,
    DatasetBlock,
    DataUseReport,
    DerivedModel,
    Mechanism,
    PrivacyBlock,
    PurposeBlock,
    Reviewed,
    Use,
)
from audit.reports.observed import observed_of_dataset
from audit.reports.outcomes import (
    in_words,
    last_decision,
    outcome_for,
    rounds_in_words,
    rounds_served,
    rounds_trained,
    times_asked,
)
from audit.reports.outflows import outflows_of, totals_of
from audit.reports.periods import renewal_block
from audit.reports.standing import ERASED, NOT_STATED, header_of, person
from audit.verification.documents import UNREADABLE
from audit.verification.records import DatasetRecord, ExperimentRecord
from audit.verification.verify import LIMITS, Verification
from ledger.entries.cards import Contact, DatasetCard
from ledger.experiment.round_words import round_phrase
from ledger.experiment.spec import ExperimentSpec
from ledger.rules.verdict import EXPLANATIONS
from privacy.errors import CrossCheckFailed
from privacy.events import GRID

_DISCLOSURE = {
    "use": "use inside the hospital",
    "disclosure": "disclosure",
    "not_phi": "not protected health information",
}


def data_use_report(found: Verification, dataset: str, *, now_ms: int, by: str) -> DataUseReport:
    """Assemble the report on one dataset.

    Args:
        found: a verification of the copy.
        dataset: its name.
        now_ms: when the report is made, POSIX ms.
        by: who makes it, in words.

    Raises:
        NotInLedger: there is no such dataset.
    """
    record = found.history.datasets.get(dataset)
    if record is None:
        known = ", ".join(sorted(found.history.datasets))
        raise NotInLedger("dataset", dataset, known)
    experiments = experiments_with(found, dataset)
    card = found.documents.dataset_card(record.current)
    disclosure = _disclosure(card, record)
    outflows = tuple(outflows_of(found, record, experiments, disclosure))
    budget = dataset_budget(found.history, found.state, dataset)
    times = [record.versions[0].said.at_ms, *(o.at_ms for o in outflows)]
    return DataUseReport(
        header=header_of(
            found,
            report="data use",
            subject=dataset,
            version=f"{len(record.versions)} ({record.current.said.hash})",
            period=(min(times), max(times)),
            now_ms=now_ms,
            by=by,
        ),
        dataset=_dataset(found, record, card),
        uses=tuple(_use(found, record, each) for each in experiments),
        outflows=outflows,
        outflow_totals=totals_of(outflows),
        privacy=_privacy(budget),
        decisions_against=tuple(
            sorted(_against(found, record, experiments), key=lambda a: a.entry)
        ),
        models=tuple(_models(found, dataset, experiments)),
        observed=observed_of_dataset(found, dataset),
        reviews=tuple(_reviews(found)),
        limits=LIMITS,
    )


def experiments_with(found: Verification, dataset: str) -> list[ExperimentRecord]:
    """The experiments whose plan asks for a dataset, oldest first."""
    return [e for e in found.history.experiments.values() if dataset in e.sites]


def spec_of(found: Verification, experiment: ExperimentRecord) -> ExperimentSpec | None:
    """An experiment's specification, or None where its blob is not in the copy."""
    try:
        return found.documents.spec(experiment)
    except UNREADABLE:
        return None


def _dataset(
    found: Verification, record: DatasetRecord, stated: DatasetCard | None
) -> DatasetBlock:
    terms = record.current.terms
    card = stated or DatasetCard()
    empty = NOT_STATED if terms.card is None or stated is not None else ERASED

    def said(text: object) -> str:
        return str(text) if text else empty

    try:
        schema = found.documents.schema(record.current)
        title, columns = schema.title, tuple(c.name for c in schema.columns)
    except UNREADABLE:
        title, columns = "", ()
    span = [str(day) if day else "?" for day in (card.first_record, card.last_record)]
    withdrawn = "no"
    if record.withdrawn is not None:
        gone, why = record.withdrawn
        withdrawn = f"in entry {gone.index}: {in_words(why)}"
    return DatasetBlock(
        name=record.name,
        title=card.title or title or NOT_STATED,
        hospital=record.organisation,
        controller=said(card.controller.name),
        controller_contact=said(_contact(card.controller)),
        data_protection_officer=said(_contact(card.data_protection_officer)),
        department=said(card.department),
        purpose=said(card.purpose),
        categories_of_persons=said(card.categories_of_persons),
        categories_of_data=said(card.categories_of_data),
        columns=columns,
        declared_train=terms.declared_train,
        declared_test=terms.declared_test,
        unit=terms.unit,
        snapshot=terms.snapshot,
        registered_entry=record.current.said.index,
        registered_at_ms=record.current.said.at_ms,
        versions=len(record.versions),
        time_span=said("" if span == ["?", "?"] else " to ".join(span)),
        legal_basis=said(card.legal_basis),
        ethics_approval=said(card.ethics_approval),
        retention=said(card.retention),
        opt_out_reconciled=said(card.opt_out_reconciled),
        security_measures=said(card.security_measures),
        transfers_and_safeguards=said(card.transfers_and_safeguards),
        disclosure_class=_disclosure(stated, record),
        classified_by=said(card.classified_by),
        withdrawn=withdrawn,
    )


def _use(found: Verification, record: DatasetRecord, experiment: ExperimentRecord) -> Use:
    dataset = record.name
    spec = spec_of(found, experiment)
    decision = last_decision(experiment, dataset)
    outcome = outcome_for(experiment, dataset)
    times = [u.said.at_ms for u in experiment.all_updates if u.dataset == dataset]
    terms = experiment.sites[dataset].terms
    held = experiment.held.get(dataset)
    trained = rounds_trained(experiment, dataset)
    missing = "its specification is not in this copy"
    return Use(
        experiment=experiment.id,
        entry=experiment.said.index,
        name=experiment.terms.name,
        title=spec.title if spec else missing,
        purpose=spec.purpose if spec else missing,
        lawful_basis=spec.lawful_basis if spec else missing,
        asked_by=person(found, experiment.said.author),
        asked_at_ms=experiment.said.at_ms,
        decision="none" if decision is None else "approved" if decision.approved else "refused",
        decided_by=person(found, decision.said.author) if decision else None,
        decided_at_ms=decision.said.at_ms if decision else None,
        decision_entry=decision.said.index if decision else None,
        decision_signature=f"entry {decision.said.hash}" if decision else "",
        approved_package=f"{experiment.id} (specification {experiment.terms.spec.sha256})",
        scope_rounds=experiment.plan.rounds,
        scope_epsilon_max=(
            decision.epsilon_max_micro / 1e6 if decision and decision.approved else None
        ),
        scope_until_ms=decision.until_ms if decision and decision.approved else None,
        rounds=rounds_in_words(experiment, dataset),
        rounds_trained=trained,
        rounds_measured=len(rounds_served(experiment, dataset)) - trained,
        times_asked=times_asked(experiment, dataset),
        first_use_ms=min(times, default=None),
        last_use_ms=max(times, default=None),
        declared_patients=terms.declared_train + terms.declared_test,
        snapshot=terms.snapshot,
        fields=(*spec.features, spec.task.target) if spec else (),
        outcome=outcome.text,
        outcome_tone=outcome.tone,
        outcome_why=outcome.why,
        epsilon=experiment_epsilon(experiment, dataset, found.state),
        epsilon_settled=held is not None and held.settled is not None,
    )


def _privacy(budget: DatasetBudget) -> PrivacyBlock:
    worst = budget.worst
    cells = []
    mechanisms = []
    for cell in budget.cells:
        try:
            by_pld: float | None = None if cell.individual else pld(merged(cell.events), cell.delta)
        except CrossCheckFailed:
            by_pld = None
        cells.append(
            CellBlock(
                cell=cell.cell,
                block=cell.block,
                half=cell.half,
                declared_patients=cell.declared_patients,
                epsilon=cell.epsilon,
                epsilon_settled=cell.epsilon_settled,
                epsilon_pld=by_pld,
                limit=cell.limit,
                delta=cell.delta,
                attacker_gain_at_1_percent=cell.attacker_gain,
                lanes_closed=cell.closed_lanes,
                purposes=tuple(
                    PurposeBlock(purpose=p.purpose, epsilon=p.epsilon, limit=p.limit)
                    for p in cell.parts
                ),
                curve=tuple((p.index, p.at_ms, p.epsilon) for p in cell.curve),
                renewal=renewal_block(cell.renewal),
            )
        )
        for item in cell.events:
            event = item.event
            mechanisms.append(
                Mechanism(
                    experiment=item.experiment,
                    purpose=item.purpose,
                    cell=cell.cell,
                    noise_sd=event.noise_sd / GRID,
                    sensitivity=event.sensitivity / GRID,
                    noise_multiplier=float(event.noise_multiplier),
                    sampling=float(event.q),
                    steps=event.steps,
                    settled=item.settled,
                )
            )
    return PrivacyBlock(
        unit=budget.unit,
        relation="one unit's rows replaced by nothing (zero-out)",
        epsilon=worst.epsilon,
        epsilon_reserved_only=max(0.0, worst.epsilon - worst.epsilon_settled),
        limit=worst.limit,
        delta=worst.delta,
        worst_cell=worst.cell,
        more_like_last=budget.more_like_last,
        accountants=(
            "lane G: closed form of the Gaussian mechanism (Balle & Wang 2018, Theorem 8)",
            "lane R: Renyi divergence at one fixed order (Canonne, Kamath & Steinke 2020, Prop. 12)",
            "privacy loss distributions (dp-accounting), an upper bound on any grid",
        ),
        cells=tuple(cells),
        mechanisms=tuple(mechanisms),
    )


def _against(
    found: Verification, record: DatasetRecord, experiments: list[ExperimentRecord]
) -> Iterator[Against]:
    name = record.name
    for experiment in experiments:
        label = experiment.terms.name
        training = experiment.plan.rounds
        for decision in experiment.decisions:
            if decision.dataset == name and not decision.approved:
                yield Against(
                    entry=decision.said.index,
                    at_ms=decision.said.at_ms,
                    who=f"{decision.said.author} (steward)",
                    what=f"refused {label}",
                    why=in_words(decision.reason or "other"),
                    then="nothing was used after this entry",
                )
        for said, op in experiment.node_refusals:
            if op.dataset == name:
                yield Against(
                    entry=said.index,
                    at_ms=said.at_ms,
                    who=f"{said.author} (node)",
                    what=f"did not take part in {label}",
                    why=in_words(op.reason),
                    then="no data was touched for it",
                )
        for update in experiment.all_updates:
            if update.dataset == name and update.void is not None:
                yield Against(
                    entry=update.said.index,
                    at_ms=update.said.at_ms,
                    who="the ledger's rules",
                    what=f"an update for {label}, {round_phrase(update.round, training)}, is void",
                    why=EXPLANATIONS.get(update.void, update.void),
                    then="it is in no sum; the noise it used stays charged",
                )
        for record_ in experiment.rounds:
            if name in record_.refused:
                said, reason = record_.refused[name]
                yield Against(
                    entry=said.index,
                    at_ms=said.at_ms,
                    who=f"{said.author} (coordinator)",
                    what=f"left an update for {label}, {round_phrase(record_.terms.round, training)}, out",
                    why=in_words(reason),
                    then="it is in no sum; the noise it used stays charged",
                )
    if record.withdrawn is not None:
        said, reason = record.withdrawn
        yield Against(
            entry=said.index,
            at_ms=said.at_ms,
            who=said.author,
            what=(
                "completed the expulsion that withdrew it"
                if reason == "expelled"
                else "withdrew the dataset"
            ),
            why=in_words(reason),
            then="no round used it after this entry; models made before stay listed in block 7",
        )


def _models(
    found: Verification, dataset: str, experiments: list[ExperimentRecord]
) -> Iterator[DerivedModel]:
    for experiment in experiments:
        served = rounds_trained(experiment, dataset)
        if experiment.completed is None or served == 0:
            continue
        said, ref = experiment.completed
        yield DerivedModel(
            sha256=ref.sha256,
            experiment=experiment.id,
            name=experiment.terms.name,
            entry=said.index,
            rounds_with_dataset=served,
            released=experiment.released is not None,
            downloads=tuple(
                f"{reader} ({found.state.members[reader].organisation}), entry {taken.index}"
                for taken, reader in experiment.downloads
            ),
        )


def _reviews(found: Verification) -> Iterator[Reviewed]:
    for said, op in found.history.reviews:
        yield Reviewed(
            entry=said.index,
            at_ms=said.at_ms,
            who=f"{said.author}, {said.organisation}",
            size=op.size,
            finding=op.finding.replace("_", " "),
        )


def _disclosure(card: DatasetCard | None, record: DatasetRecord) -> str:
    if card is None:
        return NOT_STATED if record.current.terms.card is None else ERASED
    return _DISCLOSURE[card.disclosure] if card.disclosure else NOT_STATED


def _contact(contact: Contact) -> str:
    parts = (contact.name, contact.email, contact.telephone, contact.address, contact.country)
    return ", ".join(part for part in parts if part)

"""What left a hospital: every update as bytes, recipient, protection, and what became of it.

One list for the report and for whoever asks "what exactly was sent?". An update that was void or left
out of the sum left the hospital all the same, and is here.
"""

from __future__ import annotations

from collections.abc import Iterator

from audit.reports.data_use_form import Outflow, OutflowTotal
from audit.reports.outcomes import in_words
from audit.reports.standing import NOT_STATED, person
from audit.verification.records import DatasetRecord, ExperimentRecord, UpdateRecord
from audit.verification.verify import Verification
from ledger.entries.operations.plans import Release
from ledger.experiment.round_words import round_name
from ledger.rules.experiments import site_of
from ledger.rules.verdict import EXPLANATIONS
from privacy.events import FULL_BATCH, GRID

_KINDS = {"train": "model update", "evaluate": "score histogram", "baseline": "score histogram"}


def outflows_of(
    found: Verification,
    record: DatasetRecord,
    experiments: list[ExperimentRecord],
    disclosure: str,
) -> Iterator[Outflow]:
    """Yield every update that a dataset's node sent, counted or not, oldest experiment first."""
    coordinator = person(found, found.state.coordinator)
    recipient = f"{coordinator.handle}, {coordinator.organisation} (coordinator)"
    for experiment in experiments:
        kinds = {(r.terms.round, r.terms.attempt): r.terms.kind for r in experiment.rounds}
        for update in experiment.all_updates:
            if update.dataset != record.name:
                continue
            kind = kinds.get((update.round, update.attempt), "train")
            yield Outflow(
                entry=update.said.index,
                at_ms=update.said.at_ms,
                experiment=experiment.terms.name,
                round=update.round,
                round_name=round_name(update.round, experiment.plan.rounds),
                kind=_KINDS[kind],
                recipient=recipient,
                bytes=update.blob.bytes,
                sha256=update.blob.sha256,
                mechanism=_mechanism_words(experiment, record.name, kind),
                counted=_counted(experiment, update),
                disclosure_class=disclosure,
            )


def _counted(experiment: ExperimentRecord, update: UpdateRecord) -> str:
    if update.void is not None:
        return f"not counted: {EXPLANATIONS.get(update.void, update.void)}"
    for record in experiment.rounds:
        if update.dataset in record.refused and record.updates[update.dataset] is update:
            return f"not counted: {in_words(record.refused[update.dataset][1])}"
        if record.counted().get(update.dataset) is update:
            return "in the sum"
    return "its round has not ended in a sum"


def _mechanism_words(experiment: ExperimentRecord, dataset: str, kind: str) -> str:
    site = site_of(experiment.plan, dataset)
    purpose = {"train": "train", "evaluate": "evaluate", "baseline": "baseline_evaluate"}[kind]
    release = next((r for r in site.releases if r.purpose == purpose), None) if site else None
    if release is None:
        return NOT_STATED
    return (
        f"Gaussian, noise {release.noise_sd / GRID:.4g}, sensitivity "
        f"{release.sensitivity / GRID:.4g}" + _sampling_words(release)
    )


def _sampling_words(release: Release) -> str:
    if release.sampling == FULL_BATCH:
        return ", full batch"
    return f", each patient with probability {release.sampling / FULL_BATCH:.4g}"


def totals_of(outflows: tuple[Outflow, ...]) -> tuple[OutflowTotal, ...]:
    """Repeated outflows of one kind to one recipient: how often, first and last."""
    groups: dict[tuple[str, str, str], list[Outflow]] = {}
    for outflow in outflows:
        groups.setdefault((outflow.experiment, outflow.kind, outflow.recipient), []).append(outflow)
    return tuple(
        OutflowTotal(
            experiment=experiment,
            kind=kind,
            recipient=recipient,
            count=len(group),
            bytes=sum(o.bytes for o in group),
            first_ms=min(o.at_ms for o in group),
            last_ms=max(o.at_ms for o in group),
        )
        for (experiment, kind, recipient), group in groups.items()
    )

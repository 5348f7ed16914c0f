"""What an entry says, in a sentence, and its facts: words before jargon.

`sentence` never fails on an applied entry; for void ones and for what history does not know (yet) it
falls back to what the entry itself carries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from audit.reports.outcomes import in_words
from audit.verification.history import History
from ledger.entries.entry import Entry, parse_leaf
from ledger.formats.strict import decode_b64
from privacy.events import CHARGE_UNIT


@dataclass(frozen=True, slots=True)
class Fact:
    """A labelled value; ``link`` leads to its page, ``code`` sets it in fixed width."""

    label: str
    value: str
    link: str | None = None
    code: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """A sentence and the facts behind it."""

    sentence: str
    facts: tuple[Fact, ...] = ()


def tell(entry: Entry, history: History) -> Told:
    """Say what an entry says."""
    op = entry.body.op
    who = speaker(entry.body.author, history)
    teller = _TELLERS.get(op.type)
    if teller is None:
        return Told(f"{who} said {op.type}.")
    return teller(who, op, history)


def speaker(handle: str, history: History) -> str:
    """A member as the subject of a sentence: its organisation and role."""
    member = history.members.get(handle)
    if member is None:
        return handle
    name = organisation_name(member.organisation)
    roles = {
        "node": f"{name}'s node",
        "steward": f"{name}'s steward",
        "coordinator": "The coordinator",
        "auditor": f"Auditor {handle} of {name}",
        "researcher": f"Researcher {handle} of {name}",
    }
    return roles[member.role]


def organisation_name(slug: str) -> str:
    """An organisation's slug as a name."""
    return " ".join(part.capitalize() for part in slug.split("-"))


def _experiment(history: History, identity: str) -> tuple[str, Fact]:
    record = history.experiments.get(identity)
    name = record.terms.name if record else identity[:12]
    link = f"/experiments/{identity}" if record else None
    return name, Fact("Experiment", name, link)


def _dataset(name: str) -> Fact:
    return Fact("Dataset", name, f"/datasets/{name}")


def _blob(label: str, ref: Any) -> Fact:
    return Fact(label, f"{ref.sha256[:12]}…, {ref.bytes:,} bytes", code=True)


def _founded(who: str, op: Any, history: History) -> Told:
    return Told(
        f"The federation {op.name} was founded by {organisation_name(op.organisation)}, with "
        f"{len(op.invitations)} invitations.",
        (
            Fact("Changes need", f"{op.policy.endorsements} organisations"),
            Fact("Log key", f"{op.log_key.public[:16]}…", code=True),
        ),
    )


def _succeeded(who: str, op: Any, history: History) -> Told:
    return Told(
        f"The federation {op.name} goes on in this log, which {organisation_name(op.organisation)} "
        f"keeps: it takes over from federation {op.predecessor.federation[:12]} at its last final "
        f"checkpoint, signed by {len(op.endorsements)} stewards.",
        (
            Fact("Old log", op.predecessor.federation, code=True),
            Fact("Entries taken over", f"{op.predecessor.size:,}"),
            Fact("Log key", f"{op.log_key.public[:16]}…", code=True),
        ),
    )


def _carried(who: str, op: Any, history: History) -> Told:
    counts = (
        (len(op.members), "members"),
        (len(op.keys), "ended keys"),
        (len(op.cells), "cells with their spend"),
        (len(op.datasets), "datasets"),
    )
    what = ", ".join(f"{count:,} {name}" for count, name in counts if count)
    return Told(f"{who} carried over {what} from the old log, as the hospitals had signed.")


def _joined(who: str, op: Any, history: History) -> Told:
    return Told(
        f"{who} joined with keys made on its own machine.",
        (
            Fact("Entry key", f"{op.keys.entry.public[:16]}…", code=True),
            Fact("Invitation", op.invitation[:12], code=True),
        ),
    )


def _change(who: str, op: Any, history: History) -> Told:
    change = op.change
    if change.kind == "invite":
        what = f"to invite {organisation_name(change.invitation.organisation)}"
    elif change.kind == "rekey":
        what = f"new keys for {change.member}"
    elif change.kind == "withdraw":
        what = f"to withdraw invitation {change.invitation[:12]}"
    elif change.kind == "expel":
        what = f"to expel {organisation_name(change.organisation)}"
    else:
        what = "another policy"
    return Told(f"{who} proposed {what}, which counts as its organisation's endorsement.")


def _endorsed(who: str, op: Any, history: History) -> Told:
    return Told(f"{who} endorsed a proposed change.", (Fact("Change", op.change[:12], code=True),))


def _revoked(who: str, op: Any, history: History) -> Told:
    since = "" if op.compromised_since_ms is None else " Entries since then are disputed."
    return Told(f"{who} ended the keys of {op.member}.{since}")


def _conflicted(who: str, op: Any, history: History) -> Told:
    found = parse_leaf(decode_b64(op.first)).body
    return Told(
        f"{who} showed two entries that {found.author}'s key signed for one place of its chain. The "
        "key ended here.",
        (
            Fact("Key", found.key[:12], code=True),
            Fact("Place in its chain", f"{found.seq:,}"),
        ),
    )


def _activated(who: str, op: Any, history: History) -> Told:
    return Told(
        f"{who} activated protocol {op.version}: a finality quorum of hospitals had said that "
        "their software knows it, and its rules hold from the next entry on."
    )


def _cell(who: str, op: Any, history: History) -> Told:
    return Told(
        f"{who} promised its patients of cell {op.cell} at most epsilon "
        f"{op.epsilon_micro / 1e6:g} for ever.",
        (
            Fact("Patients", f"about {op.declared_patients:,} (declared)"),
            Fact("Delta", f"{op.delta_e15 / 1e15:.3g}"),
            Fact("Block", f"{op.block}, {op.half} half"),
        ),
    )


def _limited(who: str, op: Any, history: History) -> Told:
    most = f"at most epsilon {op.epsilon_micro / 1e6:g}" if op.epsilon_micro else "nothing"
    return Told(
        f"{who} lets {in_words(op.purpose)} use {most} of what the patients of cell {op.cell} were "
        "promised.",
        (Fact("Gates", f"{op.g_max} in lane G, {op.r_max} in lane R (units of 2^-40)"),),
    )


def _registered(who: str, op: Any, history: History) -> Told:
    return Told(
        f"{who} offered dataset {op.dataset}: about {op.declared_train + op.declared_test:,} "
        f"{op.unit}s, of which {op.declared_test:,} for measuring.",
        (
            _dataset(op.dataset),
            _blob("Schema", op.schema_),
            Fact("Snapshot root", f"{op.snapshot[:16]}… (freshly salted)", code=True),
        ),
    )


def _withdrawn(who: str, op: Any, history: History) -> Told:
    return Told(
        f"{who} withdrew dataset {op.dataset}: {in_words(op.reason)}. Nothing uses it after this.",
        (_dataset(op.dataset),),
    )


def _statistics(who: str, op: Any, history: History) -> Told:
    return Told(
        f"{who} let its node release {op.size:,} noisy statistics of {op.dataset}, once, and paid for "
        "them from the budget of the patients kept for training.",
        (
            _dataset(op.dataset),
            _blob("Question", op.question),
            Fact(
                "Noise", f"{op.noise_sd / op.sensitivity:.2f} of what one patient changes at most"
            ),
        ),
    )


def _statistics_told(who: str, op: Any, history: History) -> Told:
    return Told(
        f"{who} released the noisy statistics that its steward had allowed. Every member may read them.",
        (_blob("Numbers", op.result), Fact("Allowed by", op.reservation[:12], code=True)),
    )


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
            _blob("Specification", op.spec),
        ),
    )


def _approved(who: str, op: Any, history: History) -> Told:
    name, fact = _experiment(history, op.experiment)
    return Told(
        f"{who} approved {name} for dataset {op.dataset}, up to epsilon "
        f"{op.epsilon_max_micro / 1e6:g}.",
        (fact, _dataset(op.dataset)),
    )


def _refused(who: str, op: Any, history: History) -> Told:
    name, fact = _experiment(history, op.experiment)
    return Told(
        f"{who} refused {name} for dataset {op.dataset}: {in_words(op.reason)}.",
        (fact, _dataset(op.dataset)),
    )


def _stopped(who: str, op: Any, history: History) -> Told:
    name, fact = _experiment(history, op.experiment)
    return Told(f"{who} ended {name}: {in_words(op.reason)}.", (fact,))


def _completed(who: str, op: Any, history: History) -> Told:
    name, fact = _experiment(history, op.experiment)
    return Told(f"{name} ran to the end of its plan.", (fact, _blob("Model", op.model)))


def _released(who: str, op: Any, history: History) -> Told:
    name, fact = _experiment(history, op.experiment)
    return Told(f"The model of {name} may be handed out.", (fact, _blob("Model", op.model)))


def _downloaded(who: str, op: Any, history: History) -> Told:
    name, fact = _experiment(history, op.experiment)
    return Told(f"{speaker(op.reader, history)} took the model of {name}.", (fact,))


def _opened(who: str, op: Any, history: History) -> Told:
    name, fact = _experiment(history, op.experiment)
    kinds = {"train": "trains", "evaluate": "measures the model", "baseline": "measures baselines"}
    return Told(
        f"{who} opened round {op.round} of {name}, which {kinds[op.kind]} with "
        f"{len(op.cohort)} datasets" + (f" (attempt {op.attempt})." if op.attempt > 1 else "."),
        (fact, Fact("Cohort", ", ".join(op.cohort)), _blob("From model", op.model)),
    )


def _reserved(who: str, op: Any, history: History) -> Told:
    name, fact = _experiment(history, op.experiment)
    charged = ", ".join(f"{c.cell}: μ² {c.g / CHARGE_UNIT:.4g}" for c in op.charges)
    return Told(
        f"{who} reserved the most that {name} may cost dataset {op.dataset}, before any data was "
        "touched.",
        (fact, _dataset(op.dataset), Fact("Reserved", charged)),
    )


def _budget_refused(who: str, op: Any, history: History) -> Told:
    name, fact = _experiment(history, op.experiment)
    return Told(
        f"{who} did not let dataset {op.dataset} into {name}: {in_words(op.reason)}.",
        (fact, _dataset(op.dataset)),
    )


def _settled(who: str, op: Any, history: History) -> Told:
    name, fact = _experiment(history, op.experiment)
    used = ", ".join(f"{u.steps} × {u.purpose.replace('_', ' ')}" for u in op.used) or "nothing"
    return Told(
        f"{who} settled {name} for dataset {op.dataset}: what was not used is given back.",
        (fact, _dataset(op.dataset), Fact("Used", used)),
    )


def _update(who: str, op: Any, history: History) -> Told:
    name, fact = _experiment(history, op.experiment)
    if op.masked is not None:
        return Told(
            f"{who} sent its masked update for round {op.round} of {name}: a noisy vector over the "
            f"{op.dataset} patients that opens only in the sum with the others', "
            f"{op.update.bytes:,} bytes.",
            (fact, _dataset(op.dataset), _blob("Masked update", op.update)),
        )
    return Told(
        f"{who} sent its update for round {op.round} of {name}: one noisy vector over the "
        f"{op.dataset} patients, {op.update.bytes:,} bytes. It costs each of them at most what was "
        "reserved.",
        (fact, _dataset(op.dataset), _blob("Update", op.update)),
    )


def _update_refused(who: str, op: Any, history: History) -> Told:
    return Told(f"{who} left an update out of the sum: {in_words(op.reason)}.")


def _aggregated(who: str, op: Any, history: History) -> Told:
    name, fact = _experiment(history, op.experiment)
    return Told(
        f"Round {op.round} of {name} ended in the exact sum of {len(op.updates)} updates.",
        (fact, _blob("Sum", op.aggregate), _blob("Model after it", op.model)),
    )


def _closed(who: str, op: Any, history: History) -> Told:
    name, fact = _experiment(history, op.experiment)
    why = "too few answered" if op.reason == "quorum_missed" else in_words(op.reason)
    return Told(f"Round {op.round} of {name} ended without a sum: {why}.", (fact,))


def _advertised(who: str, op: Any, history: History) -> Told:
    name, fact = _experiment(history, op.experiment)
    return Told(
        f"{who} offered fresh keys to mask its vector in round {op.round} of {name}.",
        (fact, _dataset(op.dataset), Fact("Context", f"{op.context[:16]}…", code=True)),
    )


def _shared(who: str, op: Any, history: History) -> Told:
    name, fact = _experiment(history, op.experiment)
    return Told(
        f"{who} divided the secrets of its masks in round {op.round} of {name} among the others, "
        "sealed for each.",
        (fact, _dataset(op.dataset), _blob("Sealed shares", op.shares)),
    )


def _advanced(who: str, op: Any, history: History) -> Told:
    name, fact = _experiment(history, op.experiment)
    what = {
        "share": "divides the secrets of its masks among",
        "mask": "sums masked vectors of",
        "unmask": "takes as the sum that of",
    }
    return Told(
        f"Round {op.round} of {name} {what[op.phase]} {len(op.datasets)} datasets.",
        (fact, Fact("Datasets", ", ".join(op.datasets))),
    )


def _agreed(who: str, op: Any, history: History) -> Told:
    name, fact = _experiment(history, op.experiment)
    return Told(
        f"{who} signed whose vectors are in the sum of round {op.round} of {name}.",
        (fact, _dataset(op.dataset), Fact("Survivors", f"{op.survivors[:16]}…", code=True)),
    )


def _revealed(who: str, op: Any, history: History) -> Told:
    name, fact = _experiment(history, op.experiment)
    gone = [share.secret for share in op.shares].count("key")
    return Told(
        f"{who} revealed its shares that open the sum of round {op.round} of {name}, and no single "
        "vector.",
        (
            fact,
            _dataset(op.dataset),
            Fact("Shares", f"{len(op.shares) - gone} in the sum, {gone} dropped out"),
        ),
    )


def _reviewed(who: str, op: Any, history: History) -> Told:
    finding = op.finding.replace("_", " ")
    return Told(f"{who} examined the log up to {op.size:,} entries: {finding}.")


def _audited(who: str, op: Any, history: History) -> Told:
    measured, bound = op.measured_ppm / 10**4, op.bound_ppm / 10**4
    interval = f"{op.low_ppm / 10**4:.2f} to {op.high_ppm / 10**4:.2f} %"
    data = op.data.replace("_", " ")
    verdict = "as proved" if op.finding == "as_proved" else "AGAINST the proof"
    if op.kind == "residuals":
        what = (
            f"tested its training code on {data} rows: over {op.samples:,} values the noise was "
            f"{measured:.2f} % ({interval}) of the planned deviation"
        )
    else:
        what = (
            f"attacked the released model with {op.samples:,} {data} records: {measured:.2f} % "
            f"({interval}) of members found at 1 % false alarms, where the proof allows {bound:.2f} %"
        )
    return Told(f"{who} {what}: {verdict}.")


def _ready(who: str, op: Any, history: History) -> Told:
    return Told(f"{who} follows, verifies and witnesses from here on.")


def _resumed(who: str, op: Any, history: History) -> Told:
    return Told(f"{who} came back after a restart.")


def _time(who: str, op: Any, history: History) -> Told:
    return Told("The coordinator let time pass, so that a deadline could take effect.")


def _rotated(who: str, op: Any, history: History) -> Told:
    return Told(f"{who} changed its keys, with the old ones in hand.")


def _fork(who: str, op: Any, history: History) -> Told:
    return Told(f"{who} reported two signed checkpoints that no one history explains.")


def _receipt_broken(who: str, op: Any, history: History) -> Told:
    return Told(f"{who} reported a signed receipt for an entry that the log did not keep.")


_TELLERS: dict[str, Callable[[str, Any, History], Told]] = {
    "federation.founded": _founded,
    "federation.succeeded": _succeeded,
    "federation.carried": _carried,
    "member.joined": _joined,
    "change.proposed": _change,
    "change.endorsed": _endorsed,
    "key.rotated": _rotated,
    "key.revoked": _revoked,
    "key.conflicted": _conflicted,
    "node.ready": _ready,
    "node.resumed": _resumed,
    "protocol.activated": _activated,
    "time.noted": _time,
    "fork.reported": _fork,
    "receipt.broken": _receipt_broken,
    "cell.registered": _cell,
    "purpose.limited": _limited,
    "dataset.registered": _registered,
    "dataset.withdrawn": _withdrawn,
    "experiment.proposed": _proposed,
    "experiment.approved": _approved,
    "experiment.refused": _refused,
    "experiment.stopped": _stopped,
    "experiment.completed": _completed,
    "model.released": _released,
    "model.downloaded": _downloaded,
    "round.opened": _opened,
    "round.aggregated": _aggregated,
    "round.closed": _closed,
    "masking.advertised": _advertised,
    "masking.shared": _shared,
    "masking.advanced": _advanced,
    "masking.agreed": _agreed,
    "masking.revealed": _revealed,
    "budget.reserved": _reserved,
    "budget.refused": _budget_refused,
    "budget.settled": _settled,
    "statistics.reserved": _statistics,
    "statistics.released": _statistics_told,
    "update.submitted": _update,
    "update.refused": _update_refused,
    "privacy.audited": _audited,
    "ledger.reviewed": _reviewed,
}

"""What happened, in the order in which people ask: an index over a log, built beside its fold.

The fold's state says what holds now; a report needs what was said and when. `History.note` takes
each entry once, with its verdict and the state after it. Nothing here judges: what is recorded as
applied is what the fold applied. Times are POSIX ms of the author's own clock (``at_ms``).
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from audit.verification.records import (
    CellRecord,
    DatasetRecord,
    Decision,
    Dispute,
    ExperimentRecord,
    Held,
    MemberRecord,
    Registration,
    RoundRecord,
    Said,
    SpendPoint,
    StatisticsRecord,
    UpdateRecord,
    VoidRecord,
)
from ledger.entries.operations.audits import LedgerReviewed, PrivacyAudited
from ledger.entries.operations.budgets import BudgetRefused, BudgetReserved, BudgetSettled
from ledger.entries.operations.datasets import CellRegistered, DatasetRegistered, DatasetWithdrawn
from ledger.entries.operations.experiments import (
    ExperimentApproved,
    ExperimentCompleted,
    ExperimentProposed,
    ExperimentRefused,
    ExperimentStopped,
    ModelDownloaded,
    ModelReleased,
)
from ledger.entries.operations.federation import (
    ChangeEndorsed,
    ChangeProposed,
    ExpelChange,
    FederationFounded,
    Policy,
)
from ledger.entries.operations.log import ForkReported, ReceiptBroken
from ledger.entries.operations.masking import (
    MaskingAdvanced,
    MaskingAdvertised,
    MaskingAgreed,
    MaskingRevealed,
    MaskingShared,
)
from ledger.entries.operations.members import KeyRevoked, MemberJoined
from ledger.entries.operations.rounds import (
    RoundAggregated,
    RoundClosed,
    RoundOpened,
    UpdateRefused,
    UpdateSubmitted,
)
from ledger.entries.operations.statistics import StatisticsReleased, StatisticsReserved
from ledger.entries.operations.succession import FederationCarried, FederationSucceeded
from ledger.formats.keys import key_id
from ledger.rules.budget import steps_stated
from ledger.rules.log import Sequenced
from ledger.rules.state import State
from privacy.filters import Spend


@dataclass
class History:
    """The index. ``note`` each entry in order; then read.

    Attributes:
        voids: entries without effect, by index.
        chains: index of each entry of a key's chain, by key id.
        log_times: the log's time after each entry.
        keys: index at which each entry key was admitted, by key id.
        cosigned: sizes of finals and the POSIX seconds by which a quorum had cosigned each, once they are
            judged.
        witness_keys: every witness key that was ever enrolled, in hex.
        policies: each policy, and the entry after which it was in force.
        carried_spend: what cells had spent in the log that this one took over from.
        carried_parts: the same by cell and purpose.
        carried_periods: of those whose promise renews: the period in which that counts here, and what
            all before it had been charged in both lanes, this included.
    """

    members: dict[str, MemberRecord] = field(default_factory=dict)
    datasets: dict[str, DatasetRecord] = field(default_factory=dict)
    registrations: dict[str, Registration] = field(default_factory=dict)
    cells: dict[str, CellRecord] = field(default_factory=dict)
    experiments: dict[str, ExperimentRecord] = field(default_factory=dict)
    statistics: dict[str, StatisticsRecord] = field(default_factory=dict)
    reviews: list[tuple[Said, LedgerReviewed]] = field(default_factory=list)
    audits: list[tuple[Said, PrivacyAudited]] = field(default_factory=list)
    forks: list[tuple[Said, ForkReported]] = field(default_factory=list)
    broken_receipts: list[tuple[Said, ReceiptBroken]] = field(default_factory=list)
    compromises: list[tuple[Said, KeyRevoked]] = field(default_factory=list)
    voids: dict[int, VoidRecord] = field(default_factory=dict)
    chains: dict[str, array[int]] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)
    cosigned: tuple[tuple[int, int], ...] = ()
    witness_keys: set[str] = field(default_factory=set)
    log_times: array[int] = field(default_factory=lambda: array("q"))
    policies: list[tuple[int, Policy]] = field(default_factory=list)
    carried_spend: dict[str, Spend] = field(default_factory=dict)
    carried_parts: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    carried_periods: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    _updates: dict[str, tuple[RoundRecord, str]] = field(default_factory=dict)
    _key_count: int = 0

    def note(self, item: Sequenced, state: State) -> None:
        """Take the next entry.

        Args:
            item: the entry with its verdict.
            state: after it.
        """
        body = item.entry.body
        author = state.members.get(body.author)
        said = Said(
            item.index,
            item.entry.hash,
            body.author,
            author.organisation if author else "",
            body.at_ms,
            state.log_time,
        )
        self.log_times.append(state.log_time)
        self.chains.setdefault(body.key, array("q")).append(item.index)
        if item.outcome.void is not None:
            self.voids[item.index] = VoidRecord(said, body.op, item.outcome.void)
            if isinstance(body.op, UpdateSubmitted):
                self._void_update(said, body.op, item.outcome.void)
        else:
            known = _RECORDERS.get(type(body.op))
            if known is not None:
                known(self, said, body.op, state)
        if len(state.keys) != self._key_count:
            self._new_keys(item.index, state)
        if not self.policies or self.policies[-1][1] is not state.policy:
            self.policies.append((item.index, state.policy))

    def disputes(self) -> tuple[Dispute, ...]:
        """Every compromise date that was stated, with the entries that it puts in doubt."""
        return tuple(self._dispute(said, op) for said, op in self.compromises)

    def _dispute(self, said: Said, op: KeyRevoked) -> Dispute:
        since = op.compromised_since_ms or 0
        # The clock of a thief is the thief's. Log time is not; but it only says "not before", and stands
        # still while the coordinator says nothing. A quorum that had cosigned an entry by then saw it.
        times = self.log_times
        seen = max((size for size, at_s in self.cosigned if at_s * 1000 < since), default=0)
        doubtful = []
        for kid in self.members[op.member].keys:
            for index in self.chains.get(kid, ()):
                after = bisect_right(times, times[index])
                until = times[after] if after < len(times) else since
                if seen <= index <= said.index and until >= since:
                    doubtful.append(index)
        return Dispute(said, op.member, since, tuple(sorted(doubtful)))

    def policies_between(self, start: int, stop: int) -> list[Policy]:
        """The policies that were in force after one or more of these entries, ``stop`` left out."""
        ends = [index for index, _ in self.policies[1:]] + [stop]
        return [
            policy
            for (begin, policy), end in zip(self.policies, ends, strict=True)
            if begin < stop and end > start
        ]

    # --- one small method for each kind of fact ---------------------------------------------------

    def _founded(self, said: Said, op: FederationFounded, state: State) -> None:
        self._member(said, op.organisation, "coordinator")

    def _succeeded(self, said: Said, op: FederationSucceeded, state: State) -> None:
        self._member(said, op.organisation, "coordinator")

    def _carried(self, said: Said, op: FederationCarried, state: State) -> None:
        for member in op.members:
            record = MemberRecord(said, member.handle, member.organisation, member.role, {})
            self.members[member.handle] = record
        for cell in op.cells:
            spend = Spend(cell.g, cell.r, cell.g_overflowed, cell.r_overflowed)
            point = SpendPoint(said.index, said.at_ms, spend)
            name = cell.terms.cell
            owner = replace(said, organisation=cell.organisation)
            self.cells[name] = CellRecord(owner, cell.terms, [point])
            self.carried_spend[name] = spend
            periods = state.cells[name].periods
            if periods is not None:
                self.carried_periods[name] = periods.number, periods.total_g, periods.total_r
            for part in cell.purposes:
                self.carried_parts[name, part.purpose] = part.g, part.r
        for dataset in op.datasets:
            name = dataset.terms.dataset
            owner = replace(said, author=dataset.node, organisation=dataset.organisation)
            version = Registration(owner, dataset.terms)
            self.datasets[name] = DatasetRecord(name, dataset.organisation, [version])
            self.registrations[dataset.registration] = version
            if dataset.withdrawn:
                self.datasets[name].withdrawn = (owner, "other")

    def _joined(self, said: Said, op: MemberJoined, state: State) -> None:
        member = state.members[said.author]
        self._member(said, member.organisation, member.role)

    def _member(self, said: Said, organisation: str, role: str) -> None:
        self.members[said.author] = MemberRecord(said, said.author, organisation, role, {})

    def _cell(self, said: Said, op: CellRegistered, state: State) -> None:
        self.cells[op.cell] = CellRecord(said, op)

    def _dataset(self, said: Said, op: DatasetRegistered, state: State) -> None:
        record = self.datasets.setdefault(op.dataset, DatasetRecord(op.dataset, said.organisation))
        version = Registration(said, op)
        record.versions.append(version)
        self.registrations[said.hash] = version

    def _withdrawn(self, said: Said, op: DatasetWithdrawn, state: State) -> None:
        self.datasets[op.dataset].withdrawn = (said, op.reason)

    def _changed(self, said: Said, op: ChangeProposed | ChangeEndorsed, state: State) -> None:
        change = said.hash if isinstance(op, ChangeProposed) else op.change
        pending = state.changes[change]
        if pending.effective_at != said.index or not isinstance(pending.change, ExpelChange):
            return
        for record in self.datasets.values():
            if record.organisation == pending.change.organisation and record.withdrawn is None:
                record.withdrawn = (said, "expelled")

    def _statistics(self, said: Said, op: StatisticsReserved, state: State) -> None:
        self.statistics[said.hash] = StatisticsRecord(said, op)
        for charge in op.charges:
            point = SpendPoint(said.index, said.at_ms, state.cells[charge.cell].spend)
            self.cells[charge.cell].points.append(point)

    def _statistics_told(self, said: Said, op: StatisticsReleased, state: State) -> None:
        self.statistics[op.reservation].released = (said, op.result)

    def _proposed(self, said: Said, op: ExperimentProposed, state: State) -> None:
        sites = {site.dataset: self.registrations[site.registration] for site in op.plan.sites}
        self.experiments[said.hash] = ExperimentRecord(said, op, sites)

    def _approved(self, said: Said, op: ExperimentApproved, state: State) -> None:
        yes = Decision(said, op.dataset, True, op.epsilon_max_micro, op.until_ms)
        self.experiments[op.experiment].decisions.append(yes)

    def _refused(self, said: Said, op: ExperimentRefused, state: State) -> None:
        no = Decision(said, op.dataset, False, reason=op.reason)
        self.experiments[op.experiment].decisions.append(no)

    def _stopped(self, said: Said, op: ExperimentStopped, state: State) -> None:
        self.experiments[op.experiment].stopped = (said, op.reason)

    def _completed(self, said: Said, op: ExperimentCompleted, state: State) -> None:
        self.experiments[op.experiment].completed = (said, op.model)

    def _released(self, said: Said, op: ModelReleased, state: State) -> None:
        self.experiments[op.experiment].released = (said, op.model)

    def _downloaded(self, said: Said, op: ModelDownloaded, state: State) -> None:
        self.experiments[op.experiment].downloads.append((said, op.reader))

    def _opened(self, said: Said, op: RoundOpened, state: State) -> None:
        record = RoundRecord(said, op)
        self.experiments[op.experiment].rounds.append(record)
        current = state.experiments[op.experiment].round
        if current is not None and current.masking is not None:
            record.masked = current

    def _masking(
        self,
        said: Said,
        op: MaskingAdvertised | MaskingShared | MaskingAdvanced | MaskingAgreed | MaskingRevealed,
        state: State,
    ) -> None:
        self.experiments[op.experiment].rounds[-1].masked = state.experiments[op.experiment].round

    def _reserved(self, said: Said, op: BudgetReserved, state: State) -> None:
        self.experiments[op.experiment].held[op.dataset] = Held(said, op)
        self._spent(said, op.experiment, op.dataset, state)

    def _budget_refused(self, said: Said, op: BudgetRefused, state: State) -> None:
        self.experiments[op.experiment].node_refusals.append((said, op))

    def _settled(self, said: Said, op: BudgetSettled, state: State) -> None:
        self.experiments[op.experiment].held[op.dataset].settled = (said, op)
        self._spent(said, op.experiment, op.dataset, state)

    def _spent(self, said: Said, experiment: str, dataset: str, state: State) -> None:
        for charge in self.experiments[experiment].held[dataset].terms.charges:
            point = SpendPoint(said.index, said.at_ms, state.cells[charge.cell].spend)
            self.cells[charge.cell].points.append(point)

    def _submitted(self, said: Said, op: UpdateSubmitted, state: State) -> None:
        experiment = self.experiments[op.experiment]
        update = _update(said, op, None)
        experiment.all_updates.append(update)
        experiment.rounds[-1].updates[op.dataset] = update
        self._updates[said.hash] = (experiment.rounds[-1], op.dataset)

    def _void_update(self, said: Said, op: UpdateSubmitted, reason: str) -> None:
        experiment = self.experiments.get(op.experiment)
        if experiment is not None:
            experiment.all_updates.append(_update(said, op, reason))

    def _update_refused(self, said: Said, op: UpdateRefused, state: State) -> None:
        under_way, dataset = self._updates[op.update]
        under_way.refused[dataset] = (said, op.reason)

    def _aggregated(self, said: Said, op: RoundAggregated, state: State) -> None:
        self.experiments[op.experiment].rounds[-1].aggregated = (said, op)

    def _closed(self, said: Said, op: RoundClosed, state: State) -> None:
        record = self.experiments[op.experiment].rounds[-1]
        record.closed, record.closed_reason = said, op.reason

    def _audited(self, said: Said, op: PrivacyAudited, state: State) -> None:
        self.audits.append((said, op))

    def _reviewed(self, said: Said, op: LedgerReviewed, state: State) -> None:
        self.reviews.append((said, op))

    def _revoked(self, said: Said, op: KeyRevoked, state: State) -> None:
        if op.compromised_since_ms is not None:
            self.compromises.append((said, op))

    def _forked(self, said: Said, op: ForkReported, state: State) -> None:
        self.forks.append((said, op))

    def _broken(self, said: Said, op: ReceiptBroken, state: State) -> None:
        self.broken_receipts.append((said, op))

    def _new_keys(self, index: int, state: State) -> None:
        for member in state.members.values():
            kid = key_id(member.keys.entry.alg, bytes.fromhex(member.keys.entry.public))
            if kid not in self.keys:
                self.keys[kid] = index
                self.members[member.handle].keys[kid] = index
            if member.keys.witness is not None:
                self.witness_keys.add(member.keys.witness.public)
        self._key_count = len(state.keys)


def _update(said: Said, op: UpdateSubmitted, void: str | None) -> UpdateRecord:
    used: dict[str, int] = dict(steps_stated(op.used))
    vector = op.update.sha256 if op.masked is None else op.masked.vector
    return UpdateRecord(said, op.dataset, op.round, op.attempt, op.update, vector, used, void)


# Rounds are matched by position: the fold applies an update, a sum or a closing only to the round
# that it has open, and that is the newest that it applied.
_RECORDERS: dict[type, Callable[[History, Said, Any, State], None]] = {
    FederationFounded: History._founded,
    FederationSucceeded: History._succeeded,
    FederationCarried: History._carried,
    ChangeProposed: History._changed,
    ChangeEndorsed: History._changed,
    MemberJoined: History._joined,
    CellRegistered: History._cell,
    DatasetRegistered: History._dataset,
    DatasetWithdrawn: History._withdrawn,
    StatisticsReserved: History._statistics,
    StatisticsReleased: History._statistics_told,
    ExperimentProposed: History._proposed,
    ExperimentApproved: History._approved,
    ExperimentRefused: History._refused,
    ExperimentStopped: History._stopped,
    ExperimentCompleted: History._completed,
    ModelReleased: History._released,
    ModelDownloaded: History._downloaded,
    RoundOpened: History._opened,
    BudgetReserved: History._reserved,
    BudgetRefused: History._budget_refused,
    BudgetSettled: History._settled,
    UpdateSubmitted: History._submitted,
    UpdateRefused: History._update_refused,
    RoundAggregated: History._aggregated,
    RoundClosed: History._closed,
    MaskingAdvertised: History._masking,
    MaskingShared: History._masking,
    MaskingAdvanced: History._masking,
    MaskingAgreed: History._masking,
    MaskingRevealed: History._masking,
    PrivacyAudited: History._audited,
    LedgerReviewed: History._reviewed,
    ForkReported: History._forked,
    ReceiptBroken: History._broken,
    KeyRevoked: History._revoked,
}

"""Doing what ``judging.py`` says: the pen, the register and the training thread in one pair of hands.

Everything here runs in the thread that owns the copy of the log. Order per operation: what must be
durable first is durable first (the charge before the reservation is said, the closed intents before
the settlement). After something was said nothing is judged until the copy has it, so that nothing is
said twice; a crash in between says the same bytes again (``ledger.entries.author``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from ledger.entries.operations.budgets import BudgetRefused, BudgetReserved
from ledger.entries.operations.rounds import MaskedVector, UpdateSubmitted
from ledger.entries.operations.values import BlobRef
from ledger.entries.operations.vocabulary import Operation
from ledger.errors import CallFailed
from ledger.exchange.home import Membership
from ledger.experiment.masked import vector_commitment
from ledger.rules.experiments import site_of
from ledger.rules.log import Sequenced
from node.data.hospital_key import load_hospital_key
from node.duties.accounting import Accounting
from node.duties.duty import (
    Adopt,
    CheckPlan,
    CloseAccount,
    Duty,
    Refuse,
    Reserve,
    Send,
    Settle,
    Train,
    Wait,
)
from node.duties.jobs import training_task
from node.duties.judging import duties, refusal_for
from node.duties.masker import Masker
from node.duties.masking import Advertise, Agree, MaskingDuty, ShareSecrets
from node.duties.plan_check import CheckedPlan, check
from node.duties.situation import LocalPolicy, Memory, Standing
from node.errors import (
    AllowanceStale,
    DatasetChanged,
    IntentRefused,
    IntentsClosed,
    JobRefused,
    NoLongerAsked,
    RoundFailed,
    SelfTestFailed,
    WorkerError,
)
from node.register.accounts import stated
from node.register.private import PrivateRegister
from node.training.process.trainer import Done, Mask, Task, TrainingThread

_UNHEARD_S = 30.0
"""How long to wait for what was said to appear in the log, before judging anew."""
_WORKER_DEATHS = 3

_log = structlog.get_logger("node")


class Actor:
    """Carries out duties; remembers what this process found out.

    Args:
        membership: of a node.
        private: the hospital's register.
        training: the thread that makes and carries updates.
        now_ms: this node's clock.
    """

    def __init__(
        self,
        membership: Membership,
        private: PrivateRegister,
        training: TrainingThread,
        now_ms: Callable[[], int],
    ) -> None:
        self._membership = membership
        self._replica = membership.replica
        self._private = private
        self._training = training
        self._now_ms = now_ms
        self._memory = Memory()
        self._checked: dict[str, CheckedPlan] = {}
        self._busy: set[tuple[str, str, int]] = set()
        self._uploaded: set[tuple[str, str, int]] = set()
        self._masker = Masker(membership, private)
        self._accounting = Accounting(membership, private)
        self._masked: dict[tuple[str, str, int, str], BlobRef] = {}
        self._deaths: dict[tuple[str, str, int], int] = {}
        self._split_key: bytes | None = None
        self._heard = 0
        self._said_at = 0.0
        self.waiting: tuple[Wait, ...] = ()
        self.rounds_done = 0
        self.train_seconds = 0.0

    @property
    def busy(self) -> tuple[tuple[str, str, int], ...]:
        """Rounds that are being trained or carried: experiment, dataset, round."""
        return tuple(sorted(self._busy))

    @property
    def listening(self) -> bool:
        """Whether something said has not come back yet: judging now would say it twice."""
        return self._replica.size <= self._heard and time.monotonic() < self.unheard_at

    @property
    def unheard_at(self) -> float:
        """When to stop waiting for what was said, on the monotonic clock."""
        return self._said_at + _UNHEARD_S

    def say(self, op: Operation) -> None:
        """Sign an operation and hand it to the coordinator.

        Raises:
            LedgerError: it may not have arrived; the same bytes are sent again next time.
        """
        receipt = self._membership.author.submit(op)
        self._heard = max(self._heard, receipt.index)
        self._said_at = time.monotonic()
        _log.info("entry.said", index=receipt.index, operation=op.type, void=receipt.reason)

    def hear(self, item: Sequenced) -> None:
        """Something that this node said is in its own copy, with its verdict."""
        op, void = item.entry.body.op, item.outcome.void
        if void is None:
            return
        _log.warning("entry.void", index=item.index, operation=op.type, reason=void)
        if isinstance(op, BudgetReserved):
            refusal = refusal_for(void)
            if refusal is not None:
                refuse = self._memory.refuse.set((op.experiment, op.dataset), refusal)
                self._memory = replace(self._memory, refuse=refuse)

    def work(self, standing: Standing, policy: LocalPolicy) -> None:
        """Do everything that can be done now.

        Args:
            standing: how well the copy is witnessed.
            policy: local.

        Raises:
            LedgerError, NodeError: it cannot be done now; nothing is lost.
        """
        again = True
        while again and not self.listening:
            again = False
            found = duties(
                self._replica.state,
                self._membership.config.handle,
                self._private.view,
                standing,
                replace(self._memory, busy=frozenset(self._busy)),
                policy,
                self._now_ms(),
            )
            self.waiting = tuple(duty for duty in found if isinstance(duty, Wait))
            for duty in found:
                again = self._do(duty) or again

    def done(self, done: Done) -> None:
        """The training thread is through with a task.

        Raises:
            CallFailed: the coordinator could not be reached for it; it will be tried again.
        """
        task, error = done.task, done.error
        self._busy.discard(task.key)
        if error is None:
            if task.mask is not None and done.sent is not None:
                self._masked[(*task.key, task.mask.context)] = done.sent
            elif task.plan.secure_aggregation is None:
                self._uploaded.add(task.key)
            if task.mask is None:
                self.rounds_done += 1
                self.train_seconds += done.seconds
            return
        _log.warning("round.failed", dataset=task.dataset, round=task.round, error=str(error))
        if isinstance(error, CallFailed):
            raise error
        if isinstance(error, SelfTestFailed):
            return  # the service waits: nothing was drawn, and a repaired node can still do it
        if isinstance(error, IntentsClosed | IntentRefused | AllowanceStale | NoLongerAsked):
            return  # something was taken back meanwhile: what is to do follows from the log
        if task.mask is not None and isinstance(error, RoundFailed):
            self._abandon(task.experiment, error)
            return
        if isinstance(error, WorkerError):
            self._deaths[task.key] = self._deaths.get(task.key, 0) + 1
            if self._deaths[task.key] < _WORKER_DEATHS:
                return
        key = (task.experiment, task.dataset)
        if isinstance(error, DatasetChanged):
            refuse = self._memory.refuse.set(key, "dataset_changed")
        elif isinstance(error, JobRefused):
            refuse = self._memory.refuse.set(key, "plan_mismatch")
        else:
            refuse = self._memory.refuse.set(key, "unavailable")
        self._memory = replace(self._memory, refuse=refuse)

    # --- inside ---------------------------------------------------------------------------------

    def _do(self, duty: Duty) -> bool:
        """Do one duty; True when what to do should be judged anew at once."""
        if isinstance(duty, CheckPlan):
            self._check_plan(duty.experiment)
            return True
        if isinstance(duty, Reserve):
            reserved = self._accounting.reserve(duty)
            if reserved is None:
                return True
            self.say(reserved)
        if isinstance(duty, Refuse):
            self._refuse(duty)
        elif isinstance(duty, Train):
            self._train(duty)
        elif isinstance(duty, Send):
            self._send(duty)
        elif isinstance(duty, MaskingDuty):
            self._phase(duty)
        elif isinstance(duty, Adopt):
            self._accounting.adopt(duty)
            return True
        elif isinstance(duty, Settle):
            self.say(self._accounting.settle(duty))
        elif isinstance(duty, CloseAccount):
            self._accounting.close(duty)
            self._forget_answers(duty.experiment, duty.dataset)
            return True
        return False

    def _phase(self, duty: MaskingDuty) -> None:
        """Do what a masked round's phase asks for, or take no further part in this attempt."""
        key = (duty.experiment, duty.dataset)
        try:
            if isinstance(duty, Advertise):
                op: Operation = self._masker.advertise(key)
            elif isinstance(duty, ShareSecrets):
                op = self._masker.share(key)
            elif isinstance(duty, Agree):
                op = self._masker.agree(key)
            else:
                op = self._masker.reveal(key)
        except RoundFailed as refused:
            self._abandon(duty.experiment, refused)
            return
        self.say(op)

    def _abandon(self, experiment_id: str, refused: RoundFailed) -> None:
        current = self._replica.state.experiments[experiment_id].round
        if current is not None and current.masking is not None:
            _log.warning("masking.refused", experiment=experiment_id[:12], reason=str(refused))
            abandoned = self._memory.abandoned | {current.masking.context}
            self._memory = replace(self._memory, abandoned=abandoned)

    def _check_plan(self, experiment_id: str) -> None:
        experiment = self._replica.state.experiments[experiment_id]
        checked = check(self._replica, experiment, self._membership.fetch)
        if checked.refused is not None:
            reason = str(checked.refused)
            _log.warning("plan.refused", experiment=experiment_id[:12], reason=reason)
        self._checked[experiment_id] = checked
        plans = self._memory.plans.set(experiment_id, checked.refused is None)
        self._memory = replace(self._memory, plans=plans)

    def _refuse(self, duty: Refuse) -> None:
        experiment = duty.experiment[:12]
        _log.warning("duty.refused", experiment=experiment, reason=duty.reason)
        self.say(
            BudgetRefused(
                type="budget.refused",
                experiment=duty.experiment,
                dataset=duty.dataset,
                reason=duty.reason,
            )
        )

    def _forget_answers(self, experiment: str, dataset: str) -> None:
        """The account is closed: nothing is sent for it any more."""
        answered = self._memory.answered
        gone = {answer for answer in answered if answer[:2] == (experiment, dataset)}
        self._memory = replace(self._memory, answered=answered - gone)

    def _train(self, duty: Train) -> None:
        key = (duty.experiment, duty.dataset, duty.round)
        experiment = self._replica.state.experiments[duty.experiment]
        site, current = site_of(experiment.plan, duty.dataset), experiment.round
        if key in self._busy or site is None or current is None:
            return
        task = training_task(
            duty,
            self._replica.state,
            site,
            current,
            spec=self._checked[duty.experiment].spec,
            private=self._private,
            home=self._membership.home.path,
            hospital_key=self._hospital_key(),
        )
        self._busy.add(key)
        self._training.put(task)

    def _send(self, duty: Send) -> None:
        key = (duty.experiment, duty.dataset, duty.round)
        if key in self._busy:
            return
        experiment = self._replica.state.experiments[duty.experiment]
        site, current = site_of(experiment.plan, duty.dataset), experiment.round
        if site is None or current is None:
            return
        masking = current.masking
        if masking is None:
            carried = self._private.view.outbox[key] if key in self._uploaded else None
        else:
            carried = self._masked.get((*key, masking.context))
        if carried is None:
            mask = None
            if masking is not None:
                mask = Mask(masking.context, self._masker.mask((duty.experiment, duty.dataset)))
            self._busy.add(key)
            model = experiment.model
            self._training.put(Task(*key, plan=experiment.plan, site=site, model=model, mask=mask))
            return
        view = self._private.view
        self.say(
            UpdateSubmitted(
                type="update.submitted",
                experiment=duty.experiment,
                dataset=duty.dataset,
                round=duty.round,
                attempt=duty.attempt,
                update=carried,
                used=stated(view.used_by((duty.experiment, duty.dataset))),
                intents=self._private.intents_root(duty.experiment, duty.dataset),
                masked=None if masking is None else self._bound(key, masking.context),
            )
        )
        answered = self._memory.answered | {(*key, duty.attempt)}
        self._memory = replace(self._memory, answered=answered)
        # A coordinator that lost the blob says so in an entry: the next attempt brings it again.
        self._uploaded.discard(key)
        if masking is not None:
            self._masked.pop((*key, masking.context), None)

    def _bound(self, key: tuple[str, str, int], context: str) -> MaskedVector:
        """What a masked vector is bound to: the round, and the vector that the outbox holds."""
        vector = self._membership.blobs.get(self._private.view.outbox[key])
        commitment = vector_commitment(self._hospital_key(), *key, vector)
        return MaskedVector(context=context, vector=commitment)

    def _hospital_key(self) -> bytes:
        if self._split_key is None:
            sealing = self._membership.keyring.sealing
            self._split_key = load_hospital_key(self._membership.home.path, sealing)
        return self._split_key

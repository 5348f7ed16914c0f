"""The node service: follow, verify, fold, judge, act. Outbound connections only.

One thread owns the copy of the log, the pen and every decision; a follower brings news, a training
thread makes updates, the local API reads the newest picture. The owner sleeps until one of them has
something: no step waits for a timer, except a pause that was asked for.

Promise: what is said follows from the verified copy (``judging.py``), and is said again after any crash
until the log has it. While the coordinator is away the node keeps its copy, its register and its local
API. A forked log ends all work at once; both notes are kept and reported. This process never imports
torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial

import structlog
from immutables import Map

from ledger.copies.evidence import known_fork
from ledger.entries.author import clock_ms
from ledger.entries.entry import Body, parse_entry
from ledger.entries.operations.log import NodeResumed
from ledger.errors import CallFailed, ForkDetected, LedgerError
from ledger.exchange.home import Membership
from ledger.exchange.receipts import known_broken
from ledger.formats.witness import Answer
from ledger.rules.log import Sequenced
from node.data.registration import Prepared, register
from node.data.saying import registrations_said, say_and_follow
from node.duties.actor import Actor
from node.duties.judging import approvals, still_asked
from node.duties.recovery import account_for_earlier_lives
from node.duties.situation import LocalPolicy, Standing
from node.errors import NodeError, SelfTestFailed
from node.following.cosigning import Cosigning
from node.following.follower import Follower, News, NoNews
from node.following.third_parties import ThirdParties
from node.register.accounts import DatasetRecord
from node.register.private import PrivateRegister
from node.register.promises import PromiseBook
from node.service.inbox import Call, Event, Inbox, Nudge, Stop
from node.service.listening import Listening
from node.service.picture import Picture
from node.service.settings import NodeSettings
from node.service.statements import Statements
from node.service.troubles import Troubles
from node.training.process.trainer import Done, Tested, Trainer, TrainingThread
from privacy.selfaudit.checks import Report

PAUSED = "paused"
"""While a file of this name is in the home, the node takes on nothing new and uses no data."""
_HOURS_CHECK_S = 60.0
_NEVER = float("inf")
_LIVES = (b'"round.opened"', b'"node.resumed"')
"""What a start reads again of its own copy."""

_log = structlog.get_logger("node")


class NodeService:
    """A hospital's node over an open membership. Call `run` in the thread that opened it.

    Args:
        membership: of a node.
        private: the hospital's register.
        settings: local.
        trainer: makes updates.
        now_ms: this node's clock.
    """

    def __init__(
        self,
        membership: Membership,
        private: PrivateRegister,
        settings: NodeSettings,
        trainer: Trainer,
        *,
        now_ms: Callable[[], int] = clock_ms,
    ) -> None:
        self.membership = membership
        self.private = private
        self.settings = settings
        self._now_ms = now_ms
        self._replica = membership.replica
        self._me = membership.config.handle
        self._inbox = Inbox()
        client = membership.client
        self._follower = Follower(client, self._inbox.put)
        self._training = TrainingThread(
            trainer,
            private,
            membership.blobs,
            client,
            self._inbox.put,
            now_ms,
            slot_ms=1000 * settings.reply_slot_s,
            still_asked=lambda *of: self._fork is None and still_asked(self._replica.state, *of),
            paused=self._paused,
        )
        self._actor = Actor(membership, private, self._training, now_ms)
        self._cosigning = Cosigning(
            membership.keyring.witness,
            self._me,
            membership.config.organisation,
            self._replica,
            client,
            settings.cosign_interval_s,
        )
        self._third_parties = ThirdParties(
            membership.keyring.witness, self._me, self._replica, now_ms, self._forked
        )
        self._statements = Statements(membership, private, self._actor, self._cosigning, now_ms)
        self._unaccounted_to: int | None = None
        self._troubles = Troubles()
        self._listening = Listening(
            membership,
            self._follower,
            self._troubles,
            settings.follow_wait_s,
            heard=self._hear_own,
            forked=self._forked,
            broken=self._promise_broken,
        )
        self._fork = known_fork(self._replica.store, self._replica.origin)
        broken = known_broken(self._replica)
        self._broken = None if broken is None else broken.said
        self._unsound: str | None = None
        self._stopping = False
        self._picture = self._draw()

    # --- from other threads ---------------------------------------------------------------------

    @property
    def picture(self) -> Picture:
        """The newest picture; safe from any thread."""
        return self._picture

    def stop(self) -> None:
        """End soon; safe from any thread and from a signal handler."""
        self._inbox.put(Stop())

    def pause(self, paused: bool) -> None:
        """Take on nothing new and use no data, or go on; survives a restart."""
        flag = self.membership.home.path / PAUSED
        if paused:
            flag.touch(mode=0o600)
        else:
            flag.unlink(missing_ok=True)
        self._inbox.put(Nudge())

    def register_dataset(self, prepared: Prepared, *, timeout_s: float = 120.0) -> DatasetRecord:
        """Register a prepared dataset; safe from any thread but the owner's.

        Raises:
            PromiseExceeded, RegistrationRefused, LedgerError: see ``registration.register``.
            TimeoutError: it did not come through in time.
        """

        def run() -> DatasetRecord:
            return register(
                prepared,
                self.private,
                state=lambda: self._replica.state,
                publish=self.membership.publish,
                say=partial(say_and_follow, self.membership, heard=self._hear_own),
                book=PromiseBook.named(self.settings.promises),
            )

        return self._inbox.call(run).result(timeout_s)

    def registrations_said(self, *, timeout_s: float = 120.0) -> tuple[tuple[str, int], ...]:
        """Snapshot and time of this hospital's registrations; safe from any thread but the owner's.

        Raises:
            TimeoutError: the node is busy for that long.
        """

        def run() -> tuple[tuple[str, int], ...]:
            organisation = self.membership.config.organisation
            return tuple(registrations_said(self._replica, self._replica.state, organisation))

        return self._inbox.call(run).result(timeout_s)

    def add_checkpoint(self, body: bytes, *, timeout_s: float = 30.0) -> Answer:
        """Answer a third party that asks for a cosignature; safe from any thread but the owner's.

        Raises:
            LedgerError: the copy cannot be written.
            TimeoutError: the node is busy for that long.
        """

        def run() -> Answer:
            stopped = None if self._fork is None else self._fork.reason
            return self._third_parties.add_checkpoint(body, stopped=stopped)

        return self._inbox.call(run).result(timeout_s)

    def newest_cosigned(self, path: str) -> bytes | None:
        """What this node cosigned last, for monitors; safe from any thread."""
        return self._third_parties.newest(path)

    # --- the owner's loop -----------------------------------------------------------------------

    def run(self) -> None:
        """Serve until `stop`.

        Raises:
            StoreError: the own copy or register cannot be written.
        """
        self._follower.start()
        self._training.start()
        self._listening.go_on()
        try:
            while not self._stopping:
                for event in self._inbox.arrived(self._patience()):
                    self._handle(event)
                self._advance()
                self._picture = self._draw()
                self._listening.go_on()
        finally:
            self._follower.close()
            self._training.close()
            _log.info("node.stopped", size=self._replica.size)

    def _patience(self) -> float | None:
        """Seconds until something must be done without news; None for ever."""
        now = time.monotonic()
        due = [_NEVER if self._listening.due is None else self._listening.due]
        if self._listening.reached:
            if self._fork is None:
                due.append(self._cosigning.due)
            if self._troubles.retry_at is not None:
                due.append(self._troubles.retry_at)
            if self._actor.listening:
                due.append(self._actor.unheard_at)
        if self._actor.waiting:
            due.append(now + _HOURS_CHECK_S)
        earliest = min(due)
        return None if earliest == _NEVER else max(0.0, earliest - now)

    def _handle(self, event: Event) -> None:
        if isinstance(event, News):
            self._listening.hear(event)
        elif isinstance(event, NoNews):
            self._listening.unreached(event.error, forked=self._fork is not None)
        elif isinstance(event, Done):
            if isinstance(event.error, SelfTestFailed):
                self._unsound = event.error.reason
            try:
                self._actor.done(event)
            except CallFailed as error:
                self._troubles.note("an update or a model cannot be carried now", error)
        elif isinstance(event, Tested):
            self._hear_selftest(event.report)
        elif isinstance(event, Call):
            event.run()
        elif isinstance(event, Stop):
            self._stopping = True

    def _hear_own(self, item: Sequenced) -> None:
        if item.entry.body.author != self._me:
            return
        op = item.entry.body.op
        if isinstance(op, NodeResumed) and op.nonce == self._statements.nonce:
            self._cosigning.resumed(item.index)
            self._unaccounted_to = item.index
        self._actor.hear(item)

    # --- acting ---------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Everything that can be done now."""
        if self._stopping or not self._listening.reached:
            return
        if self._fork is not None:
            report = partial(self._statements.report_fork, self._fork)
            self._attempt("the fork cannot be reported now", report)
            return
        self._attempt("cannot work now", self._work)
        # A witness that was restored or copied has a twin, and its memory is older than its word.
        if self._fork is None and not self.membership.author.copied:
            try:
                self._cosigning.cosign(self._now_ms())
            except ForkDetected as fork:
                self._forked(fork)

    def _attempt(self, what: str, step: Callable[[], None]) -> None:
        """Do a step unless one failed a moment ago."""
        if self._troubles.pausing:
            return
        try:
            step()
        except ForkDetected as fork:
            self._forked(fork)
        except (LedgerError, NodeError) as error:
            self._troubles.note(what, error)
        else:
            self._troubles.over()

    def _work(self) -> None:
        self._replica.require_readable()
        self.membership.eraser.look(self._replica.state)
        if self._unaccounted_to is not None:
            # Now, and not at the start: only a copy that reaches to this life's own statement, which
            # others vouch for before any data is used, holds all that earlier lives can have done.
            account_for_earlier_lives(
                self._replica.state,
                self._me,
                self.private,
                partial(self._said_between, stop=self._unaccounted_to),
                self._now_ms(),
            )
            self._unaccounted_to = None
        if not self._statements.greeted and not self._actor.listening:
            self._statements.greet()
        if self._statements.greeted:
            if not self._actor.listening:
                self._statements.report_conflicts()
                self._statements.tell_selftest()
                if self._broken is not None:
                    self.membership.report_broken(self._actor.say)
            self._actor.work(self._standing(), self._policy())

    def _said_between(self, start: int, stop: int) -> Iterator[tuple[int, Body]]:
        """Rounds and restarts in the own copy; other entries are not even parsed."""
        for index, row in enumerate(self._replica.store.rows(start, stop), start):
            if any(kind in row.body for kind in _LIVES):
                yield index, parse_entry(row.body, row.signature).body

    def _standing(self) -> Standing:
        final, state = self._replica.final, self._replica.state
        fresh = final.fresh((self._now_ms() - state.policy.max_age_ms) // 1000)
        times = {index: self._replica.cosigned_s(index) for index in approvals(state, self._me)}
        cosigned_s = Map({index: time_s for index, time_s in times.items() if time_s is not None})
        return Standing(final.size, fresh, self._cosigning.vouched, cosigned_s)

    def _policy(self) -> LocalPolicy:
        most = self.settings.epsilon_max
        hour = datetime.fromtimestamp(self._now_ms() / 1000).astimezone().hour
        return LocalPolicy(
            epsilon_max_micro=None if most is None else int(most * 10**6),
            paused=self._paused(),
            unsound=self._unsound is not None,
            working=self.settings.works_at(hour),
        )

    def _paused(self) -> bool:
        return (self.membership.home.path / PAUSED).exists()

    def _forked(self, fork: ForkDetected) -> None:
        if self._fork is None:
            _log.error("log.forked", reason=fork.reason)
            self._fork = fork

    def _promise_broken(self, said: str) -> None:
        self._broken = said

    def _hear_selftest(self, report: Report) -> None:
        """What the training code did on synthetic rows; a failure ends work until a restart."""
        self._statements.tested(report)
        self._unsound = report.failure
        if report.failure is None:
            _log.info("selftest.passed", residuals=report.residuals)
        else:
            _log.error("selftest.failed", reason=report.failure)

    def _overdue(self) -> str | None:
        """The first receipt whose deadline is over, while the coordinator answers without its entry."""
        for kept in self.membership.receipts.overdue:
            return f"entry {kept.hash[:12]} was promised at index {kept.index}, and is overdue"
        return None

    def _draw(self) -> Picture:
        replica = self._replica
        return Picture(
            state=replica.state,
            size=replica.size,
            final_size=replica.final.size,
            reached=self._listening.reached,
            problem=self._troubles.said,
            fork=None if self._fork is None else self._fork.reason,
            broken_promise=self._broken or self._overdue(),
            newer_protocol=replica.newer_protocol,
            unsound=self._unsound,
            vouched=self._statements.greeted and self._cosigning.vouched,
            paused=self._paused(),
            working_on=tuple(
                f"{dataset}: round {number} of experiment {experiment[:12]}"
                for experiment, dataset, number in self._actor.busy
            ),
            waiting=tuple(f"{wait.dataset}: {wait.why}" for wait in self._actor.waiting),
            rounds_done=self._actor.rounds_done,
            train_seconds=self._actor.train_seconds,
        )

"""The node service: follow, verify, fold, judge, act. Outbound connections only.

One thread owns the copy of the log, the pen and every decision; a follower brings news, a training
thread makes updates, the local API reads the newest picture. The owner sleeps until one of them has
something: no step waits for a timer, except a pause that was asked for.

Promise: what is said follows from the verified copy (``duty.py``), and is said again after any crash
until the log has it. While the coordinator is away the node keeps its copy, its register and its local
API. A forked log ends all work at once; both notes are kept and reported. This process never imports
torch.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TypeVar

import structlog
from immutables import Map

from ledger.copies.evidence import known_fork
from ledger.entries.author import clock_ms
from ledger.entries.entry import Body, parse_entry, parse_leaf
from ledger.entries.operations.log import ForkReported, NodeReady, NodeResumed
from ledger.errors import CallFailed, ForkDetected, LedgerError, RequestRefused
from ledger.exchange.client import Followed
from ledger.exchange.follow import REFILLING
from ledger.exchange.home import Membership
from ledger.exchange.receipts import known_broken
from ledger.formats.strict import decode_b64
from ledger.formats.witness import Answer
from ledger.rules.fold import PROTOCOLS
from ledger.rules.log import Sequenced
from ledger.rules.state import State
from node.data.registration import (
    Prepared,
    finish_registrations,
    register,
    registrations_said,
    say_and_follow,
)
from node.duties.actor import Actor
from node.duties.audited import residuals_audited
from node.duties.duty import LocalPolicy, Standing, approvals
from node.duties.recovery import account_for_earlier_lives
from node.errors import NodeError, SelfTestFailed, ServiceError
from node.following.cosigning import Cosigning
from node.following.follower import Follower, News, NoNews, Position
from node.following.offering import offer_copy
from node.following.third_parties import ThirdParties
from node.register.accounts import DatasetRecord
from node.register.private import PrivateRegister
from node.register.promises import PromiseBook
from node.service.settings import NodeSettings
from node.training.trainer import Done, Tested, Trainer, TrainingThread
from privacy.selfaudit.checks import Report

PAUSED = "paused"
"""While a file of this name is in the home, the node takes on nothing new and uses no data."""
_RETRY_S = 0.5
_LONGEST_RETRY_S = 30.0
_HOURS_CHECK_S = 60.0
_LARGE = 200
"""Entries in one answer from which on there may be more to come."""
_NEVER = float("inf")
_LIVES = (b'"round.opened"', b'"node.resumed"')
"""What a start reads again of its own copy."""

T = TypeVar("T")
_log = structlog.get_logger("node")


@dataclass(frozen=True, slots=True)
class Picture:
    """What the node knows at one moment, for the local API.

    Attributes:
        state: the fold of the own copy, of ``size`` entries.
        reached: whether the coordinator answered the last time.
        problem: what stands in the way of work now, or None.
        fork: what was found, or None.
        broken_promise: a signed receipt that the log did not keep, or is late to keep; or None.
        unsound: what the self-test of the training code found wrong, or None.
        newer_protocol: the protocol that the log has moved to and this software does not know.
        working_on: rounds that are being trained or sent, in words.
        waiting: what is waited for, in words.
    """

    state: State
    size: int
    final_size: int
    reached: bool
    problem: str | None
    fork: str | None
    broken_promise: str | None
    newer_protocol: int | None
    unsound: str | None
    vouched: bool
    paused: bool
    working_on: tuple[str, ...]
    waiting: tuple[str, ...]
    rounds_done: int
    train_seconds: float


@dataclass(frozen=True, slots=True)
class _Stop:
    """End."""


@dataclass(frozen=True, slots=True)
class _Nudge:
    """Look again: something outside the log changed."""


@dataclass(frozen=True, slots=True)
class _Call:
    """Run a function in the owner's thread."""

    run: Callable[[], None]


_Event = News | NoNews | Done | Tested | _Stop | _Nudge | _Call


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
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        client = membership.client
        self._follower = Follower(client, self._events.put)
        self._training = TrainingThread(
            trainer, private, membership.blobs, client, self._events.put, now_ms
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
        self._greeted = False
        self._nonce: str | None = None
        self._unaccounted_to: int | None = None
        self._follow_at: float | None = float("-inf")
        self._retry_at: float | None = None
        self._retry_s = _RETRY_S
        self._reached = False
        self._problem: str | None = None
        self._fork = known_fork(self._replica.store, self._replica.origin)
        self._fork_reported = False
        broken = known_broken(self._replica)
        self._broken = None if broken is None else broken.said
        self._unsound: str | None = None
        self._selftest: Report | None = None
        self._stopping = False
        self._picture = self._draw()

    # --- from other threads ---------------------------------------------------------------------

    @property
    def picture(self) -> Picture:
        """The newest picture; safe from any thread."""
        return self._picture

    def stop(self) -> None:
        """End soon; safe from any thread and from a signal handler."""
        self._events.put(_Stop())

    def pause(self, paused: bool) -> None:
        """Take on nothing new and use no data, or go on; survives a restart."""
        flag = self.membership.home.path / PAUSED
        if paused:
            flag.touch(mode=0o600)
        else:
            flag.unlink(missing_ok=True)
        self._events.put(_Nudge())

    def register_dataset(self, prepared: Prepared, *, timeout_s: float = 120.0) -> DatasetRecord:
        """Register a prepared dataset; safe from any thread but the owner's.

        Raises:
            PromiseExceeded, RegistrationRefused, LedgerError: see ``registration.register``.
            TimeoutError: it did not come through in time.
        """
        promises = self.settings.promises

        def run() -> DatasetRecord:
            return register(
                prepared,
                self.private,
                state=lambda: self._replica.state,
                publish=self.membership.publish,
                say=partial(say_and_follow, self.membership, heard=self._hear_own),
                book=None if promises is None else PromiseBook(promises),
            )

        return self._in_owner(run).result(timeout_s)

    def registrations_said(self, *, timeout_s: float = 120.0) -> tuple[tuple[str, int], ...]:
        """Snapshot and time of this hospital's registrations; safe from any thread but the owner's.

        Raises:
            TimeoutError: the node is busy for that long.
        """

        def run() -> tuple[tuple[str, int], ...]:
            organisation = self.membership.config.organisation
            return tuple(registrations_said(self._replica, self._replica.state, organisation))

        return self._in_owner(run).result(timeout_s)

    def add_checkpoint(self, body: bytes, *, timeout_s: float = 30.0) -> Answer:
        """Answer a third party that asks for a cosignature; safe from any thread but the owner's.

        Raises:
            LedgerError: the copy cannot be written.
            TimeoutError: the node is busy for that long.
        """

        def run() -> Answer:
            stopped = None if self._fork is None else self._fork.reason
            return self._third_parties.add_checkpoint(body, stopped=stopped)

        return self._in_owner(run).result(timeout_s)

    def newest_cosigned(self, path: str) -> bytes | None:
        """What this node cosigned last, for monitors; safe from any thread."""
        return self._third_parties.newest(path)

    def _in_owner(self, function: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except (LedgerError, NodeError) as error:
                future.set_exception(error)

        self._events.put(_Call(run))
        return future

    # --- the owner's loop -----------------------------------------------------------------------

    def run(self) -> None:
        """Serve until `stop`.

        Raises:
            StoreError: the own copy or register cannot be written.
        """
        self._follower.start()
        self._training.start()
        self._follow()
        try:
            while not self._stopping:
                self._wait_for_event()
                self._advance()
                self._picture = self._draw()
                self._follow()
        finally:
            self._follower.close()
            self._training.close()
            _log.info("node.stopped", size=self._replica.size)

    def _wait_for_event(self) -> None:
        try:
            event = self._events.get(timeout=self._patience())
        except queue.Empty:
            return
        self._handle(event)
        while not self._events.empty():
            self._handle(self._events.get())

    def _patience(self) -> float | None:
        """Seconds until something must be done without news; None for ever."""
        now = time.monotonic()
        due = [_NEVER if self._follow_at is None else self._follow_at]
        if self._reached:
            if self._fork is None:
                due.append(self._cosigning.due)
            if self._retry_at is not None:
                due.append(self._retry_at)
            if self._actor.listening:
                due.append(self._actor.unheard_at)
        if self._actor.waiting:
            due.append(now + _HOURS_CHECK_S)
        earliest = min(due)
        return None if earliest == _NEVER else max(0.0, earliest - now)

    def _handle(self, event: _Event) -> None:
        if isinstance(event, News):
            self._hear(event)
        elif isinstance(event, NoNews):
            self._unreached(event.error)
        elif isinstance(event, Done):
            if isinstance(event.error, SelfTestFailed):
                self._unsound = event.error.reason
            try:
                self._actor.done(event)
            except CallFailed as error:
                self._trouble("an update or a model cannot be carried now", error)
        elif isinstance(event, Tested):
            self._hear_selftest(event.report)
        elif isinstance(event, _Call):
            event.run()
        elif isinstance(event, _Stop):
            self._stopping = True

    # --- following ------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Let the follower ask on from here, if it waits for that and it is time."""
        if self._follow_at is not None and time.monotonic() >= self._follow_at:
            self._follow_at = None
            replica = self._replica
            # A first answer at once says that the copy is current, so that work can begin.
            wait_s = self.settings.follow_wait_s if self._reached else 0.0
            position = Position(replica.size, replica.finals_seen, replica.checkpoint, wait_s)
            self._follower.go_on(position)

    def _hear(self, news: News) -> None:
        back = not self._reached
        if back:
            _log.info("coordinator.reached", url=self.membership.config.url)
        self._reached = True
        self._follow_at = float("-inf")
        try:
            self._take(news.size, news.followed)
            if back or len(news.followed.leaves) >= _LARGE:
                # Judge the newest state only: rounds may have come and gone meanwhile.
                for item in self.membership.follow(0.0):
                    self._hear_own(item)
        except ForkDetected as fork:
            self._forked(fork)
            self._follow_at = time.monotonic() + _LONGEST_RETRY_S
        except LedgerError as error:
            self._trouble("the coordinator's answer does not verify", error)
            self._follow_at = self._retry_at

    def _unreached(self, error: LedgerError) -> None:
        if self._reached or self._problem is None:
            _log.warning("coordinator.unreached", error=str(error))
        self._reached = False
        self._problem = str(error)
        self._follow_at = float("-inf")
        if isinstance(error, RequestRefused) and error.error == REFILLING and self._fork is None:
            self._offer_copy()

    def _offer_copy(self) -> None:
        """The coordinator has lost its database: bring it what is here. Said again until it runs."""
        try:
            size = offer_copy(self.membership.client, self._replica, self.membership.blobs)
        except LedgerError as error:
            self._problem = f"the coordinator is being refilled, and did not take our copy: {error}"
            _log.warning("copy.refused", error=str(error))
        else:
            _log.info("copy.offered", size=size)

    def _take(self, asked: int, news: Followed) -> None:
        """Let the copy judge and keep what came; trim what it has by now."""
        taken: list[Sequenced] = []
        if news.checkpoint is not None:
            known = self._replica.size - asked
            taken = self._replica.extend(news.leaves[known:], news.checkpoint)
        for final in news.finals:
            self._replica.accept_final(final)
        for item in taken:
            self._hear_own(item)
        for broken in self.membership.receipts.look():
            _log.error("receipt.broken", way=broken.way, index=broken.index, said=broken.said)
            self._broken = broken.said

    def _hear_own(self, item: Sequenced) -> None:
        if item.entry.body.author != self._me:
            return
        op = item.entry.body.op
        if isinstance(op, NodeResumed) and op.nonce == self._nonce:
            self._cosigning.resumed(item.index)
            self._unaccounted_to = item.index
        self._actor.hear(item)

    # --- acting ---------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Everything that can be done now."""
        if self._stopping or not self._reached:
            return
        if self._fork is not None:
            self._attempt("the fork cannot be reported now", self._report_fork)
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
        if self._retry_at is not None and time.monotonic() < self._retry_at:
            return
        try:
            step()
        except ForkDetected as fork:
            self._forked(fork)
        except (LedgerError, NodeError) as error:
            self._trouble(what, error)
        else:
            self._problem, self._retry_at, self._retry_s = None, None, _RETRY_S

    def _trouble(self, what: str, error: LedgerError | NodeError) -> None:
        """Note it, and try again after a growing pause."""
        self._problem = f"{what}: {error}"
        _log.warning("node.trouble", what=what, error=str(error))
        self._retry_at = time.monotonic() + self._retry_s
        self._retry_s = min(2 * self._retry_s, _LONGEST_RETRY_S)

    def _work(self) -> None:
        self._replica.require_readable()
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
        if not self._greeted and not self._actor.listening:
            self._greet()
        if self._greeted:
            if not self._actor.listening:
                self._report_conflicts()
                self._tell_selftest()
            if self._broken is not None:
                self.membership.report_broken()
            self._actor.work(self._standing(), self._policy())

    def _greet(self) -> None:
        """Be ready from the first start on; say after every other one that this is a restart."""
        state = self._replica.state
        member = state.members.get(self._me)
        if member is None or member.revoked_at is not None:
            raise ServiceError(
                f"{self._me} has not joined, or its keys were revoked; "
                "run consilium member join, or ask a steward"
            )
        self.membership.author.resend()
        finish_registrations(self.private, state)
        if state.succession is not None and not member.ready:
            self._bring_schemas(state)
        if member.ready and member.protocol < max(PROTOCOLS):
            self._actor.say(_ready())
        if member.ready:
            self._cosigning.restarted()
            if self._nonce is None:
                self._nonce = self.private.note_restart(self._now_ms())
            self._actor.say(NodeResumed(type="node.resumed", nonce=self._nonce))
        else:
            self._actor.say(_ready())
        self._greeted = True

    def _said_between(self, start: int, stop: int) -> Iterator[tuple[int, Body]]:
        """Rounds and restarts in the own copy; other entries are not even parsed."""
        for index, row in enumerate(self._replica.store.rows(start, stop), start):
            if any(kind in row.body for kind in _LIVES):
                yield index, parse_entry(row.body, row.signature).body

    def _report_conflicts(self) -> None:
        """End keys that signed two entries for one place; their evidence is in the own copy.

        Not the own key: whoever has it besides will not be stopped by an entry that it signs itself.
        """
        own = self.membership.author.key
        for op in self._replica.unsettled():
            if parse_leaf(decode_b64(op.first)).body.key != own:
                self._actor.say(op)

    def _bring_schemas(self, state: State) -> None:
        """A log that took over names this node's schemas, and its coordinator may not hold them."""
        for dataset in state.datasets.values():
            ref = dataset.terms.schema_
            if dataset.node == self._me and self.membership.blobs.size(ref.sha256) is not None:
                self.membership.client.put_blob(self.membership.blobs.get(ref))

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

    def _report_fork(self) -> None:
        fork = self._fork
        if fork is None or self._fork_reported:
            return
        ours, theirs = map(self.membership.publish, fork.statements)
        self._actor.say(ForkReported(type="fork.reported", ours=ours, theirs=theirs))
        self._fork_reported = True

    def _hear_selftest(self, report: Report) -> None:
        """What the training code did on synthetic rows; a failure ends work until a restart."""
        self._selftest = report
        self._unsound = report.failure
        if report.failure is None:
            _log.info("selftest.passed", residuals=report.residuals)
        else:
            _log.error("selftest.failed", reason=report.failure)

    def _tell_selftest(self) -> None:
        if self._selftest is not None:
            self._actor.say(residuals_audited(self._selftest))
            self._selftest = None

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
            reached=self._reached,
            problem=self._problem,
            fork=None if self._fork is None else self._fork.reason,
            broken_promise=self._broken or self._overdue(),
            newer_protocol=replica.newer_protocol,
            unsound=self._unsound,
            vouched=self._greeted and self._cosigning.vouched,
            paused=self._paused(),
            working_on=tuple(
                f"{dataset}: round {number} of experiment {experiment[:12]}"
                for experiment, dataset, number in self._actor.busy
            ),
            waiting=tuple(f"{wait.dataset}: {wait.why}" for wait in self._actor.waiting),
            rounds_done=self._actor.rounds_done,
            train_seconds=self._actor.train_seconds,
        )


def _ready() -> NodeReady:
    """What this node says when it starts: that it witnesses, and the newest rules that it knows."""
    return NodeReady(type="node.ready", protocol=max(PROTOCOLS))

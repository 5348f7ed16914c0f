"""The sequencer: one thread that owns the log and decides the order of everything.

Promise: an entry is answered for only when it is durable, together with the signed checkpoint over it
(group commit: all that waits goes into one transaction). The same bytes again get the same answer. A
checkpoint is shown to nobody before it is stored; when storing fails, memory goes back to what is stored,
nothing more is signed, and a restart begins with what the store holds: so a write that was lost and one
that was stored but reported lost both end well. So it is with whatever nobody foresaw, once memory and
store may differ (the view says ``failed``); before, it is one's own. Opening takes in what is stored by the
same path that live entries take, all or what came after a snapshot (``opening``), and refuses a database
that was rolled back, also when a member showed that before the restart.

Not promised: that what members say is sensible. Admission and the fold are ``ledger``'s. Of an entry at a
place of a chain that another one has, the bytes are kept as evidence, once a key, and the coordinator says
``key.conflicted`` in the same transaction as what it takes then, its own key not excepted. Evidence too
long for an entry is kept, and left to a steward.

The coordinator's own operations are signed in this thread too, at their place in the order, so that its
chain never has a race. Cosignatures are stored here as well: one writer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from coordinator.errors import CoordinatorError, Mishap, NotSequencing, RolledBack
from coordinator.sequencing.batch import Taken, entry_or_refusal, row, sign_next
from coordinator.sequencing.checking import Checker
from coordinator.sequencing.cosignatures import collect
from coordinator.sequencing.feed import Batch, Feed
from coordinator.sequencing.head import HeadFile
from coordinator.sequencing.inbox import Call, Inbox, Say, Submit, Work, answer_no, mishap
from coordinator.sequencing.opening import Snapshots, check_signed, newest_note, open_log
from coordinator.sequencing.promises import Place, Promises
from coordinator.sequencing.quota import Quota, TokenBuckets
from coordinator.sequencing.view import View
from ledger.copies.evidence import ROLLBACK, Equivocations
from ledger.copies.leaves import read_leaves
from ledger.copies.snapshot import SnapshotFile
from ledger.copies.store import LogStore
from ledger.entries.author import clock_ms
from ledger.entries.entry import Entry, Seen, log_origin, verify_signature
from ledger.entries.operations.vocabulary import Operation
from ledger.errors import LedgerError, NotAdmitted, NotConsistent, StoreError
from ledger.exchange.messages import Receipt
from ledger.formats.checkpoint import Checkpoint, log_verifier, open_checkpoint, sign_checkpoint
from ledger.formats.keys import KeyRing
from ledger.rules.fold import protocol_of
from ledger.rules.log import Sequenced

_log = structlog.get_logger("coordinator.sequencing.sequencer")


class Sequencer:
    """See the module's first lines.

    Args:
        store: the log's store, whose exclusive lock the caller holds.
        keyring: the coordinator's keys, the log key among them.
        federation: the id that the store must hold.
        head: a file outside the database that remembers the newest signed checkpoint.
        snapshots: a file that spares the next opening most of the replay, or None for none.
        quota: what a member may say, or None for as much as it likes.
        final_interval_s: seconds between final checkpoints that nobody waits for.
        merge_delay_s: seconds within which a receipt promises an entry under a checkpoint.
        now_ms: the coordinator's clock.
        may_say: whether its time may go into the log (`AgreedClock.may_say`); else the log's own does.

    Raises:
        RolledBack: the database holds less than was signed.
        NotConsistent, NotAdmitted, MalformedInput, BadSignature: it was changed; says where.
        ProtocolUnknown: the log's rules are newer than this software.
    """

    def __init__(
        self,
        store: LogStore,
        keyring: KeyRing,
        federation: str,
        *,
        head: Path,
        snapshots: SnapshotFile | None = None,
        quota: Quota | None = None,
        final_interval_s: float = 0.5,
        merge_delay_s: float = 60.0,
        now_ms: Callable[[], int] = clock_ms,
        may_say: Callable[[int, int], bool] = lambda log_time, skew_ms: True,
    ) -> None:
        if keyring.log is None:
            raise NotAdmitted("keyring", f"{keyring.handle} has no log key: it is no coordinator's")
        self._store = store
        self._keyring = keyring
        self._log_key = keyring.log
        self._now_ms, self._may_say = now_ms, may_say
        self._buckets = None if quota is None else TokenBuckets(quota)
        self._inbox = Inbox()
        self._listeners: tuple[Callable[[], None], ...] = ()
        self.origin = log_origin(federation)
        self._verifier = log_verifier(self.origin, keyring.log.public)
        self._promises = Promises(keyring.log, self.origin, merge_delay_s, now_ms)
        self._collect = partial(collect, store, self._verifier, final_interval_s)
        self._equivocations = Equivocations(store)
        opened = open_log(store, federation, snapshots)
        self._log, self.history = opened.log, opened.history
        protocol_of(self._log.state)
        if self._log.state.log_key.public != keyring.log.public.hex():
            raise NotAdmitted("keyring", "its log key is not the one that genesis names")
        note = newest_note(self._log, store, self._verifier, head)
        self._head = HeadFile(head)
        self._head.write(note)
        self._snapshots = Snapshots(snapshots, opened.resumed)
        self._snapshots.grown(self._log, self.history)
        self._cosignatures = self._collect(self._log, note)
        self._cosignatures.finalize(self._log.state, time.monotonic())
        self._view = self._look(note)
        self.feed = Feed(store)
        self._checker = Checker()
        self._working: list[Work] = []
        self._thread = threading.Thread(target=self._run, name="sequencer", daemon=True)

    def start(self) -> None:
        """Begin to take entries; first say what evidence was kept and not said before a crash."""
        self._say_evidence()
        self._thread.start()

    def close(self) -> None:
        """Finish what waits, then stop. Later submissions are refused."""
        self._inbox.close()
        if self._thread.is_alive():
            self._thread.join()
        if self._view.stopped is None:  # what is in memory is then what is stored
            self._snapshots.save(self._log, self.history)
        self._checker.close()
        self._head.close()

    # --- from any thread ------------------------------------------------------------------------

    @property
    def view(self) -> View:
        """What is durable now."""
        return self._view

    @property
    def speaks(self) -> bool:
        """Whether the coordinator's entry key is active; without it rounds and log time stand."""
        chain = self._log.state.keys.get(self._keyring.entry.id)
        return chain is not None and chain.retired_at is None

    def use_keys(self, keyring: KeyRing) -> None:
        """Speak under these keys from now on; before `start`, and with the same log key.

        Raises:
            NotAdmitted: they have another log key.
        """
        if keyring.log != self._log_key:
            raise NotAdmitted("keyring", "its log key is not the one that genesis names")
        self._keyring = keyring

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` from the sequencer's thread whenever the view has changed."""
        self._listeners = (*self._listeners, listener)

    def submit(self, leaf: bytes) -> Future[Receipt]:
        """Take an entry; the future holds its receipt, or why it was not taken."""
        return self._inbox.submit(leaf)

    def say(self, *ops: Operation) -> Future[tuple[Receipt, ...]]:
        """Let the coordinator say something; all of it becomes durable together."""
        return self._inbox.say(ops)

    def cosign(self, size: int, lines: bytes) -> Future[None]:
        """Take cosignature lines for the checkpoint over ``size`` entries."""
        return self._inbox.call(lambda: self._cosignatures.add(self._log.state, size, lines))

    def examine(self, note: bytes) -> Future[None]:
        """Look at a checkpoint that somebody holds; stop when it shows that we were rolled back.

        The future raises `RolledBack` or `NotConsistent` when it contradicts this log.
        """
        return self._inbox.call(lambda: self._examine(note))

    def checkpoint(self) -> bytes:
        """The newest signed checkpoint with the cosignatures that came for it."""
        view = self._view
        return self._cosignatures.note(view.size) or view.note

    def root(self, size: int) -> bytes:
        """Root of the tree at a size; sizes up to the view's never change."""
        return self._log.tree.root(size)

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """Inclusion proof; for a size up to the view's."""
        return self._log.tree.inclusion(index, size)

    def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """Consistency proof; for sizes up to the view's."""
        return self._log.tree.consistency(old, new)

    def genesis(self) -> bytes:
        """Leaf of entry 0."""
        return next(read_leaves(self._store, 0, 1))

    def busy_s(self) -> float:
        """Seconds that the work under way has taken so far."""
        return self._inbox.busy_s(time.monotonic())

    def give_up(self, reason: str) -> None:
        """Answer everybody from another thread: this one's work does not end."""
        self._stop(reason, failed=True)
        answer_no(self._working, NotSequencing(reason))
        self._inbox.refuse_rest()

    # --- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        """The thread's outermost shell: whatever happens, everybody gets an answer."""
        try:
            while self._turn():
                pass
        except Exception as error:  # noqa: BLE001
            _log.exception("crashed", error=repr(error))
            self._stop("an internal error; see its log", failed=True)
        finally:  # also where it falls over while it stops
            answer_no(self._working, NotSequencing("an internal error"))
            self._inbox.refuse_rest()

    def _turn(self) -> bool:
        """Do what waits; False when it is time to go."""
        timeout = None
        if self._view.stopped is None:
            timeout = self._cosignatures.wait_s(self._log.state, time.monotonic())
        self._working, closing = self._inbox.take(timeout)
        entries = [item for item in self._working if not isinstance(item, Call)]
        if entries:
            self._sequence(entries)
        for item in self._working:
            if isinstance(item, Call) and not item.do():
                self._cosignatures = self._collect(self._log, self._view.note)  # half-way
        self._finalize()
        return not closing

    def _sequence(self, work: Sequence[Submit | Say]) -> None:
        """Judge, append in memory, commit, then answer."""
        if self._view.stopped is not None:
            answer_no(work, NotSequencing(self._view.stopped))
            return
        mark = self._log.mark()
        batch = Taken(Seen(size=mark.size, root=self._log.tree.root(mark.size).hex()))
        submitted: list[tuple[Future[Receipt], Place]] = []
        spoken: list[tuple[Future[tuple[Receipt, ...]], tuple[Receipt, ...]]] = []
        parsed = [
            entry_or_refusal(item.leaf) if isinstance(item, Submit) else None for item in work
        ]
        fell = False
        entries = [entry for entry in parsed if isinstance(entry, Entry)]
        batch.checked = self._checker.checked(entries, self._log.state.keys)
        for item, entry in zip(work, parsed, strict=True):
            if isinstance(entry, LedgerError | Mishap):
                item.future.set_exception(entry)
                continue
            try:
                if not isinstance(item, Say) and entry is not None:
                    place = self._take(entry, batch), bytes.fromhex(entry.hash)
                    submitted.append((item.future, place))
                elif isinstance(item, Say):
                    said = tuple(self._take(self._sign(op, batch), batch) for op in item.ops)
                    spoken.append((item.future, said))
            except (LedgerError, CoordinatorError) as refusal:
                item.future.set_exception(refusal)
            except Exception as error:  # noqa: BLE001
                item.future.set_exception(mishap(error))
                fell = True
                break
        if fell:  # half-way, perhaps: nothing is stored yet, and the others are judged anew
            self._log.rewind(mark)
            self._sequence([other for other in work if not other.future.done()])
            self._say_evidence()
            return
        if batch.taken:
            checkpoint = Checkpoint(self.origin, self._log.size, self._log.tree.root())
            note = sign_checkpoint(self._log_key, checkpoint)
            rows = [row(item) for item in batch.taken]
            try:
                self._store.append(mark.size, rows, (self._log.size, note))
            except StoreError as error:
                self._log.rewind(mark)
                why = f"a write failed, and only a restart can tell what is stored: {error}"
                self._stop(why, failed=True)
                answer_no(work, NotSequencing(why))
                return
            self._publish(batch.taken, note)
            self._log.tree.forget_older()
        receipts = self._promises.answer(batch.taken, [place for _, place in submitted])
        for (future, _), receipt in zip(submitted, receipts, strict=True):
            future.set_result(receipt)
        for heard, answer in spoken:
            heard.set_result(answer)
        self._snapshots.grown(self._log, self.history)

    def _take(self, entry: Entry, batch: Taken) -> Receipt:
        """Append an entry in memory, or find it where it is."""
        try:
            public = self._log.admit(entry)
        except NotAdmitted:
            index = batch.known.get(entry.hash)
            if index is None:
                index = self._store.find_leaf(bytes.fromhex(entry.hash))
            if index is None:
                self._notice(entry, batch)
                raise
            reason = batch.voids.get(index, self.history.void(index))
            return Receipt(index, reason is None, reason)
        if batch.checked.get(entry.hash) != public:
            verify_signature(entry, public)
        author = entry.body.author
        if self._buckets is not None and author != self._keyring.handle:
            self._buckets.take(author, time.monotonic())
        item = self._log.append(entry)
        batch.taken.append(item)
        batch.known[entry.hash] = item.index
        if item.outcome.void is not None:
            batch.voids[item.index] = item.outcome.void
        return Receipt(item.index, item.outcome.applied, item.outcome.void)

    def _notice(self, refused: Entry, batch: Taken) -> None:
        """Keep the evidence of a second entry at one place, and end the key that signed both."""
        state = self._log.state
        known = self._equivocations
        if known.notice(refused, state.keys, batch.leaf_at(self._store)) and self.speaks:
            for op in known.unsettled(state.federation, state.keys):
                _log.warning("key conflicted", member=refused.body.author, key=refused.body.key)
                self._take(self._sign(op, batch), batch)

    def _sign(self, op: Operation, batch: Taken) -> Entry:
        state = self._log.state
        agreed = self._may_say(state.log_time, state.policy.skew_ms)
        at_ms = self._now_ms() if agreed else state.log_time
        return sign_next(op, self._keyring, state, batch.seen, at_ms)

    def _say_evidence(self) -> None:
        """Say what evidence is kept and was not said."""
        ops = tuple(self._equivocations.unsettled(self._log.state.federation, self._log.state.keys))
        if ops and self.speaks:
            self.say(*ops)

    def _publish(self, taken: Sequence[Sequenced], note: bytes) -> None:
        for item in taken:
            self.history.observe(item)
            self._cosignatures.observe(item)
        self._cosignatures.open(self._log.state, self._log.size, note)
        try:
            self._head.write(note)
        except OSError as error:  # durable it is: only the guard against a rollback is older
            _log.warning("head file not written", path=str(self._head.path), error=error.strerror)
        self.feed.publish(Batch(taken[0].index, tuple(item.entry.leaf for item in taken), note))
        self._show(self._look(note))

    def _examine(self, note: bytes) -> None:
        checkpoint = open_checkpoint(note, self._verifier)
        try:
            check_signed(self._log, checkpoint)
        except (RolledBack, NotConsistent) as error:
            self._stop(str(error))  # first: nothing more is signed, whether or not it can be kept
            self._store.put_conflict(ROLLBACK, note)
            raise

    def _finalize(self) -> None:
        if self._view.stopped is not None:
            return
        try:
            while self._cosignatures.finalize(self._log.state, time.monotonic()):
                final = self._cosignatures.final
                if final.note is not None:
                    self.feed.publish_final(final.size, final.note)
                self._show(self._look(self._view.note))
        except (StoreError, LedgerError) as error:
            self._stop(f"a final checkpoint could not be stored: {error}", failed=True)

    def _look(self, note: bytes) -> View:
        final = self._cosignatures.final
        return View(self._log.state, note, final.size, final.note)

    def _stop(self, reason: str, *, failed: bool = False) -> None:
        """Sign nothing more in this process."""
        view = self._view
        if view.stopped is None:
            _log.error("stopped", reason=reason, size=view.size)
            self._show(replace(view, stopped=reason, failed=failed))

    def _show(self, view: View) -> None:
        self._view = view
        for listener in self._listeners:
            listener()

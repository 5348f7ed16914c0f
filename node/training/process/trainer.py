"""Training beside the service's own thread: the warm process is driven from here, one round at a time.

The trainer takes tasks from a queue and hands back what became of them; it decides nothing. Order
per round, so that a crash at any point costs at most the round's own noise: intents recorded durably
by the register while the process waits; the noisy bytes durable in the blob store and the outbox;
only then are they uploaded. An upload that fails is tried again without training again.

What a steward took back meanwhile does not leave. Where the hospital keeps reply slots, an upload waits for the next multiple of the slot on the node's clock,
also when it is tried again: when a reply leaves then says in which slot its work ended, and no more.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import structlog

from ledger.copies.blobs import BlobStore
from ledger.entries.operations.plans import Plan, Purpose, SitePlan
from ledger.entries.operations.values import BlobRef
from ledger.errors import LedgerError
from ledger.experiment.tensors import encode_update
from node.duties.judging import steps_of
from node.errors import IntentsClosed, NodeError, NoLongerAsked, RoundFailed
from node.register.private import PrivateRegister
from node.training.process.frames import Job
from node.training.process.worker import OnCharges, OnIntent, Worker
from privacy.noise import SecureRandom
from privacy.selfaudit.checks import Report

_MODELS = 2
_LONGEST_PAUSE_S = 5.0
"""A clock that is set while a reply waits is looked at again after so long."""
_log = structlog.get_logger("node")


@dataclass(frozen=True, slots=True)
class Mask:
    """What hides a vector in one attempt.

    Attributes:
        context: of the attempt.
        apply: from the vector's blob to the masked one's.
    """

    context: str
    apply: Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Task:
    """A round at one dataset, or the upload of what it made before.

    Attributes:
        model: the round's model, which the thread fetches.
        job: makes the job from the model's bytes; None to upload only.
        mask: under secure aggregation, makes the masked vector from the vector; without it nothing
            of a masked plan is uploaded.
        fresh: the vector that the outbox holds for the round must not be used again.
        on_charges: where patients are accounted for one by one, records what the round costs them.
    """

    experiment: str
    dataset: str
    round: int
    plan: Plan
    site: SitePlan
    model: BlobRef
    job: Callable[[bytes], Job] | None = None
    mask: Mask | None = None
    fresh: bool = False
    on_charges: OnCharges | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        """Experiment, dataset and round: what the outbox knows it by."""
        return (self.experiment, self.dataset, self.round)


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a task: its update is with the coordinator, or why not.

    Attributes:
        sent: what was uploaded, or None.
    """

    task: Task
    error: LedgerError | NodeError | None = None
    seconds: float = 0.0
    sent: BlobRef | None = None


@dataclass(frozen=True, slots=True)
class Tested:
    """The trainer tested itself on synthetic rows; where it failed, nothing may be trained here."""

    report: Report


class Trainer(Protocol):
    """Makes a round's noisy update."""

    def start(self) -> Report | None:
        """Get warm; returns what its self-test found, or None where it has none."""

    def run(self, task: Task, job: Job, on_intent: OnIntent) -> bytes:
        """Make the encoded update; ``on_intent`` returns before any noise is used."""

    def kill(self) -> None:
        """End what is running, from any thread."""

    def close(self) -> None:
        """Release everything."""


class WorkerTrainer:
    """The real one: a warm process with torch in it."""

    def __init__(self, worker: Worker, limit_s: float | None = None) -> None:
        self._worker = worker
        self._limit_s = limit_s

    def start(self) -> Report | None:
        """Start the process, wait for torch, and let it test itself on synthetic rows."""
        self._worker.start()
        return self._worker.selftest()

    def run(self, task: Task, job: Job, on_intent: OnIntent) -> bytes:
        """Run the job in the process."""
        return self._worker.run_round(
            job, on_intent, on_charges=task.on_charges, timeout_s=self._limit_s
        )

    def kill(self) -> None:
        """End the process."""
        self._worker.kill()

    def close(self) -> None:
        """End the process in good order."""
        self._worker.close()


class NoopTrainer:
    """Noise around zero: everything of a round but its training. For test federations."""

    def start(self) -> Report | None:
        """There is nothing to warm, and no training code to test."""
        return None

    def run(self, task: Task, job: Job, on_intent: OnIntent) -> bytes:
        """Draw the plan's noise and add it to nothing."""
        purposes = steps_of(task.site, job.kind, task.plan.steps_per_round)
        for purpose, steps in purposes.items():
            on_intent(purpose, steps)
        last: Purpose = tuple(purposes)[-1]
        release = next(r for r in task.site.releases if r.purpose == last)
        size = task.plan.parameters if job.kind == "train" else task.plan.metric_size
        rng = SecureRandom()
        try:
            noise = rng.gaussian_integers(release.noise_sd, size)
        finally:
            rng.close()
        return encode_update(noise.astype(np.int64))

    def kill(self) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """There is nothing to release."""


class Exchange(Protocol):
    """Where blobs come from and go to."""

    def get_blob(self, ref: BlobRef) -> bytes:
        """Fetch and check a blob."""

    def put_blob(self, data: bytes) -> BlobRef:
        """Bring a blob; one that is there already costs one question."""


class TrainingThread:
    """One thread that does tasks in order and reports each."""

    def __init__(
        self,
        trainer: Trainer,
        register: PrivateRegister,
        blobs: BlobStore,
        exchange: Exchange,
        report: Callable[[Done | Tested], None],
        now_ms: Callable[[], int],
        slot_ms: int = 0,
        still_asked: Callable[[str, str], bool] = lambda _experiment, _dataset: True,
        paused: Callable[[], bool] = lambda: False,
    ) -> None:
        """Make the thread.

        Args:
            trainer: makes updates.
            register: records intents and what is to be sent.
            blobs: this node's own.
            exchange: the coordinator's, over a connection of this thread's own.
            report: called in this thread after each task; must not block.
            now_ms: this node's clock.
            slot_ms: replies leave at multiples of it, in POSIX milliseconds; 0 for at once.
            still_asked: whether an experiment may have a vector of a dataset now; asked before data is used
                and before a vector leaves, in this thread.
            paused: whether no data may be used now.
        """
        self._still_asked = still_asked
        self._paused = paused
        self._slot_ms = slot_ms
        self._stopping = threading.Event()
        self._trainer = trainer
        self._register = register
        self._blobs = blobs
        self._exchange = exchange
        self._report = report
        self._now_ms = now_ms
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._models: OrderedDict[str, bytes] = OrderedDict()
        self._working = False
        self._thread = threading.Thread(target=self._serve, name="training", daemon=True)

    def start(self) -> None:
        """Start the thread, and warm the trainer in it."""
        self._thread.start()

    def put(self, task: Task) -> None:
        """Do a task when those before it are done."""
        self._tasks.put(task)

    def close(self, timeout_s: float = 15.0) -> None:
        """Let the round that runs come to its end, for so long; cut off, it has used its intent."""
        while not self._tasks.empty():
            self._tasks.get()
        self._tasks.put(None)
        self._stopping.set()
        if self._working:
            self._thread.join(timeout_s)
        self._trainer.kill()
        self._thread.join(timeout_s)
        self._trainer.close()

    def _serve(self) -> None:
        self._warm()
        while (task := self._tasks.get()) is not None:
            began = time.monotonic()
            error: LedgerError | NodeError | None = None
            self._working = True
            sent: BlobRef | None = None
            try:
                sent = self._do(task)
            except (LedgerError, NodeError) as failure:
                error = failure
            except Exception as failure:  # noqa: BLE001 - the thread must not die in silence
                _log.exception("round.crashed", dataset=task.dataset, round=task.round)
                error = RoundFailed(f"{type(failure).__name__}: {failure}")
            finally:
                self._working = False
            self._report(Done(task, error, time.monotonic() - began, sent))

    def _warm(self) -> None:
        """Start the trainer; the first task starts it again, and reports why it does not come up."""
        try:
            report = self._trainer.start()
        except Exception as failure:  # noqa: BLE001 - the thread must not die in silence
            _log.warning("trainer.cold", error=f"{type(failure).__name__}: {failure}")
        else:
            if report is not None:
                self._report(Tested(report))

    def _do(self, task: Task) -> BlobRef | None:
        self._check_asked(task)
        if task.fresh:
            self._register.outbox.drop(*task.key)
        ref = self._register.view.outbox.get(task.key)
        if ref is None:
            if task.job is None:
                return None
            if self._paused():
                raise NoLongerAsked(task.experiment, task.dataset)
            update = self._train(task, task.job(self._model(task.model)))
            ref = self._blobs.put(update)
            self._register.outbox.store(*task.key, ref)
        else:
            update = self._blobs.get(ref)
        if task.mask is not None:
            update = task.mask.apply(update)
        elif task.plan.secure_aggregation is not None:
            return None  # the vector itself never leaves
        self._await_slot()
        self._check_asked(task)
        return self._exchange.put_blob(update)

    def _check_asked(self, task: Task) -> None:
        """See that nobody took back what was asked, while the task waited its turn or its slot.

        Raises:
            NoLongerAsked: somebody did.
        """
        if not self._still_asked(task.experiment, task.dataset):
            raise NoLongerAsked(task.experiment, task.dataset)

    def _await_slot(self) -> None:
        """Hold a reply back until the next slot begins.

        Raises:
            RoundFailed: the node stops first; the reply is in the outbox, and leaves after its next start.
        """
        if not self._slot_ms:
            return
        begins = next_slot(self._now_ms(), self._slot_ms)
        while (left_ms := begins - self._now_ms()) > 0:
            if self._stopping.wait(min(left_ms / 1000, _LONGEST_PAUSE_S)):
                raise RoundFailed("the node stopped before the slot in which its reply leaves")

    def _train(self, task: Task, job: Job) -> bytes:
        allowed = dict(steps_of(task.site, job.kind, task.plan.steps_per_round))

        def on_intent(purpose: Purpose, steps: int) -> None:
            if steps > allowed.pop(purpose, 0):
                raise IntentsClosed(task.experiment, task.dataset)
            self._register.record_intent(
                task.experiment,
                task.dataset,
                purpose,
                round_number=task.round,
                steps=steps,
                at_ms=self._now_ms(),
            )

        return self._trainer.run(task, job, on_intent)

    def _model(self, ref: BlobRef) -> bytes:
        """Fetch a round's model once, however many datasets train on it."""
        data = self._models.get(ref.sha256)
        if data is None:
            data = self._exchange.get_blob(ref)
            self._models[ref.sha256] = data
            while len(self._models) > _MODELS:
                self._models.popitem(last=False)
        return data


def next_slot(now_ms: int, slot_ms: int) -> int:
    """When the slot after the present one begins; a slot that begins now is missed."""
    return (now_ms // slot_ms + 1) * slot_ms

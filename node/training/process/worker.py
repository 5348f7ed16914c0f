"""The node service's side of its warm training process; imports no torch.

Promise: the process is started once, not once a round, and again after it died. One request runs at
a time; other threads wait. ``run_round`` calls ``on_intent`` (and, where patients are accounted for one by
one, ``on_charges``) before the process may use any noise, and the process waits until it returns: whoever records intents durably there is charged for everything
that can have been drawn. When the process dies, the caller gets ``WorkerDied`` and must count every
intent it recorded as used. When the parent dies, so does the process.

It computes on one thread, which its proof of sensitivity wants; a node with many cores runs several.

Not promised: a limit on its memory; that is the operating system's (systemd, container).
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from ledger.entries.operations.plans import Purpose
from node.errors import WorkerDied, WorkerError, WorkerMisbehaved
from node.training.process.environment import process_environment
from node.training.process.frames import (
    Answer,
    Charged,
    Failed,
    Header,
    Intent,
    Job,
    Load,
    Loaded,
    Message,
    Ping,
    Ready,
    Result,
    Round,
    SelfTest,
    SelfTested,
    failure_of,
    read_frame,
    write_frame,
)
from privacy.selfaudit.checks import Report

START_TIMEOUT_S = 180.0
_CLOSE_TIMEOUT_S = 5.0

_M = TypeVar("_M", bound=Message)

OnIntent = Callable[[Purpose, int], None]
"""Records durably that noise for so many steps of a purpose will be used; raises to forbid it."""
OnCharges = Callable[[bytes], None]
"""Records durably what a round costs each patient (a ``PatientSpend``); raises to forbid it."""


_REPORT: TypeAdapter[Report] = TypeAdapter(Report)


class Worker:
    """One warm training process.

    Args:
        test_noise: seed of repeatable noise, in test federations only; None in production.
    """

    def __init__(self, *, test_noise: int | None = None) -> None:
        self._test_noise = test_noise
        self._process: subprocess.Popen[bytes] | None = None
        self._production = test_noise is None
        self._lock = threading.Lock()
        self._owes_reply = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def production(self) -> bool:
        """Whether its noise is secret and unrepeatable."""
        return self._production

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start the process unless it runs, and wait until torch is imported.

        Raises:
            WorkerDied: it did not come up.
        """
        with self._lock:
            self._ensure()

    def ping(self, *, timeout_s: float = 30.0) -> None:
        """Return when the process answers; starts it if need be.

        Raises:
            WorkerDied: it does not answer.
        """
        with self._lock:
            self._ensure()
            deadline = _deadline(timeout_s)
            self._send(Ping())
            header, _ = self._receive(deadline)
            self._expect(header, Ready)

    def selftest(self, *, timeout_s: float = START_TIMEOUT_S) -> Report:
        """Hold the process's training code against a plan on synthetic rows; starts it if need be.

        Raises:
            WorkerDied: it does not answer.
        """
        with self._lock:
            self._ensure()
            deadline = _deadline(timeout_s)
            self._send(SelfTest())
            header, parts = self._receive(deadline)
            self._expect(header, SelfTested, parts)
            try:
                return _REPORT.validate_json(parts[0] if parts else b"")
            except ValidationError:
                raise self._misbehaved("findings of no known form") from None

    def load_dataset(
        self,
        path: Path,
        schema_document: bytes,
        split_key: bytes,
        *,
        timeout_s: float | None = None,
    ) -> Loaded:
        """Read a dataset under a schema and keep it warm.

        Args:
            path: CSV (plain or gzip) or Parquet.
            schema_document: canonical.
            split_key: the hospital's secret, 32 bytes.
            timeout_s: after which the process is killed; None waits for ever.

        Returns:
            Hash and counts, for the hospital's own administrator.

        Raises:
            DatasetError: the file does not fit.
            JobRefused: the schema is not canonical.
            WorkerDied: the process ended on the way.
        """
        with self._lock:
            self._ensure()
            deadline = _deadline(timeout_s)
            self._send(Load(), os.fsencode(path), schema_document, split_key)
            header, parts = self._receive(deadline)
            return self._expect(header, Loaded, parts)

    def run_round(
        self,
        job: Job,
        on_intent: OnIntent,
        *,
        on_charges: OnCharges | None = None,
        timeout_s: float | None = None,
    ) -> bytes:
        """Run one round.

        Args:
            job: what to do.
            on_intent: called, in this thread, before noise is used; what it raises is raised here
                and nothing is released.
            on_charges: called, in this thread, before noise is used, where the job has an allowance;
                what it raises is raised here and nothing is released.
            timeout_s: after which the process is killed; None waits for ever.

        Returns:
            The encoded update (``ledger.experiment.tensors``): private, ready to leave.

        Raises:
            JobRefused: spec, schema, plan and model do not fit together; before any intent.
            DatasetChanged: the file is gone or is another one; before any intent.
            DatasetError: the file does not fit its schema; before any intent.
            WorkerDied: the process ended on the way; recorded intents count as used.
        """
        with self._lock:
            self._ensure()
            deadline = _deadline(timeout_s)
            self._send(
                Round(
                    kind=job.kind,
                    round=job.round,
                    sha256=job.sha256,
                    blocks=job.blocks,
                    snapshot=job.snapshot,
                ),
                job.spec,
                job.schema_document,
                job.site,
                job.model,
                os.fsencode(job.path),
                job.split_key,
                os.fsencode(job.patients),
                job.allowance,
            )
            while True:
                header, parts = self._receive(deadline)
                if isinstance(header, Intent):
                    self._ask(partial(on_intent, header.purpose, header.steps), deadline)
                elif isinstance(header, Charged) and on_charges is not None and len(parts) == 1:
                    self._ask(partial(on_charges, parts[0]), deadline)
                else:
                    break
            result = self._expect(header, Result, parts)
            if result.production != self._production or len(parts) != 1:
                raise self._misbehaved("a result that is not of this process")
            return parts[0]

    def kill(self) -> None:
        """End the process at once, from any thread; a request in progress raises WorkerDied."""
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process: close its pipe, then SIGTERM, then SIGKILL. It may be started again."""
        with self._lock:
            self._reap()

    def _ask(self, record: Callable[[], None], deadline: float | None) -> None:
        try:
            record()
        except BaseException:
            # Not recorded, so not allowed; the process must not be left waiting.
            with contextlib.suppress(WorkerError):
                self._send(Answer(go=False))
                self._receive(deadline)
            raise
        self._send(Answer(go=True))

    def _ensure(self) -> None:
        if self._owes_reply:
            # The last caller was interrupted; its late reply must not pass for the next one's.
            self.kill()
        elif self._process is not None and self._process.poll() is None:
            return
        self._reap()
        command = [sys.executable, "-P", "-m", "node.training.process.worker_process"]
        if self._test_noise is not None:
            command += ["--test-noise", str(self._test_noise)]
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=process_environment(),
            bufsize=0,
        )
        header, _ = self._receive(_deadline(START_TIMEOUT_S))
        ready = self._expect(header, Ready)
        if ready.production != self._production:
            raise self._misbehaved("another kind of noise than it was started with")

    def _send(self, header: Message, *parts: bytes) -> None:
        process = self._running()
        assert process.stdin is not None
        self._owes_reply = True
        data = memoryview(write_frame(header, parts))
        try:
            while data:
                written = process.stdin.write(data)
                data = data[written or 0 :]
        except OSError:
            raise self._died("its pipe is closed") from None

    def _receive(self, deadline: float | None) -> tuple[Header, tuple[bytes, ...]]:
        process = self._running()
        assert process.stdout is not None
        source = process.stdout.fileno()
        readable = select.poll()
        readable.register(source, select.POLLIN)

        def read(count: int) -> bytes:
            data = bytearray()
            while len(data) < count:
                left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
                if not readable.poll(left):
                    raise self._died("it did not answer in time")
                piece = os.read(source, min(count - len(data), 2**20))
                if not piece:
                    raise self._died("its pipe is closed")
                data += piece
            return bytes(data)

        try:
            frame = read_frame(read)
        except WorkerMisbehaved as error:
            raise self._misbehaved(error.reason) from None
        self._owes_reply = isinstance(frame[0], Intent | Charged)
        return frame

    def _expect(self, header: Header, kind: type[_M], parts: tuple[bytes, ...] = ()) -> _M:
        if isinstance(header, Failed):
            raise failure_of(header, parts)
        if not isinstance(header, kind):
            raise self._misbehaved(f"a {header.type!r}")
        return header

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise WorkerDied(None, "it was closed")
        return self._process

    def _died(self, reason: str) -> WorkerDied:
        process = self._process
        if process is not None:
            process.kill()
        return WorkerDied(self._reap(), reason)

    def _misbehaved(self, reason: str) -> WorkerMisbehaved:
        process = self._process
        if process is not None:
            process.kill()
        self._reap()
        return WorkerMisbehaved(reason)

    def _reap(self) -> int | None:
        process, self._process = self._process, None
        self._owes_reply = False
        if process is None:
            return None
        with contextlib.suppress(OSError):
            assert process.stdin is not None
            process.stdin.close()
        for stop in (process.terminate, process.kill):
            try:
                process.wait(_CLOSE_TIMEOUT_S)
                break
            except subprocess.TimeoutExpired:
                stop()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        return process.returncode


def _deadline(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s

"""The training process: ``python -m node.training.process.worker_process``; started by ``node.training.process.worker`` alone.

It imports torch once and then serves jobs over its standard input and output (``node.training.process.frames``). It
tests itself on synthetic rows before its first round (``node.training.process.selftest``) and runs none where
that fails. It holds nothing durable: it may be killed at any instant, and ends by itself as soon as its parent's end
of the pipe is closed, also in the middle of a computation. It writes no value of any row anywhere but
into its replies: no library's warning is shown, and of an error that nothing foresees its type and place alone.

``--test-noise SEED`` replaces the secret noise by a repeatable one, only in a test federation
(``CONSILIUM_TEST_FEDERATION=1``); every result then says ``production: false``.
"""

from __future__ import annotations

import argparse
import os
import queue
import resource
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NoReturn

import orjson

from ledger.entries.operations.plans import Purpose
from ledger.errors import LedgerError
from node.data.holdings import Holdings
from node.data.patient_spend import PatientSpend
from node.errors import (
    IntentRefused,
    JobRefused,
    NodeError,
    SelfTestFailed,
    TestNoiseRefused,
    WorkerMisbehaved,
)
from node.training.process.frames import (
    Answer,
    Charged,
    Header,
    Intent,
    Job,
    Load,
    Loaded,
    Ping,
    Ready,
    Result,
    Round,
    SelfTest,
    SelfTested,
    failure_frame,
    read_frame,
    write_frame,
)
from privacy.errors import NoiseLost, PrivacyError
from privacy.noise import Randomness, SecureRandom, TestRng
from privacy.selfaudit.checks import Report

TEST_FEDERATION = "CONSILIUM_TEST_FEDERATION"
EXIT_USAGE = 2
EXIT_BROKEN = 70

_Frame = tuple[Header, tuple[bytes, ...]]
_OpenNoise = Callable[[str], Randomness]
_BeforeNoise = Callable[[Purpose, int], None]
_SelfTest = Callable[[_OpenNoise], Report]
_RecordCharges = Callable[[PatientSpend], None]
_RunRound = Callable[[Job, Holdings, _OpenNoise, _BeforeNoise, _RecordCharges], bytes]


def main() -> int:
    """Serve until the parent closes the pipe."""
    say_nothing_of_rows()
    arguments = argparse.ArgumentParser(prog="node.training.process.worker_process")
    arguments.add_argument("--test-noise", type=int, default=None)
    chosen = arguments.parse_args()
    try:
        noise = _Noise(chosen.test_noise)
    except TestNoiseRefused as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_USAGE
    replies = _own_standard_output()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, _leave)
    requests: queue.SimpleQueue[_Frame] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(requests,), daemon=True).start()

    from node.training.process import selftest
    from node.training.rounds import one_round, train

    train.start_torch()
    worker = _Serving(requests, replies, noise, one_round.run_round, selftest.run_selftest)
    worker.say(write_frame(Ready(production=noise.production)))
    while True:
        worker.serve_one()


def say_nothing_of_rows() -> None:
    """Keep warnings and messages of errors, which may quote a row, out of the node's log, and rows out of core dumps."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.showwarning = lambda *_, **__: None
    sys.excepthook = _say_where


class _Noise:
    """Opens generators; says whether they are fit for production."""

    def __init__(self, seed: int | None) -> None:
        if seed is not None and os.environ.get(TEST_FEDERATION) != "1":
            raise TestNoiseRefused
        self._seed = seed
        self.production = seed is None

    def open(self, purpose: str) -> Randomness:
        if self._seed is None:
            return SecureRandom()
        digest = sha256(f"{self._seed}/{purpose}".encode()).digest()
        return TestRng(int.from_bytes(digest[:8], "big"))


class _Serving:
    """The conversation with the parent, one request at a time."""

    def __init__(
        self,
        requests: queue.SimpleQueue[_Frame],
        replies: BinaryIO,
        noise: _Noise,
        run_round: _RunRound,
        selftest: _SelfTest,
    ) -> None:
        self._requests = requests
        self._replies = replies
        self._noise = noise
        self._run_round = run_round
        self._selftest = selftest
        self._tested: Report | None = None
        self._holdings = Holdings()

    def say(self, frame: bytes) -> None:
        self._replies.write(frame)
        self._replies.flush()

    def serve_one(self) -> None:
        header, parts = self._requests.get()
        try:
            reply = self._answer(header, parts)
        except NodeError as error:
            if isinstance(error, WorkerMisbehaved):
                raise
            reply = failure_frame(error)
        except NoiseLost:
            raise  # after the intent: the process ends, and what was charged stays charged
        except (LedgerError, PrivacyError) as error:
            reply = failure_frame(JobRefused(str(error)))
        self.say(reply)

    def _answer(self, header: Header, parts: tuple[bytes, ...]) -> bytes:
        if isinstance(header, Ping):
            return write_frame(Ready(production=self._noise.production))
        if isinstance(header, SelfTest):
            return self._tell()
        if isinstance(header, Load) and len(parts) == 3:
            return self._load(*parts)
        if isinstance(header, Round) and len(parts) == 8:
            failure = self._test().failure
            if failure is not None:
                raise SelfTestFailed(failure)
            spec, schema, site, model, path, split_key, patients, allowance = parts
            job = Job(
                kind=header.kind,
                round=header.round,
                spec=spec,
                schema_document=schema,
                site=site,
                model=model,
                path=os.fsdecode(path),
                sha256=header.sha256,
                split_key=split_key,
                blocks=header.blocks,
                patients=os.fsdecode(patients),
                snapshot=header.snapshot,
                allowance=allowance,
            )
            update = self._run_round(
                job, self._holdings, self._noise.open, self._record, self._record_charges
            )
            return write_frame(Result(production=self._noise.production), (update,))
        raise WorkerMisbehaved(f"a request {header.type!r} with {len(parts)} parts")

    def _load(self, path: bytes, schema: bytes, split_key: bytes) -> bytes:
        file = Path(os.fsdecode(path))
        table = self._holdings.table(file, schema)
        test = self._holdings.split(file, schema, split_key)
        if table.patients is None:
            test_units = int(test.sum())
            train_units = table.rows - test_units
        else:
            test_units = len({p for p, kept in zip(table.patients, test, strict=True) if kept})
            train_units = len(set(table.patients)) - test_units
        return write_frame(
            Loaded(
                sha256=self._holdings.identity(file).sha256,
                rows=table.rows,
                train_units=train_units,
                test_units=test_units,
            )
        )

    def _test(self) -> Report:
        if self._tested is None:
            self._tested = self._selftest(self._noise.open)
        return self._tested

    def _tell(self) -> bytes:
        return write_frame(SelfTested(), (orjson.dumps(self._test()),))

    def _record(self, purpose: Purpose, steps: int) -> None:
        if not self._ask(write_frame(Intent(purpose=purpose, steps=steps))):
            raise IntentRefused(purpose)

    def _record_charges(self, charges: PatientSpend) -> None:
        if not self._ask(write_frame(Charged(), (charges.encode(),))):
            raise IntentRefused("train")

    def _ask(self, frame: bytes) -> bool:
        self.say(frame)
        header, _ = self._requests.get()
        if not isinstance(header, Answer):
            raise WorkerMisbehaved(f"a {header.type!r} where an answer is due")
        return header.go


def _say_where(kind: type[BaseException], _: BaseException, trace: TracebackType | None) -> None:
    frames = (f"{at.filename}:{at.lineno}" for at in traceback.extract_tb(trace))
    sys.stderr.write(f"the training process ends: {kind.__name__} at {' > '.join(frames)}\n")


def _receive(requests: queue.SimpleQueue[_Frame]) -> NoReturn:
    """Read frames until the parent is gone, then end the process wherever it is."""
    source = sys.stdin.buffer

    def read(count: int) -> bytes:
        data = source.read(count)
        if len(data) < count:
            raise EOFError
        return data

    try:
        while True:
            requests.put(read_frame(read))
    except EOFError:
        os._exit(0)
    except WorkerMisbehaved:
        os._exit(EXIT_BROKEN)


def _own_standard_output() -> BinaryIO:
    """Keep standard output for frames; whatever a library prints goes to standard error."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return replies


def _leave(signum: int, frame: object) -> NoReturn:
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())

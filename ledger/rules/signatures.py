"""Processes that check signatures, so that one core can fold what others verify.

A worker is given signed bytes and the public key under which they must verify; it decides nothing
else, and nothing is believed that it did not answer: a worker that dies is an error for whoever
waits for it. Questions go through a pipe as one string a few dozen claims long, which costs half a
microsecond a claim; pickling them one by one would cost more than the fold.

This module imports little: a worker starts by importing it.
"""

from __future__ import annotations

import os
import signal
from array import array
from collections import deque
from collections.abc import Sequence
from itertools import chain
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from ledger.errors import WorkerDied
from ledger.formats.keys import PUBLIC_BYTES, SIGNATURE_BYTES, verify

WORTH_PROCESSES = 20_000
"""Signatures from which on starting processes pays: below it takes longer than it saves."""

_WAITING = 3
"""Questions that wait at a worker; one more is answered by who asks."""


Claim = tuple[bytes, bytes, bytes]
"""To be checked: a raw public key, a signature by it (64 bytes), and the body of the entry it covers."""


class Answer:
    """The answer to some claims: there already, or on its way from a worker."""

    def __init__(self, worker: _Worker | None, false: int | None = None) -> None:
        self._worker = worker
        self._false = false

    @property
    def here(self) -> bool:
        """Whether `false` will not have to wait."""
        return self._worker is None

    @property
    def false(self) -> int | None:
        """Position of the first false claim, or None.

        Raises:
            WorkerDied: it will never be known.
        """
        while self._worker is not None:
            self._worker.take_answer()
        return self._false

    def arrive(self, false: int | None) -> None:
        """The worker has answered."""
        self._worker, self._false = None, false


class SignatureWorkers:
    """Processes that check signatures beside this one. Use as a context manager, from one thread.

    They are started afresh, not forked, so that threads and connections of this process do not get
    into them.

    Args:
        cores: how many to keep busy, this process's own included; by default all.
    """

    def __init__(self, cores: int | None = None) -> None:
        cores = len(os.sched_getaffinity(0)) if cores is None else cores
        self._workers = [_Worker() for _ in range(cores - 1)]

    def __len__(self) -> int:
        """Number of processes beside this one."""
        return len(self._workers)

    def check(self, claims: Sequence[Claim]) -> Answer:
        """Ask the worker that has least to do, or check here while all have enough or still start.

        Raises:
            WorkerDied: one of them is gone.
        """
        for worker in self._workers:
            worker.take_answers()
        ready = (worker for worker in self._workers if worker.ready)
        least = min(ready, key=lambda worker: worker.waiting, default=None)
        if least is not None and least.waiting < _WAITING:
            return least.ask(claims)
        return check_here(claims)

    def warm(self) -> None:
        """Wait until all have started."""
        for worker in self._workers:
            worker.wait_until_ready()

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def workers_for(signatures: int) -> SignatureWorkers:
    """All cores for many signatures; this one alone for few."""
    return SignatureWorkers(None if signatures >= WORTH_PROCESSES else 1)


def check_here(claims: Sequence[Claim]) -> Answer:
    """Check claims in this process."""
    return Answer(None, first_false(claims))


def first_false(claims: Sequence[Claim]) -> int | None:
    """Position of the first claim that is false, or None."""
    for at, (public, signature, body) in enumerate(claims):
        if not verify(public, "entry", body, signature):
            return at
    return None


class _Worker:
    """One process and the pipe to it; answers come in the order of the questions."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._asked: deque[Answer] = deque()
        self.ready = False

    @property
    def waiting(self) -> int:
        return len(self._asked)

    def ask(self, claims: Sequence[Claim]) -> Answer:
        try:
            self._pipe.send_bytes(_pack(claims))
        except OSError:
            raise WorkerDied from None
        answer = Answer(self)
        self._asked.append(answer)
        return answer

    def take_answer(self) -> None:
        false = int.from_bytes(self._receive(), "big", signed=True)
        self._asked.popleft().arrive(None if false < 0 else false)

    def take_answers(self) -> None:
        while self._pipe.poll():
            if self.ready:
                self.take_answer()
            else:
                self.wait_until_ready()

    def wait_until_ready(self) -> None:
        if not self.ready:
            self._receive()
            self.ready = True

    def close(self) -> None:
        self._pipe.close()
        self._process.join()

    def _receive(self) -> bytes:
        try:
            return self._pipe.recv_bytes()
        except (EOFError, OSError):
            raise WorkerDied from None


def _work(pipe: Connection) -> None:
    """A worker's life: say that it is ready, then answer until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the process that asks
    try:
        pipe.send_bytes(b"ready")
        while True:
            false = first_false(_unpack(pipe.recv_bytes()))
            pipe.send_bytes((-1 if false is None else false).to_bytes(4, "big", signed=True))
    except (EOFError, OSError):  # nobody asks any more, perhaps before the first question
        return


def _pack(claims: Sequence[Claim]) -> bytes:
    """Number of claims and length of each body (this machine's unsigned int), then all that is in them."""
    lengths = array("I", [len(claims), *[len(body) for _, _, body in claims]])
    return b"".join((lengths.tobytes(), *chain.from_iterable(claims)))


def _unpack(packed: bytes) -> list[Claim]:
    lengths = array("I")
    lengths.frombytes(packed[: lengths.itemsize])
    at = lengths.itemsize * (1 + lengths[0])
    lengths.frombytes(packed[lengths.itemsize : at])
    claims: list[Claim] = []
    for length in lengths[1:]:
        signature = at + PUBLIC_BYTES
        body = signature + SIGNATURE_BYTES
        end = body + length
        claims.append((packed[at:signature], packed[signature:body], packed[body:end]))
        at = end
    return claims

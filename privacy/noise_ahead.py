"""Noise for a long vector, drawn by a second process while this one computes what it is added to.

A sum of millions of coordinates takes longer to make than its noise, and needs none of it before its end. So a
mechanism says first how many draws it will ask for (``Randomness.expect``), a public number; they are
drawn under a key of their own, in pieces of one size, and handed out in order, each once. A thread would stand in the
sum's way: both make many short calls under one interpreter's lock.

The process (``privacy.noise_process``) is one for all generators of this process, and draws one vector at a time into
memory that both share. It starts at the first long vector, which is drawn here meanwhile, as is every
vector that it cannot take: it has another generator's, it may use one core alone, or it could not be started. A
vector is drawn by one of the two, from its first number to its last.

Promised: the same draws for the same key whoever draws them; nothing of the data reaches the process, which hears a
key, a deviation and a size; at most one vector is held; after ``drop`` nobody draws on, and the
key is gone. If the process ends in the middle of a vector, or says what is not so, no more of that vector is handed
out (``NoiseLost``), and this process draws all its noise itself from then on: what is in the room is
taken for noise only when the process has said so of this vector, by its number, and the last number of each piece
is no longer the mark that was put there before. The process ends with this one, and a fork of this one has no part in it.

Not promised: that a second core is free; nor, as ever, secrecy from programs that run as the same user.
"""

from __future__ import annotations

import atexit
import contextlib
import mmap
import os
import select
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from privacy.errors import NoiseLost
from privacy.keystream import bits_under
from privacy.noise_process import ORDER, PIECE, PROGRESS, READY
from privacy.rounded_gaussian import Sampler

LEAST: Final = 2**20
"""Draws that are worth a process: 7 ms of them. Of fewer, its start would pay off after a hundred vectors and more, and
where others need the second core too, waiting for it takes longer than drawing."""
_NONE: Final = np.empty(0, dtype=np.int64)
_MARK: Final = np.iinfo(np.int64).min
"""No draw: deviations are below 2^53, and no draw is 2^10 of them away."""
_MESSAGES: Final = 2**12
"""Most messages read at once."""
_COMMAND: Final = ("-m", "privacy.noise_process")
_PACKAGES: Final = Path(__file__).resolve().parents[1]

IntVector = npt.NDArray[np.int64]


class NoiseAhead:
    """Draws of one deviation for one vector after the other."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._over = _NONE
        self._sampler: Sampler | None = None
        self._drawer: Drawer | None = None
        self._deviation = self._size = self._drawn = self._given = 0

    def start(self, key: bytes, noise_sd: int, size: int) -> None:
        """Begin with the draws of one vector; what was left of the last one is dropped.

        Args:
            key: 32 bytes that serve this vector alone.
            noise_sd: 1 .. 2^53-1.
            size: at least 1.
        """
        self.drop()
        self._deviation, self._size = noise_sd, size
        self._drawn = self._given = 0
        drawer = _drawer
        if _cores() > 1 and drawer.begin(self, key, noise_sd, size):
            self._drawer = drawer
        else:
            self._sampler = Sampler(bits_under(key), noise_sd)

    def holds(self, noise_sd: int, size: int) -> bool:
        """Say whether so many draws of this deviation are still to be handed out."""
        return noise_sd == self._deviation and 0 < size <= self._size - self._given

    def take(self, size: int) -> IntVector:
        """Hand out the next draws, at most as many as ``holds`` says; waits for them.

        Raises:
            NoiseLost: the process that draws them failed; none are handed out, now or later.
            What drawing here raised: likewise.
        """
        given = np.empty(size, dtype=np.int64)
        try:
            if self._drawer is None:
                self._fill(given)
            else:
                self._drawer.copy(self._given, given)
        except BaseException:
            self.drop()
            raise
        self._given += size
        if self._given == self._size:
            self._end()
        return given

    def drop(self) -> None:
        """End who draws; drop the key and what was drawn. Harmless without any, and in a fork."""
        self._end()

    def close(self) -> None:
        """Drop, and clear the memory in which vectors were drawn."""
        self._end()
        if self._process == os.getpid():
            _drawer.clear()

    def _end(self) -> None:
        drawer, self._drawer = self._drawer, None
        if drawer is not None and self._process == os.getpid():
            drawer.give_back(self)
        self._sampler = None
        self._deviation = self._size = 0
        self._over = _NONE

    def _fill(self, given: IntVector) -> None:
        """Draw here and now, in the process's pieces."""
        sampler = self._sampler
        at = 0
        while sampler is not None and at < len(given):
            if not len(self._over):
                piece = min(PIECE, self._size - self._drawn)
                self._drawn += piece
                if piece <= len(given) - at:
                    sampler.fill(given[at : at + piece])
                    at += piece
                    continue
                self._over = np.empty(piece, dtype=np.int64)
                sampler.fill(self._over)
            some = min(len(self._over), len(given) - at)
            given[at : at + some], self._over = self._over[:some], self._over[some:]
            at += some


class Drawer:
    """The process that draws, as this one sees it: lent for one vector at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._memory: mmap.mmap | None = None
        self._room = _NONE
        self._holder: weakref.ref[NoiseAhead] | None = None
        self._number = self._size = self._drawn = 0
        self._ready = self._given_up = self._used = False

    def begin(self, holder: NoiseAhead, key: bytes, noise_sd: int, size: int) -> bool:
        """Have a vector drawn for this holder; False where it must draw itself.

        The first call starts the process and says False; so do calls until it is ready, while it has another
        holder's vector, and for ever after it failed.
        """
        with self._lock:
            if self._holder is not None:
                if self._holder() is not None:
                    return False
                self._stop()  # in the middle of a vector that nobody can ask for any more
            if self._process is not None and (self._ended() or len(self._room) < size):
                self._stop()
            if self._given_up:
                return False
            if self._process is None:
                self._start(size)
                return False
            if not self._is_ready():
                return False
            return self._order(holder, key, noise_sd, size)

    def copy(self, low: int, given: IntVector) -> None:
        """Write the holder's draws from the ``low``-th on over ``given``; waits until they are drawn.

        Raises:
            NoiseLost: the process ended, or said what is not so.
        """
        high = low + len(given)
        while self._drawn < high:
            self._hear()
        given[:] = self._room[low:high]

    def give_back(self, holder: NoiseAhead) -> None:
        """End a holder's vector. The process goes on only if the vector is finished: else nobody draws on."""
        with self._lock:
            if self._holder is not None and self._holder() is holder:
                self._holder = None
                if self._drawn < self._size:
                    self._stop()

    def clear(self) -> None:
        """Give the memory of handed out vectors back to the system, unless somebody's is being drawn."""
        with self._lock:
            if self._memory is None or self._holder is not None or not self._used:
                return
            self._used = False
            try:
                self._memory.madvise(mmap.MADV_REMOVE)
            except (
                OSError
            ):  # a system that cannot: then all of the memory goes, and the process with it
                self._stop()

    def end(self) -> None:
        """End the process, and drop what it drew."""
        with self._lock:
            self._stop()

    def _start(self, size: int) -> None:
        """Start the process, with room for vectors up to this size."""
        self._given_up = True
        if not sys.executable or not hasattr(os, "memfd_create") or not hasattr(os, "pidfd_open"):
            return
        with contextlib.ExitStack() as opened, contextlib.suppress(OSError):
            descriptor = os.memfd_create("noise", os.MFD_CLOEXEC)
            opened.callback(os.close, descriptor)
            os.ftruncate(descriptor, 8 * size)
            memory = mmap.mmap(descriptor, 8 * size)
            here = os.pidfd_open(os.getpid())
            opened.callback(os.close, here)
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-P", *_COMMAND, str(descriptor), str(here)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(descriptor, here),
                env={
                    "PYTHONPATH": str(_PACKAGES),
                    "OMP_NUM_THREADS": "1",
                    "OPENBLAS_NUM_THREADS": "1",
                },
                cwd="/",
                bufsize=0,
            )
            self._memory = memory
            self._room = np.frombuffer(memory, dtype=np.int64)
            self._given_up = False

    def _ended(self) -> bool:
        """Say whether the process is gone. One that never was ready is not tried again."""
        if self._process is None or self._process.poll() is None:
            return False
        if not self._ready:
            self._given_up = True
        return True

    def _is_ready(self) -> bool:
        """Look, without waiting, whether the process has said that it is."""
        if not self._ready and self._process is not None and self._process.stdout is not None:
            answers = self._process.stdout.fileno()
            look = select.poll()
            look.register(answers, select.POLLIN)
            if look.poll(0):
                self._ready = os.read(answers, len(READY)) == READY
                if not self._ready:
                    self._given_up = True
                    self._stop()
        return self._ready

    def _order(self, holder: NoiseAhead, key: bytes, noise_sd: int, size: int) -> bool:
        """Send the order; False where the process was gone before it."""
        self._number += 1
        self._size, self._drawn = size, 0
        self._room[PIECE - 1 : size : PIECE] = _MARK
        self._room[size - 1] = _MARK
        self._used = True
        order = bytearray(ORDER.pack(key, self._number, noise_sd, size))
        try:
            assert self._process is not None
            assert self._process.stdin is not None
            self._process.stdin.write(order)  # at once: a pipe takes so few bytes whole
        except BrokenPipeError:
            self._stop()
            return False
        finally:
            order[:] = bytes(len(order))
        self._holder = weakref.ref(holder)
        return True

    def _hear(self) -> None:
        """Wait for news of the vector."""
        if self._process is None or self._process.stdout is None:
            raise NoiseLost("it was ended")
        news = os.read(self._process.stdout.fileno(), PROGRESS.size * _MESSAGES)
        if not news:
            raise self._lost("it ended")
        if len(news) % PROGRESS.size:
            raise self._lost("it sent a part of a message")
        for number, drawn in PROGRESS.iter_unpack(news):
            if number != self._number or drawn != min(self._drawn + PIECE, self._size):
                raise self._lost(f"it told of draw {drawn} of vector {number}, which was not next")
            if self._room[drawn - 1] == _MARK:
                raise self._lost(f"it told of draw {drawn}, which is not there")
            self._drawn = drawn

    def _lost(self, reason: str) -> NoiseLost:
        with self._lock:
            self._given_up = True
            self._stop()
        return NoiseLost(reason)

    def _stop(self) -> None:
        """Kill the process, wait until it is gone, and drop the room. The next long vector starts another."""
        process, self._process = self._process, None
        self._room, self._memory, self._holder = _NONE, None, None
        self._ready = self._used = False
        self._size = self._drawn = 0
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


_drawer = Drawer()
_inherited: list[Drawer] = []
"""In a fork: its parent's, which it neither uses nor ends."""


def _begin_anew() -> None:
    global _drawer
    _inherited.append(_drawer)
    _drawer = Drawer()


os.register_at_fork(after_in_child=_begin_anew)
atexit.register(lambda: _drawer.end())

"""Noise for a long vector, drawn by a second thread while the first one computes what it is added to.

A sum of millions of coordinates takes longer to make than its noise, and needs none of it before its end. So a
mechanism says first how many draws it will ask for (``Randomness.expect``), a public number; they are
drawn under a key of their own, in pieces of one size, and handed out in order, each once.

Promised: the same draws for the same key whether or not there is a second core to draw them on; nothing
of the data reaches this module; at most one vector is held; after ``drop`` no thread draws on, and
the key is gone. Not promised: that a second core is free. Where this process may use one alone, or is given no more
threads, pieces are drawn when they are asked for.
"""

from __future__ import annotations

import os
import threading
from typing import Final

import numpy as np
import numpy.typing as npt

from privacy.rounded_gaussian import Bits, Sampler

LEAST: Final = 2**16
"""Draws that are worth a thread: half a millisecond."""
_PIECE: Final = 2**15
"""Draws between two looks at whether they are still wanted."""
_NONE: Final = np.empty(0, dtype=np.int64)

IntVector = npt.NDArray[np.int64]


class NoiseAhead:
    """Draws of one deviation for one vector after the other."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._room = self._over = _NONE
        self._sampler: Sampler | None = None
        self._thread: threading.Thread | None = None
        self._grown = threading.Condition()
        self._failure: BaseException | None = None
        self._deviation = self._size = self._drawn = self._given = 0
        self._unwanted = False

    def start(self, bits: Bits, noise_sd: int, size: int) -> None:
        """Begin with the draws of one vector; what was left of the last one is dropped.

        Args:
            bits: under a key that serves this vector alone.
            noise_sd: 1 .. 2^53-1.
            size: at least 1.
        """
        self.drop()
        self._deviation, self._size = noise_sd, size
        self._drawn = self._given = 0
        self._sampler, self._failure, self._unwanted = Sampler(bits, noise_sd), None, False
        if _cores() > 1:
            if len(self._room) < size:
                self._room = np.empty(size, dtype=np.int64)
            thread = threading.Thread(target=self._draw, name="noise ahead")
            try:
                thread.start()
            except RuntimeError:  # the system has no more threads: as with one core
                return
            self._thread = thread

    def holds(self, noise_sd: int, size: int) -> bool:
        """Say whether so many draws of this deviation are still to be handed out."""
        return noise_sd == self._deviation and 0 < size <= self._size - self._given

    def take(self, size: int) -> IntVector:
        """Hand out the next draws, at most as many as ``holds`` says; waits for the thread.

        Raises:
            What drawing raised: then none are handed out, now or later.
        """
        given = np.empty(size, dtype=np.int64)
        try:
            if self._thread is None:
                self._fill(given)
            else:
                self._copy(given)
        except BaseException:
            self.drop()
            raise
        self._given += size
        if self._given == self._size:
            self._end()
        return given

    def drop(self) -> None:
        """End the thread; drop its key and what it drew. Harmless without one, and in a fork."""
        self._unwanted = True
        self._end()

    def _end(self) -> None:
        if self._thread is not None and self._process == os.getpid():
            self._thread.join()  # within a piece
        self._thread = self._sampler = None
        self._deviation = self._size = 0
        self._over = _NONE

    def _draw(self) -> None:
        """What the thread does."""
        sampler, low = self._sampler, 0
        try:
            while sampler is not None and low < self._size and not self._unwanted:
                high = min(low + _PIECE, self._size)
                sampler.fill(self._room[low:high])
                low = high
                with self._grown:
                    self._drawn = high
                    self._grown.notify()
        except BaseException as failure:  # noqa: BLE001 - raised where the noise is asked for
            with self._grown:
                self._failure = failure
                self._grown.notify()

    def _copy(self, given: IntVector) -> None:
        """Wait for the thread to have drawn these."""
        stop = self._given + len(given)
        with self._grown:
            self._grown.wait_for(lambda: self._drawn >= stop or self._failure is not None)
        if self._failure is not None:
            raise self._failure
        given[:] = self._room[self._given : stop]

    def _fill(self, given: IntVector) -> None:
        """Draw here and now, in the thread's pieces."""
        sampler = self._sampler
        at = 0
        while sampler is not None and at < len(given):
            if not len(self._over):
                piece = min(_PIECE, self._size - self._drawn)
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


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))

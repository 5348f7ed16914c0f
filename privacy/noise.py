"""Randomness that privacy rests on: noise, Poisson sampling, choices.

``SecureRandom`` is the only source in production. It is AES-256 in counter mode (NIST SP 800-38A,
section 6.5) under a key from the operating system that is used for one purpose and dropped; there
is no seed argument, so no run can be made to repeat its noise. Two generators share nothing. The noise of a
long vector, which a second core may draw, has a key of its own for each vector.

``TestRng`` gives the same draws from a seed and says so (``production`` is False): what it touched
is not private, and a ledger that sees its stamp voids the outputs outside test federations.

Neither is constant-time, and neither protects a key against someone who reads this process's
memory while the generator is open.
"""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from types import TracebackType
from typing import ClassVar, Final, Protocol, Self

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import CipherContext

from privacy import rounded_gaussian
from privacy.errors import InvalidParameter, RandomnessClosed
from privacy.events import FULL_BATCH, MAX_LENGTH, require_int
from privacy.keystream import keystream, next_bytes
from privacy.noise_ahead import LEAST, NoiseAhead

_MAX_DRAW: Final = 2**31
_FEW: Final = 2**13
_FIRST_AHEAD: Final = 2**12
_MOST_AHEAD: Final = 2**17
"""Where few numbers are asked for again and again, so many are drawn at once: twice as many each time,
so that at most about as many are drawn in vain as were asked for."""
_NONE: Final = np.empty(0, dtype=np.int64)
_CLOSED: Final = "this generator was closed and its key dropped; open a new one for each purpose"
_FORKED: Final = (
    "this process is a copy of the one that opened this generator, and the two would share their noise; "
    "open a new one"
)


class Randomness(Protocol):
    """Draws that a training step or a metric release needs."""

    @property
    def production(self) -> bool:
        """Whether the draws are secret and unrepeatable."""
        ...

    def gaussian_integers(self, noise_sd: int, size: int) -> npt.NDArray[np.int64]:
        """Draw round(N(0, noise_sd^2)) exactly; int64, shape [size]."""
        ...

    def expect(self, noise_sd: int, size: int) -> None:
        """Hear of so many draws to come: public numbers. A second core may draw them meanwhile."""
        ...

    def poisson_mask(self, sampling: int, size: int) -> npt.NDArray[np.bool_]:
        """Take each of ``size`` patients independently with probability sampling / 2^32."""
        ...

    def below(self, bound: int) -> int:
        """Draw a uniform integer in 0 .. bound-1."""
        ...

    def close(self) -> None:
        """Drop the key; every later draw is refused."""
        ...


class _Draws:
    """What both sources do with a key stream of their own."""

    def __init__(self, key: bytes) -> None:
        self._stream: CipherContext | None = keystream(key)
        self._process = os.getpid()
        self._deviation = 0
        self._sampler: rounded_gaussian.Sampler | None = None
        self._room = self._ahead = _NONE
        self._next = _FIRST_AHEAD
        self._long = NoiseAhead()

    def expect(self, noise_sd: int, size: int) -> None:
        """Hear of a long vector of draws to come, which a second core then draws (``noise_ahead``).

        They come under a key of their own, so that neither their number nor when they are drawn moves any
        other draw. Who says nothing, or asks for other numbers of them, gets draws all the same.
        A vector that was announced before and not asked for is dropped.

        Args:
            noise_sd: as ``gaussian_integers`` will be asked for, at once or in parts.
            size: how many of it in all: a number that says nothing of the data.

        Raises:
            InvalidEvent: an argument is out of range.
            RandomnessClosed: the key was dropped, or the process is a fork of the one that has it.
        """
        require_int("noise_sd", noise_sd, 1, MAX_LENGTH)
        require_int("size", size, 0, _MAX_DRAW)
        self._open_stream()
        self._long.drop()
        if size >= LEAST:
            self._long.start(self._another_key(), noise_sd, size)

    @abstractmethod
    def _another_key(self) -> bytes:
        """32 bytes that no other stream has."""

    def gaussian_integers(self, noise_sd: int, size: int) -> npt.NDArray[np.int64]:
        """Draw round(N(0, noise_sd^2)) exactly.

        Who asks for few numbers of one deviation again is taken to go on so: more are drawn at once,
        which costs a fraction for each, and kept until they are asked for.

        Args:
            noise_sd: standard deviation in grid units, 1 .. 2^53-1.
            size: how many, >= 0.

        Returns:
            int64 array of shape [size].

        Raises:
            InvalidEvent: an argument is out of range.
            RandomnessClosed: the key was dropped, or the process is a fork of the one that has it.
        """
        require_int("noise_sd", noise_sd, 1, MAX_LENGTH)
        require_int("size", size, 0, _MAX_DRAW)
        self._open_stream()
        if self._long.holds(noise_sd, size):
            return self._long.take(size)
        if noise_sd != self._deviation:
            self._deviation, self._sampler = noise_sd, None
            self._ahead, self._next = _NONE, _FIRST_AHEAD
            return rounded_gaussian.sample(self._bytes, noise_sd, size)
        if self._sampler is None:
            self._sampler = rounded_gaussian.Sampler(self._bytes, noise_sd)
        drawn = np.empty(size, dtype=np.int64)
        if size > _FEW:
            self._sampler.fill(drawn)
            return drawn
        if size > len(self._ahead):
            self._draw_ahead(self._sampler, max(size, self._next))
            self._next = min(2 * self._next, _MOST_AHEAD)
        drawn[:], self._ahead = self._ahead[:size], self._ahead[size:]
        return drawn

    def _draw_ahead(self, sampler: rounded_gaussian.Sampler, more: int) -> None:
        """Draw so many behind those that are left, in the memory of those that are used."""
        left = len(self._ahead)
        if left + more > len(self._room):
            room = np.empty(more + _FEW, dtype=np.int64)
            room[:left], self._room = self._ahead, room
        else:
            self._room[:left] = self._ahead  # few
        self._ahead = self._room[:left]  # where they are now, also if no more can be drawn
        sampler.fill(self._room[left : left + more])
        self._ahead = self._room[: left + more]

    def poisson_mask(self, sampling: int, size: int) -> npt.NDArray[np.bool_]:
        """Take each of ``size`` patients independently with probability exactly sampling / 2^32.

        Args:
            sampling: threshold, 1 .. 2^32; 2^32 takes everybody.
            size: how many patients, >= 0.

        Returns:
            bool array of shape [size]; it may well be all False, which is a valid batch.

        Raises:
            InvalidEvent: an argument is out of range.
            RandomnessClosed: the key was dropped.
        """
        require_int("sampling", sampling, 1, FULL_BATCH)
        require_int("size", size, 0, _MAX_DRAW)
        words = np.frombuffer(self._bytes(4 * size), dtype="<u4")
        return words.astype(np.uint64) < np.uint64(sampling)

    def below(self, bound: int) -> int:
        """Draw a uniform integer in 0 .. bound-1, without modulo bias.

        Raises:
            InvalidParameter: bound is not an integer in 1 .. 2^64.
            RandomnessClosed: the key was dropped.
        """
        if type(bound) is not int or not 1 <= bound <= 2**64:
            raise InvalidParameter(f"bound = {bound!r} must be an integer in 1 .. 2^64")
        usable = 2**64 - 2**64 % bound
        while True:
            word = int.from_bytes(self._bytes(8), "little")
            if word < usable:
                return word % bound

    def close(self) -> None:
        """Drop the key, and what was drawn ahead. Closing twice is harmless."""
        self._stream = None
        self._sampler = None
        self._room = self._ahead = _NONE
        self._long.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> str:
        raise TypeError("a generator is not copied or stored: two copies would share their noise")

    def _bytes(self, count: int) -> bytes:
        return next_bytes(self._open_stream(), count)

    def _open_stream(self) -> CipherContext:
        if self._process != os.getpid():
            raise RandomnessClosed(_FORKED)
        if self._stream is None:
            raise RandomnessClosed(_CLOSED)
        return self._stream


class SecureRandom(_Draws):
    """Secret, unrepeatable draws. One instance per (experiment, round, purpose), then closed."""

    production: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__(os.urandom(32))

    def _another_key(self) -> bytes:
        return os.urandom(32)


class TestRng(_Draws):
    """Repeatable draws for tests and test federations; never private.

    Args:
        seed: any integer; the same seed gives the same draws on every machine.
    """

    __test__ = False  # pytest would collect it by its name
    production: ClassVar[bool] = False

    def __init__(self, seed: int) -> None:
        super().__init__(hashlib.sha256(b"consilium test rng\n%d" % seed).digest())
        self._seed = seed
        self._vectors = 0

    def _another_key(self) -> bytes:
        self._vectors += 1
        return hashlib.sha256(b"consilium test rng\n%d %d" % (self._seed, self._vectors)).digest()

"""The process that draws long vectors of noise: ``python -m privacy.noise_process ROOM PARENT``.

Started by ``privacy.noise_ahead`` alone. Both numbers are file descriptors: of memory that it shares with its parent,
and of the parent itself (a pidfd). An order on standard input (``ORDER``) names a key, a vector's number, a deviation
and a size. The draws are written over the beginning of the shared memory in pieces of one size, and after each
piece standard output says (``PROGRESS``) of which vector so many are there; before its first order it says (0, 0).

Promised: it hears nothing else, so nothing of any data; a vector's key and stream are dropped with its last draw; it
ends within a piece when its parent ends, however that ends, or closes the pipe, or says anything while it draws. It
ignores ctrl-C, which is its parent's to handle, and leaves no core dump. It writes nothing anywhere else.
"""

from __future__ import annotations

import mmap
import os
import resource
import select
import signal
import struct
import sys
from typing import Final

import numpy as np
import numpy.typing as npt

from privacy.events import MAX_LENGTH
from privacy.keystream import KEY_BYTES, bits_under
from privacy.rounded_gaussian import Sampler

ORDER: Final = struct.Struct(f"<{KEY_BYTES}s3Q")
"""Key, the vector's number (from 1), deviation, size: less than a pipe takes at once."""
PROGRESS: Final = struct.Struct("<2Q")
"""The vector's number, and how many of its draws are in the room."""
READY: Final = PROGRESS.pack(0, 0)
PIECE: Final = 2**15
"""Draws between two messages, and between two looks at whether they are still wanted."""
EXIT_MISTAKEN: Final = 2

_ORDERS: Final = 0
_ANSWERS: Final = 1


def main() -> int:
    """Serve until the parent ends or closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if len(sys.argv) != 3 or not all(word.isdecimal() for word in sys.argv[1:]):
        sys.stderr.write("privacy.noise_process is started by privacy.noise_ahead alone\n")
        return EXIT_MISTAKEN
    descriptor, parent = map(int, sys.argv[1:])
    memory = mmap.mmap(descriptor, 0)
    os.close(descriptor)
    room = np.frombuffer(memory, dtype=np.int64)
    heard = select.poll()
    heard.register(_ORDERS, select.POLLIN)
    heard.register(parent, select.POLLIN)
    try:
        os.write(_ANSWERS, READY)
        while True:
            if any(descriptor == parent for descriptor, _ in heard.poll()):
                return 0
            order = bytearray(ORDER.size)
            count = os.readv(_ORDERS, [order])
            if count == 0:
                return 0
            if count != ORDER.size or not _draw(order, room, heard):
                return EXIT_MISTAKEN
    except BrokenPipeError:
        return 0


def _draw(order: bytearray, room: npt.NDArray[np.int64], heard: select.poll) -> bool:
    """Draw a vector; say whether it was one that can be drawn and was wanted to its end."""
    _, number, noise_sd, size = ORDER.unpack(order)
    if not 1 <= noise_sd <= MAX_LENGTH or not 1 <= size <= len(room):
        return False
    sampler = Sampler(bits_under(order[:KEY_BYTES]), noise_sd)
    order[:] = bytes(len(order))
    for low in range(0, size, PIECE):
        if heard.poll(0):
            return False
        high = min(low + PIECE, size)
        sampler.fill(room[low:high])
        os.write(_ANSWERS, PROGRESS.pack(number, high))
    return True


if __name__ == "__main__":
    sys.exit(main())

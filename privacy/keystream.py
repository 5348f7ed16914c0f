"""AES-256 in counter mode (NIST SP 800-38A, section 6.5): uniform bytes from a key that is used for one stream.

Promised: the stream of the standard. Not promised: constant time, nor a key that is overwritten in memory; it goes
with the last reference to what was opened under it.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from privacy.rounded_gaussian import Bits

KEY_BYTES: Final = 32
_ZERO_BLOCK: Final = bytes(16)
_ZEROS: Final = bytes(2**16)
"""What the key stream is added to, at most so many bytes of it a call."""


def keystream(key: bytes | bytearray, counter: bytes = _ZERO_BLOCK) -> CipherContext:
    """Open an AES-256-CTR key stream; ``update(zeros)`` gives its next bytes.

    Args:
        key: 32 bytes, used for one stream only.
        counter: initial counter block of 16 bytes. All zeros is right for a key used once.
    """
    return Cipher(algorithms.AES256(key), modes.CTR(counter)).encryptor()


def next_bytes(stream: CipherContext, count: int) -> bytes:
    """Give so many of a key stream's next bytes."""
    zeros = memoryview(_ZEROS)[:count] if count <= len(_ZEROS) else bytes(count)
    return stream.update(zeros)


def bits_under(key: bytes | bytearray) -> Bits:
    """Open a key's stream from its beginning, as a source of draws."""
    return partial(next_bytes, keystream(key))

"""Masks: AES-256-CTR key streams, added to a vector mod 2^64, in place.

A mask is the key stream (NIST SP 800-38A, 6.5) of a key that is used for this mask only, counter from
zero, read as unsigned 64-bit little-endian words. The vector is worked through in pieces that stay in
the processor's cache; each of two threads takes its part of it (OpenSSL and numpy release the
interpreter's lock), which is what it pays for: a stream may be entered at any block.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import CipherContext

from privacy.keystream import keystream

UInt64Vector = npt.NDArray[np.uint64]

_WORD: Final = 8
_BLOCK_WORDS: Final = 2
_PIECE_WORDS: Final = 1 << 13  # 64 KiB: piece, zeros and stream together stay in the L2 cache
_WORTH_A_THREAD: Final = 1 << 17
_ZEROS: Final = bytes(_PIECE_WORDS * _WORD)


class Mask(NamedTuple):
    """A key of 32 bytes, and whether its stream is added or taken away."""

    key: bytes
    add: bool


def apply(vector: UInt64Vector, masks: Sequence[Mask], *, threads: int | None = None) -> None:
    """Add masks to a vector mod 2^64, or take them away, in place.

    Args:
        vector: uint64 ``[n]``, contiguous.
        masks: in any order.
        threads: at most so many; by default the processors there are, at most 4.
    """
    if not masks:
        return
    most = min(4, os.cpu_count() or 1) if threads is None else threads
    workers = max(1, min(most, len(masks) * len(vector) // _WORTH_A_THREAD))
    if workers == 1:
        _work(vector, masks, 0)
        return
    step = -(-len(vector) // workers)
    step += -step % _BLOCK_WORDS
    with ThreadPoolExecutor(workers) as pool:
        parts = [
            pool.submit(_work, vector[start : start + step], masks, start)
            for start in range(0, len(vector), step)
        ]
        for part in parts:
            part.result()


def _work(vector: UInt64Vector, masks: Sequence[Mask], start: int) -> None:
    """Apply the words ``start ..`` of every stream to a part of the vector."""
    first = (start // _BLOCK_WORDS).to_bytes(16, "big")
    streams = [(keystream(mask.key, first), mask.add) for mask in masks]
    buffer = bytearray(len(_ZEROS) + 15)
    words = np.frombuffer(buffer, dtype="<u8", count=_PIECE_WORDS)
    for at in range(0, len(vector), _PIECE_WORDS):
        piece = vector[at : at + _PIECE_WORDS]
        _apply_piece(piece, streams, buffer, words[: len(piece)])


def _apply_piece(
    piece: UInt64Vector,
    streams: Sequence[tuple[CipherContext, bool]],
    buffer: bytearray,
    words: UInt64Vector,
) -> None:
    zeros = memoryview(_ZEROS)[: len(piece) * _WORD]
    for stream, add in streams:
        stream.update_into(zeros, buffer)
        (np.add if add else np.subtract)(piece, words, out=piece)

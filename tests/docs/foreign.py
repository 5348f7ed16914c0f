"""A verifier written from ``docs/formats.md`` alone: hashlib, json, base64 and libsodium.

It imports nothing of ours, so that the page, not the code, is what it tests.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from typing import Any

from nacl.signing import VerifyKey

ZEROS = "0" * 64


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def signature_holds(public: str, kind: str, body: bytes, signature: str) -> bool:
    """Section 3; libsodium raises when a signature does not verify."""
    message = f"consilium {kind} v1\n".encode() + struct.pack(">Q", len(body)) + body
    VerifyKey(bytes.fromhex(public)).verify(message, bytes.fromhex(signature))
    return True


def key_id(algorithm: str, public: str) -> str:
    """Section 2."""
    message = b"consilium key v1\n" + algorithm.encode() + b"\n" + bytes.fromhex(public)
    return hashlib.sha256(message).digest()[:16].hex()


def entry_hash(body: bytes, signature: str) -> str:
    """Section 4."""
    raw = bytes.fromhex(signature)
    leaf = struct.pack(">I", len(body)) + body + struct.pack(">I", len(raw)) + raw
    return sha256(b"\x00" + leaf)


def canonical(value: Any) -> bytes:
    """Section 1."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def root(hashes: list[str]) -> str:
    """Section 5."""
    if not hashes:
        return sha256(b"")
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    left, right = root(hashes[:split]), root(hashes[split:])
    return sha256(b"\x01" + bytes.fromhex(left) + bytes.fromhex(right))


def check_note(note: str, log_key: str, witness_key: str) -> tuple[str, int, str, int]:
    """Section 6: origin, size, root and the cosignature's time of a note with two lines."""
    text, _, lines = note.rpartition("\n\n")
    text += "\n"
    origin, size, tree_root = text.split("\n")[:3]
    first, second = lines.rstrip("\n").split("\n")
    name, signature = _line(first, 0x01, log_key)
    assert name == origin
    VerifyKey(bytes.fromhex(log_key)).verify(text.encode(), signature)
    name, payload = _line(second, 0x04, witness_key)
    time_s = int.from_bytes(payload[:8], "big")
    message = f"cosignature/v1\ntime {time_s}\n".encode() + text.encode()
    VerifyKey(bytes.fromhex(witness_key)).verify(message, payload[8:])
    return origin, int(size), base64.b64decode(tree_root).hex(), time_s


def int64_vector(blob: bytes) -> list[int]:
    """Section 8."""
    magic = b"consilium int64 v1\n"
    assert blob.startswith(magic)
    (count,) = struct.unpack(">Q", blob[len(magic) : len(magic) + 8])
    return list(struct.unpack(f"<{count}q", blob[len(magic) + 8 :]))


def model_tensors(blob: bytes) -> dict[str, list[float]]:
    """Section 9."""
    (length,) = struct.unpack("<Q", blob[:8])
    header = json.loads(blob[8 : 8 + length])
    data = blob[8 + length :]
    return {
        name: list(struct.unpack(f"<{(end - start) // 8}d", data[start:end]))
        for name, tensor in header.items()
        for start, end in [tensor["data_offsets"]]
    }


def write_bundle(sections: list[tuple[bytes, bytes]]) -> bytes:
    """Section 12."""
    data = b"consilium bundle v1\n"
    for tag, payload in sections:
        data += tag + struct.pack(">Q", len(payload)) + payload
    return data + b"HASH" + struct.pack(">Q", 32) + hashlib.sha256(data).digest()


def leaf(body: bytes, signature: str) -> bytes:
    """Section 4."""
    raw = bytes.fromhex(signature)
    return struct.pack(">I", len(body)) + body + struct.pack(">I", len(raw)) + raw


def _line(line: str, kind: int, public: str) -> tuple[str, bytes]:
    dash, name, encoded = line.split(" ")
    assert dash == "—"
    raw = base64.b64decode(encoded, validate=True)
    wanted = hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + bytes.fromhex(public)).digest()
    assert raw[:4] == wanted[:4]
    return name, raw[4:]

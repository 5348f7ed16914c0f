"""A tap on the line between a node and its coordinator: what really left, counted at the socket.

`Tap` relays TCP both ways and keeps what the node sent, connection by connection. `releases` finds in
it every vector in the update codec, whole or cut off by a death, whatever the node's register, its
outbox or the log say about it. A vector that left is out: this is the count that charges must cover.

Not promised: anything under TLS; the tap listens to plain HTTP on loopback.
"""

from __future__ import annotations

import socket
import threading

from ledger.experiment.tensors import UPDATE_HEADER_BYTES, UPDATE_MAGIC, VALUE_BYTES
from tests.patience import PATIENCE_S

_CHUNK = 65_536


class Tap:
    """See the module's first lines. ``port`` is where the node connects to.

    Args:
        target: the coordinator's port on loopback.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sent: list[bytearray] = []
        self._found: dict[int, tuple[int, frozenset[bytes], frozenset[bytes]]] = {}
        self._upstream = 0
        self._counting = threading.Condition()
        self._closing = False
        threading.Thread(target=self._accept, name="tap", daemon=True).start()

    def close(self) -> None:
        """Take no further connection."""
        self._closing = True
        self._listener.close()

    def sent(self) -> list[bytes]:
        """Everything that the node sent, connection by connection."""
        return [bytes(stream) for stream in self._sent]

    def ran_dry(self, timeout_s: float = PATIENCE_S) -> bool:
        """Wait until everything that a dead node had sent is counted; False when it takes too long."""
        with self._counting:
            return self._counting.wait_for(lambda: self._upstream == 0, timeout_s)

    def releases(self) -> tuple[frozenset[bytes], int]:
        """Distinct vectors that left whole, and the number of those that left in part only.

        The start of a vector that also left whole is the same release, cut off once and sent again.
        """
        whole: set[bytes] = set()
        parts: set[bytes] = set()
        for number, stream in enumerate(list(self._sent)):
            size = len(stream)
            if number not in self._found or self._found[number][0] != size:
                self._found[number] = (size, *_vectors(bytes(stream)))
            whole |= self._found[number][1]
            parts |= self._found[number][2]
        cut = {part for part in parts if part and not any(w.startswith(part) for w in whole)}
        return frozenset(whole), len(cut)

    def _accept(self) -> None:
        while not self._closing:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target), timeout=PATIENCE_S)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            kept = bytearray()
            self._sent.append(kept)
            with self._counting:
                self._upstream += 1
            threading.Thread(target=self._carry_up, args=(near, far, kept), daemon=True).start()
            threading.Thread(target=_relay, args=(far, near, None), daemon=True).start()

    def _carry_up(self, near: socket.socket, far: socket.socket, kept: bytearray) -> None:
        try:
            _relay(near, far, kept)
        finally:
            with self._counting:
                self._upstream -= 1
                self._counting.notify_all()


def _vectors(data: bytes) -> tuple[frozenset[bytes], frozenset[bytes]]:
    """Vectors in one connection's bytes: whole ones, and starts of ones."""
    whole: set[bytes] = set()
    parts: set[bytes] = set()
    at = 0
    while (at := data.find(UPDATE_MAGIC, at)) >= 0:
        count = int.from_bytes(data[at + len(UPDATE_MAGIC) : at + UPDATE_HEADER_BYTES], "big")
        end = at + UPDATE_HEADER_BYTES + VALUE_BYTES * count
        vector = data[at + UPDATE_HEADER_BYTES : end]
        (whole if end <= len(data) else parts).add(vector)
        at += len(UPDATE_MAGIC)
    return frozenset(whole), frozenset(parts)


def _relay(source: socket.socket, sink: socket.socket, keep: bytearray | None) -> None:
    """Carry bytes one way until one of the two is gone."""
    try:
        while data := source.recv(_CHUNK):
            if keep is not None:
                keep += data
            sink.sendall(data)
    except OSError:
        pass
    finally:
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

"""Accounting for what left a node: every byte public by declaration, key material, framing, or charged.

`account` takes the streams that a tap kept and the federation's log, and gives each byte of each request to one
of four heads, or to ``unmatched``:

- **framing**: the request line with positions in the log, headers with the one value that they can have;
- **key material**: signatures over what is accounted for here, their times and nonces; cosignatures that verify;
- **public**: entries whose every field is declared, chosen by a person, or follows from the log; the documents that
  they name (schema, card);
- **charged**: ``update.submitted`` and the vector that it names, if the node had reserved for the experiment and the
  log counts no fewer steps for it than its different vectors need.

It proves that what left is matched. It does not prove that there is no other channel: not when something is
sent, nor what a signature's nonce might carry, nor what leaves by other ways than the tapped connection.
"""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from ledger.entries.entry import Entry, log_origin, parse_leaf
from ledger.entries.operations.rounds import UpdateSubmitted
from ledger.errors import LedgerError
from ledger.experiment.tensors import UPDATE_MAGIC
from ledger.formats.checkpoint import Checkpoint, verify_cosignature
from ledger.formats.note import COSIGNATURE_V1, VerifierKey, parse_note
from ledger.formats.witness import witness_name
from ledger.rules.state import State
from tests.egress.wire import Request, requests

PUBLIC_ENTRIES = {
    "member.joined": "keys and a commitment",
    "node.ready": "a software version",
    "node.resumed": "a nonce",
    "cell.registered": "declared sizes and a promise",
    "dataset.registered": "declared sizes, a public schema, a freshly salted root",
    "dataset.withdrawn": "a decision of the hospital",
    "budget.reserved": "the plan's charges",
    "budget.refused": "a reason of a closed list that no row decides",
    "budget.settled": "numbers of steps, fixed by rounds and restarts",
    "privacy.audited": "a figure about synthetic rows",
}
"""What a node may say without a charge, and why that is public."""
CHARGED_ENTRIES = ("update.submitted",)
_FIXED = {
    "accept": re.compile(r"\*/\*"),
    "accept-encoding": re.compile(r"identity"),
    "connection": re.compile(r"keep-alive"),
    "user-agent": re.compile(r"python-httpx/[0-9.]+"),
    "content-type": re.compile(r"application/octet-stream|application/json|text/plain"),
    "content-length": re.compile(r"\d+"),
    "host": re.compile(r"127\.0\.0\.1:\d+"),
    "range": re.compile(r"bytes=\d+-"),
}
_INPUT = re.compile(
    r'[a-z0-9]+=\((?:"[@a-z-]+" ?)+\);created=\d{10};keyid="[a-z0-9-]+";alg="ed25519"'
    r';nonce="[A-Za-z0-9_-]{16,44}";tag="consilium"'
)
_SIGNATURE = re.compile(r"[a-z0-9]+=:[A-Za-z0-9+/]{86}==:")
_PATHS = (
    (re.compile(r"/v1/(genesis|checkpoint|checkpoint/final|entries)"), ()),
    (re.compile(r"/v1/log"), ("size", "final", "wait")),
    (re.compile(r"/v1/cosignatures"), ("size",)),
    (re.compile(r"/v1/blobs/[0-9a-f]{64}"), ("offset", "total")),
)


@dataclass
class Account:
    """One node's bytes by head.

    Attributes:
        heads: bytes of each of the four, and ``unmatched``.
        unmatched: what could not be accounted for, in words.
        charged_vectors: different vectors that left.
    """

    heads: Counter[str] = field(default_factory=Counter)
    unmatched: list[str] = field(default_factory=list)
    charged_vectors: set[str] = field(default_factory=set)

    @property
    def total(self) -> int:
        """All bytes."""
        return sum(self.heads.values())

    def give(self, head: str, count: int) -> None:
        """Book so many bytes."""
        self.heads[head] += count

    def refuse(self, what: str, count: int) -> None:
        """Book bytes that match nothing."""
        self.heads["unmatched"] += count
        self.unmatched.append(f"{count} bytes: {what}")


class Books:
    """What the log says that a node may have sent.

    Args:
        entries: of the log, in order.
        state: their fold.
        node: the node's handle.
        root: of the log at a size.
    """

    def __init__(
        self, entries: Iterable[Entry], state: State, node: str, root: Callable[[int], bytes]
    ) -> None:
        self._state, self._node, self._root = state, node, root
        self._origin = log_origin(state.federation)
        witness = state.members[node].keys.witness
        assert witness is not None
        name = witness_name(self._origin, node)
        self._witness = VerifierKey(name, bytes.fromhex(witness.public), COSIGNATURE_V1)
        self._leaves: dict[bytes, Entry] = {}
        self._public: set[str] = set()
        self._vectors: dict[str, UpdateSubmitted] = {}
        vectors: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        for entry in entries:
            if entry.body.author != node:
                continue
            op = entry.body.op
            self._leaves[entry.leaf] = entry
            if op.type == "dataset.registered":
                self._public.add(op.schema_.sha256)
            if op.type in ("dataset.registered", "member.joined") and op.card is not None:
                self._public.add(op.card)
            if isinstance(op, UpdateSubmitted):
                self._vectors[op.update.sha256] = op
                kind = self._kind(op)
                vectors[(op.experiment, op.dataset, kind)].add(op.update.sha256)
        self._steps = {key: len(found) for key, found in vectors.items()}

    def document(self, digest: str) -> bool:
        """Whether an entry of this node names that document: a schema, or a card."""
        return digest in self._public

    def cosignature(self, lines: bytes, size: int) -> bool:
        """Whether this is the node's own signature over the log at that size, and nothing else."""
        if not 0 < size <= self._state.size:
            return False
        text = Checkpoint(self._origin, size, self._root(size)).text()
        try:
            (signed,) = parse_note(text + b"\n" + lines).signatures
            verify_cosignature(text, self._witness, signed.payload)
        except (LedgerError, ValueError):
            return False
        return signed.line() == lines

    def entry(self, leaf: bytes) -> Entry | None:
        """The node's entry of these bytes, if it is in the log."""
        return self._leaves.get(leaf)

    def charged(self, digest: str) -> str | None:
        """Why a vector is not covered by a charge; None where it is."""
        op = self._vectors.get(digest)
        if op is None:
            return "a vector that no update.submitted names"
        experiment = self._state.experiments.get(op.experiment)
        held = None if experiment is None else experiment.reservations.get(op.dataset)
        if experiment is None or held is None:
            return "a vector without a reservation"
        kind = self._kind(op)
        purpose, each = {
            "train": ("train", experiment.plan.steps_per_round),
            "evaluate": ("evaluate", 1),
            "baseline": ("baseline_evaluate", 1),
        }[kind]
        needed = self._steps[(op.experiment, op.dataset, kind)] * each
        if held.used.get(purpose, 0) < needed:
            return f"{needed} steps of {purpose} left, {held.used.get(purpose, 0)} are charged"
        return None

    def _kind(self, op: UpdateSubmitted) -> str:
        plan = self._state.experiments[op.experiment].plan
        if op.round <= plan.rounds:
            return "train"
        return "evaluate" if op.round == plan.rounds + 1 else "baseline"


def account(streams: Sequence[bytes], books: Books, federation: str, log_size: int) -> Account:
    """Account for everything that a node sent.

    Args:
        streams: what left on each connection, in order.
        books: of that node.
        federation: its id.
        log_size: entries in the log at the end; no position may be beyond.
    """
    made = Account()
    for stream in streams:
        for request in requests(stream):
            if isinstance(request, bytes):
                made.refuse("no request of ours", len(request))
            else:
                _head(made, request, federation, log_size)
                _body(made, request, books)
    return made


def _head(made: Account, request: Request, federation: str, log_size: int) -> None:
    left = request.head_bytes
    if not _is_ours(request, log_size):
        made.refuse(f"target {request.target[:80]}", len(request.target))
        left -= len(request.target)
    for name, value in request.headers:
        size = len(f"{name}: {value}\r\n".encode("latin-1"))
        if name in ("signature", "signature-input"):
            form = _SIGNATURE if name == "signature" else _INPUT
            fits, head = form.fullmatch(value) is not None, "key material"
        elif name == "content-digest":
            digest = b64encode(hashlib.sha256(request.body).digest()).decode()
            fits, head = value == f"sha-256=:{digest}:", "framing"
        elif name == "consilium-federation":
            fits, head = value == federation, "framing"
        else:
            known = _FIXED.get(name)
            fits, head = known is not None and known.fullmatch(value) is not None, "framing"
        if fits:
            made.give(head, size)
        else:
            made.refuse(f"header {name}: {value[:200]}", size)
        left -= size
    made.give("framing", left)


def _is_ours(request: Request, log_size: int) -> bool:
    parts = urlsplit(request.target)
    for path, names in _PATHS:
        if path.fullmatch(parts.path):
            query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
            whole = all(name in names and re.fullmatch(r"\d+(\.\d+)?", v) for name, v in query)
            placed = all(float(v) <= log_size for n, v in query if n in ("size", "final"))
            sized = all(int(v) == len(request.body) for n, v in query if n == "total")
            return whole and placed and sized and len({n for n, _ in query}) == len(query)
    return False


def _body(made: Account, request: Request, books: Books) -> None:
    body, path = request.body, urlsplit(request.target).path
    if not body:
        return
    if path == "/v1/entries":
        entry = books.entry(body)
        kind = None if entry is None else entry.body.op.type
        if kind in PUBLIC_ENTRIES:
            made.give("public", len(body))
        elif kind in CHARGED_ENTRIES:
            made.give("charged", len(body))
        else:
            made.refuse(
                f"an entry {kind or _type_of(body)} that the log or the list does not know",
                len(body),
            )
    elif path == "/v1/cosignatures":
        size = dict(parse_qsl(urlsplit(request.target).query)).get("size", "0")
        if books.cosignature(body, int(size)):
            made.give("key material", len(body))
        else:
            made.refuse("a cosignature that does not verify", len(body))
    elif path.startswith("/v1/blobs/"):
        _blob(made, body, path.rpartition("/")[2], books)
    else:
        made.refuse(f"a body to {path}", len(body))


def _blob(made: Account, body: bytes, name: str, books: Books) -> None:
    if hashlib.sha256(body).hexdigest() != name:
        made.refuse("a blob of another hash than its name", len(body))
    elif body.startswith(UPDATE_MAGIC):
        why = books.charged(name)
        if why is None:
            made.charged_vectors.add(name)
            made.give("charged", len(body))
        else:
            made.refuse(why, len(body))
    elif books.document(name):
        made.give("public", len(body))
    else:
        made.refuse(f"a document that no entry of the node names: {body[:60]!r}", len(body))


def _type_of(body: bytes) -> str:
    try:
        return str(json.loads(parse_leaf(body).raw)["op"]["type"])
    except LedgerError:
        return "of no form"

"""Replaying a copy from its first byte: steps 3, 4, 5 and 8 of a verification, in one pass.

Every entry takes the path that it took when it was sequenced (``ledger.rules.log.Log``): parse, judge the
envelope, verify the signature, fold, append (``ledger.rules.reverify.replay``). Where an entry does not pass, nothing after it can be
followed, and the replay says so instead of guessing. A stored column that contradicts its entry's
bytes is reported while the replay goes on, since the bytes are what counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from audit.errors import DamagedCopy
from audit.verification.findings import Check
from audit.verification.history import History
from audit.verification.sources import Copy, StoredEntry
from ledger.entries.entry import Entry, federation_id, parse_leaf
from ledger.entries.named_blobs import BlobKind, bound_cards, named_blobs
from ledger.entries.operations.values import BlobRef
from ledger.errors import BadSignature, MalformedInput, NotAdmitted, ProtocolUnknown
from ledger.rules.log import Log, Sequenced
from ledger.rules.reverify import replay as verified
from ledger.rules.signatures import workers_for
from ledger.rules.state import State


@dataclass(frozen=True, slots=True)
class Mention:
    """A blob and the first entry that names it."""

    kind: BlobKind
    ref: BlobRef
    index: int


@dataclass
class Replay:
    """What a replay found.

    Attributes:
        log: tree and state over the entries that passed.
        history: the index over them.
        federation: id of the genesis entry, or empty.
        blobs: the blobs that entries name, by SHA-256 and length.
        cards: commitments of cards.
        checks: steps 3, 4, 5 and 8.
        complete: whether every entry of the copy passed.
    """

    log: Log = field(default_factory=Log)
    history: History = field(default_factory=History)
    federation: str = ""
    blobs: dict[tuple[str, int], Mention] = field(default_factory=dict)
    cards: dict[str, int] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    complete: bool = False

    @property
    def size(self) -> int:
        """Entries that passed."""
        return self.log.size


def replay(copy: Copy) -> Replay:
    """Replay a copy as far as it can be followed; of a large one, other cores check signatures."""
    result = Replay()
    columns: list[Check] = []
    refused = _follow(result, copy, columns)
    if refused is None and not result.complete:
        refused = Check(3, "refuted", "there is no entry: not even a federation", "entry 0")
    result.checks += columns
    if refused is not None:
        result.checks.append(refused)
    result.checks += _proved(result, refused)
    return result


def _follow(result: Replay, copy: Copy, columns: list[Check]) -> Check | None:
    """Take in every entry that passes; why the next one does not, where one does not."""
    read: deque[StoredEntry] = deque()  # parsed, and not yet known to pass

    def parse(some: Iterator[StoredEntry], _: int) -> Iterator[Entry]:
        for stored in some:
            entry = parse_leaf(stored.leaf)
            read.append(stored)
            yield entry

    try:
        with workers_for(copy.size()) as workers:
            for item, state in verified(result.log, copy.entries(), parse, workers):
                _note(result, item, state)
                columns += _columns(item.entry, item.index, read.popleft())
    except DamagedCopy as error:
        return Check(3, "refuted", error.reason, error.place)
    except MalformedInput as error:
        reason = f"its bytes are not those of an entry: {error}"
        return Check(3, "refuted", reason, f"entry {result.size}")
    except NotAdmitted as error:
        return Check(4, "refuted", error.reason, f"entry {result.size}")
    except ProtocolUnknown as error:
        return Check(8, "not_checkable", error.reason, f"entry {result.size}")
    except BadSignature:
        reason = "it does not carry the signature of its author's key"
        return Check(5, "refuted", reason, f"entry {result.size}")
    result.complete = result.size > 0
    return None


def _note(result: Replay, item: Sequenced, state: State) -> None:
    op = item.entry.body.op
    if item.index == 0:
        result.federation = federation_id(item.entry)
    result.history.note(item, state)
    for named in named_blobs(op):
        key = named.ref.sha256, named.ref.bytes
        result.blobs.setdefault(key, Mention(named.kind, named.ref, item.index))
    for card in bound_cards(op):
        result.cards.setdefault(card, item.index)


def _columns(entry: Entry, index: int, stored: StoredEntry) -> list[Check]:
    """Stored index columns must be those of the entry's bytes."""
    if stored.columns is None:
        return []
    leaf, key, seq = stored.columns
    expected = {"leaf": bytes.fromhex(entry.hash), "key": entry.body.key, "seq": entry.body.seq}
    found = {"leaf": leaf, "key": key, "seq": seq}
    return [
        Check(
            1,
            "refuted",
            f"its stored column {name} is not that of its bytes",
            f"entry {index}, column {name}",
        )
        for name, value in expected.items()
        if found[name] != value or type(found[name]) is not type(value)
    ]


def _proved(result: Replay, refused: Check | None) -> list[Check]:
    size = result.size
    if size == 0:
        return []
    upto = f"entries 0 to {size - 1}" if size > 1 else "entry 0"
    applied = size - len(result.history.voids)
    checks = [
        Check(3, "proved", f"{upto} parse strictly: one spelling a value, nothing unknown"),
        Check(
            4,
            "proved",
            f"{len(result.history.chains)} key chains without gap or double; every view that an "
            "author stated was a prefix of this log",
        ),
        Check(5, "proved", f"{size} Ed25519 signatures verified under the keys admitted"),
        Check(
            8,
            "proved",
            f"folded anew: {applied} entries took effect, {size - applied} are void, each with "
            "its reason",
        ),
    ]
    if refused is not None and refused.place is not None:
        rest = f"nothing from {refused.place} on can be followed until that is explained"
        checks += [
            Check(step, "not_checkable", rest) for step in range(3, 15) if step != refused.step
        ]
    return checks

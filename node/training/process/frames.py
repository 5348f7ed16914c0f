"""What the node service and its training process say to one another over two pipes.

A frame is a header and some parts: u32be length and bytes of the header (the strict JSON of
``ledger.formats.strict``), u32be number of parts, then u64be length and bytes of each. Lengths are bounded,
headers are a closed set of types, nothing is ever unpickled. The conversation: the process says
``Ready`` once; then one request at a time is answered by one reply, and between a ``Round`` and its
``Result`` the process may ask to record an ``Intent``, or what was ``Charged`` to patients, which
``Answer`` allows or not.

Errors of the two that the other side may see are sent by name and fields.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ledger.entries.operations.plans import Purpose
from ledger.entries.operations.rounds import RoundKind
from ledger.entries.operations.values import EMPTY_HASH, Count, Hash, Positive, Slug
from ledger.formats.strict import canonical
from node.errors import (
    DatasetChanged,
    DatasetError,
    IntentRefused,
    JobRefused,
    NodeError,
    SelfTestFailed,
    WorkerMisbehaved,
)

MAX_HEADER = 64 * 1024
MAX_PARTS = 8
MAX_PART = 512 * 2**20

Part = Annotated[bytes, Field(max_length=MAX_PART)]


class Job(BaseModel):
    """One round's work at one dataset.

    Attributes:
        kind, round: as the round was opened.
        spec: the experiment's document, canonical.
        schema_document: the dataset's schema, canonical.
        site: the dataset's ``SitePlan``, canonical.
        model: the round's model as a blob; for a baseline the plan's initial model.
        path: the dataset's file.
        sha256: of that file when it was registered.
        split_key: the hospital's secret for ``snapshot.unit_split``.
        blocks: the calendar blocks whose patients the plan charges; empty where all are one block.
        patients: with blocks, the file that knows each patient's (``node.register.patients``).
        snapshot: root of the dataset's commitment.
        allowance: what each patient may spend, where the plan accounts for patients one by one
            (``node.data.patient_spend``); empty elsewhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: RoundKind
    round: Positive
    spec: Part
    schema_document: Part
    site: Part
    model: Part
    path: str
    sha256: Hash
    split_key: Annotated[bytes, Field(min_length=32, max_length=64)]
    blocks: tuple[Slug, ...] = ()
    patients: str = ""
    snapshot: Hash = EMPTY_HASH
    allowance: Part = b""


class Message(BaseModel):
    """A frame's header; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Ping(Message):
    """Answer, if you are there."""

    type: Literal["ping"] = "ping"


class Load(Message):
    """Read a dataset and keep it warm. Parts: path, schema, split key."""

    type: Literal["load"] = "load"


class Round(Message):
    """Run a job. Parts: spec, schema, site, model, path, split key, file of patients, allowance."""

    type: Literal["round"] = "round"
    kind: RoundKind
    round: Positive
    sha256: Hash
    blocks: tuple[Slug, ...] = ()
    snapshot: Hash = EMPTY_HASH


class SelfTest(Message):
    """Hold the training code against its plan on synthetic rows (``node.training.process.selftest``)."""

    type: Literal["selftest"] = "selftest"


class SelfTested(Message):
    """The self-test is over. Parts: its report as JSON."""

    type: Literal["selftested"] = "selftested"


class Answer(Message):
    """Whether the intent is durably recorded."""

    type: Literal["answer"] = "answer"
    go: bool


class Ready(Message):
    """The process has imported everything; also the answer to a ping."""

    type: Literal["ready"] = "ready"
    production: bool


class Loaded(Message):
    """A dataset fits its schema. Counts are for the local administrator and never leave.

    Attributes:
        sha256: of the file.
        rows: of the file.
        train_units, test_units: patients (or records without ids) in the two halves.
    """

    type: Literal["loaded"] = "loaded"
    sha256: Hash
    rows: Count
    train_units: Count
    test_units: Count


class Intent(Message):
    """Noise for these steps is about to be used: record it durably, then answer."""

    type: Literal["intent"] = "intent"
    purpose: Purpose
    steps: Positive


class Charged(Message):
    """What the round costs each patient: record it durably, then answer. Parts: a ``PatientSpend``."""

    type: Literal["charged"] = "charged"


class Result(Message):
    """A round's noisy vector. Parts: the encoded update."""

    type: Literal["result"] = "result"
    production: bool


class Failed(Message):
    """A typed refusal. Parts: its fields as JSON."""

    type: Literal["failed"] = "failed"
    error: Literal[
        "DatasetError", "DatasetChanged", "JobRefused", "IntentRefused", "SelfTestFailed"
    ]


Header = Annotated[
    Ping
    | Load
    | Round
    | SelfTest
    | Answer
    | Ready
    | Loaded
    | Intent
    | Charged
    | Result
    | SelfTested
    | Failed,
    Field(discriminator="type"),
]
_HEADERS: TypeAdapter[Header] = TypeAdapter(Header)

_FIELDS: dict[str, tuple[str, ...]] = {
    "DatasetError": ("dataset", "reason", "column", "row"),
    "DatasetChanged": ("path", "expected", "found"),
    "JobRefused": ("reason",),
    "IntentRefused": ("purpose",),
    "SelfTestFailed": ("reason",),
}
_ERRORS: dict[str, Callable[..., NodeError]] = {
    "DatasetError": DatasetError,
    "DatasetChanged": DatasetChanged,
    "JobRefused": JobRefused,
    "IntentRefused": IntentRefused,
    "SelfTestFailed": SelfTestFailed,
}


def write_frame(header: Message, parts: Sequence[bytes] = ()) -> bytes:
    """Encode a frame."""
    head = canonical(header)
    pieces = [len(head).to_bytes(4, "big"), head, len(parts).to_bytes(4, "big")]
    for part in parts:
        pieces += [len(part).to_bytes(8, "big"), part]
    return b"".join(pieces)


def read_frame(read: Callable[[int], bytes]) -> tuple[Header, tuple[bytes, ...]]:
    """Decode one frame.

    Args:
        read: gives exactly that many bytes, or raises.

    Raises:
        WorkerMisbehaved: a length over its limit, or a header that is not known.
    """
    length = int.from_bytes(read(4), "big")
    if length > MAX_HEADER:
        raise WorkerMisbehaved(f"a header of {length} bytes")
    head = read(length)
    try:
        header = _HEADERS.validate_json(head, strict=True)
    except ValidationError:
        raise WorkerMisbehaved("a header of no known type") from None
    if canonical(header) != head:
        raise WorkerMisbehaved("a header in another than its one spelling")
    count = int.from_bytes(read(4), "big")
    if count > MAX_PARTS:
        raise WorkerMisbehaved(f"a frame of {count} parts")
    parts = []
    for _ in range(count):
        length = int.from_bytes(read(8), "big")
        if length > MAX_PART:
            raise WorkerMisbehaved(f"a part of {length} bytes")
        parts.append(read(length))
    return header, tuple(parts)


def failure_frame(error: NodeError) -> bytes:
    """Encode one of the errors that may be sent."""
    name = type(error).__name__
    fields = {field: getattr(error, field) for field in _FIELDS[name]}
    return write_frame(Failed.model_validate({"error": name}), (orjson.dumps(fields),))


def failure_of(header: Failed, parts: Sequence[bytes]) -> NodeError:
    """Decode an error; the caller raises it.

    Raises:
        WorkerMisbehaved: its fields are not those of its type.
    """
    try:
        fields = orjson.loads(parts[0])
        return _ERRORS[header.error](**fields)
    except (orjson.JSONDecodeError, TypeError, IndexError):
        raise WorkerMisbehaved(f"a {header.error} without its fields") from None

"""The account of a small demo, and what the account does with what does not belong there."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from ledger.experiment.tensors import encode_update
from tests.egress.account import Account, Books, account
from tests.egress.demo import play
from tests.federation import Federation, node_of

BLOB = "/v1/blobs/{digest}?offset=0&total={size}"


def sent(target: str, body: bytes = b"", method: str = "POST", **headers: str) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1:80"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.fixture(scope="module")
def federation() -> Federation:
    made = Federation.found(("basel", "bern"))
    made.play_round(made.start())
    return made


def judged(federation: Federation, *streams: bytes) -> Account:
    books = Books(federation.entries(), federation.state, node_of("basel"), lambda size: bytes(32))
    return account(streams, books, federation.id, federation.state.size)


def own(federation: Federation, kind: str) -> bytes:
    return next(
        entry.leaf
        for entry in federation.entries()
        if entry.body.author == node_of("basel") and entry.body.op.type == kind
    )


@pytest.mark.process
def test_every_byte_that_leaves_the_demo_s_nodes_is_accounted_for(tmp_path: Path) -> None:
    found, demo = play(tmp_path, hospitals=2, rounds=1)
    assert set(found) == {"basel", "bern"}
    for made in found.values():
        assert made.unmatched == []
        assert len(made.charged_vectors) == 3  # one round, evaluation, baseline
        assert made.heads["charged"] > 0
        assert made.total == sum(made.heads.values())
    assert demo.elsewhere == set()
    sizes = {name: sum(map(len, demo.taps[name].sent())) for name in found}
    assert sizes == {name: made.total for name, made in found.items()}


def test_entries_are_public_or_charged_by_what_they_are(federation: Federation) -> None:
    public = judged(federation, sent("/v1/entries", own(federation, "dataset.registered")))
    charged = judged(federation, sent("/v1/entries", own(federation, "update.submitted")))
    assert public.unmatched == charged.unmatched == []
    assert public.heads["public"] > 0
    assert charged.heads["charged"] > 0


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        (b"the mean age is 54", "no request of ours"),
        (sent("/v1/log?size=1&final=0&wait=0", method="GET", x_rows="181"), "header x-rows: 181"),
        (sent("/v1/log?size=1&final=0&rows=181", method="GET"), "target /v1/log"),
        (sent("/v1/log?size=999999&final=0", method="GET"), "target /v1/log?size=999999"),
        (sent("/v1/statistics?mean=54", method="GET"), "target /v1/statistics"),
        (sent("/v1/entries", b"what is no entry"), "an entry of no form"),
        (sent("/v1/cosignatures?size=1", b"signed, believe me\n"), "does not verify"),
        (
            sent(BLOB.format(digest=sha256(b"rows").hexdigest(), size=4), b"rows", "PUT"),
            "a document that no entry of the node names",
        ),
        (sent(BLOB.format(digest="0" * 64, size=4), b"rows", "PUT"), "another hash than its name"),
        (
            sent("/v1/checkpoint", method="GET", signature="sig1=:the mean age is 54:"),
            "header signature",
        ),
    ],
)
def test_what_matches_nothing_is_shown(federation: Federation, stream: bytes, says: str) -> None:
    made = judged(federation, stream)
    assert made.heads["unmatched"] > 0
    assert any(says in line for line in made.unmatched)
    assert made.total == len(stream)


def test_a_vector_that_no_charge_covers_is_shown(federation: Federation) -> None:
    vector = encode_update(np.arange(3, dtype=np.int64))
    target = BLOB.format(digest=sha256(vector).hexdigest(), size=len(vector))
    made = judged(federation, sent(target, vector, "PUT"))
    assert made.unmatched == [f"{len(vector)} bytes: a vector that no update.submitted names"]

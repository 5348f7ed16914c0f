"""Blobs over the API: in parts, under their own names, and to whom they are handed out."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import httpx
import pytest

from ledger.errors import MalformedInput, RequestRefused
from ledger.exchange.messages import CHUNK
from ledger.formats.value import replace
from tests.coordinator.asking import BASEL, raw, refusal
from tests.coordinator.serving import Serving
from tests.federation import RESEARCHER, Federation, node_of, steward_of
from tests.patience import PATIENCE_S


def test_a_small_blob_goes_up_in_one_request(serving: Serving) -> None:
    with serving.client(BASEL) as client:
        ref = client.put_blob(b"a card")
        assert client.has_blob(ref)
        assert client.put_blob(b"a card") == ref
        assert not client.has_blob(replace(ref, sha256="ab" * 32))


def test_a_large_blob_that_was_cut_off_goes_on_where_it_stopped(serving: Serving) -> None:
    data = os.urandom(CHUNK + 1000)
    name = hashlib.sha256(data).hexdigest()
    path = f"/v1/blobs/{name}?offset=0&total={len(data)}"
    url, headers, body = raw(serving, "PUT", path, data[:5000])
    first = httpx.put(url, headers=headers, content=body, timeout=PATIENCE_S)
    assert (first.status_code, first.headers["upload-offset"]) == (202, "5000")
    seen: list[int] = []
    with serving.client(BASEL) as client:
        ref = client.put_blob(data, lambda done, total: seen.append(done))
        assert client.has_blob(ref)
    assert seen == [5000 + CHUNK - 4000, len(data)] or seen == [len(data)]
    assert serving.coordinator.blobs.get(ref) == data


def test_a_part_that_does_not_follow_on_is_told_where_to_go_on(serving: Serving) -> None:
    path = f"/v1/blobs/{'ab' * 32}?offset=10&total=100"
    url, headers, body = raw(serving, "PUT", path, b"x" * 5)
    answer = httpx.put(url, headers=headers, content=body, timeout=PATIENCE_S)
    assert refusal(answer)[:2] == (409, "UploadOutOfStep")
    assert answer.headers["upload-offset"] == "0"


def test_a_blob_with_another_name_is_refused(serving: Serving) -> None:
    url, headers, body = raw(serving, "PUT", f"/v1/blobs/{'ab' * 32}?offset=0&total=3", b"abc")
    answer = httpx.put(url, headers=headers, content=body, timeout=PATIENCE_S)
    assert refusal(answer) == (400, "MalformedInput", "its bytes have another SHA-256")


def test_a_blob_over_the_limit_is_refused_before_it_comes(tmp_path: Path) -> None:
    federation = Federation.found(("basel",))
    with Serving(federation, tmp_path, blob_limit=1024) as serving:
        path = f"/v1/blobs/{'ab' * 32}?offset=0&total=1025"
        url, headers, body = raw(serving, "PUT", path, b"abc")
        assert refusal(httpx.put(url, headers=headers, content=body, timeout=PATIENCE_S))[:2] == (
            413,
            "BodyTooLarge",
        )


def test_a_strange_blob_name_reaches_no_file(serving: Serving) -> None:
    url, headers, _ = raw(serving, "GET", "/v1/blobs/..%2F..%2Fkeyring.json")
    assert httpx.get(url, headers=headers, timeout=PATIENCE_S).status_code in (400, 403, 404)


def test_a_released_model_is_in_the_log_before_it_leaves(serving: Serving) -> None:
    experiment = next(iter(serving.federation.state.experiments.values()))
    with serving.client(RESEARCHER) as client:
        data = client.get_blob(experiment.model)
        assert data == serving.federation.blobs[experiment.model.sha256]
        url, headers, _ = raw(
            serving, "GET", f"/v1/blobs/{experiment.model.sha256}", handle=steward_of("bern")
        )
        rest = httpx.get(url, headers=headers | {"range": "bytes=10-"}, timeout=PATIENCE_S)
        assert (rest.status_code, rest.content) == (206, data[10:])
    serving.follow()
    taken = [
        e.body.op.reader
        for e in serving.federation.entries()
        if e.body.op.type == "model.downloaded"
    ]
    assert taken == [RESEARCHER, steward_of("bern")]


@pytest.mark.parametrize("range_", ["bytes=-5", "bytes=0-4", "bytes=" + "9" * 5000 + "-", "10"])
def test_a_range_that_is_not_understood_is_refused(serving: Serving, range_: str) -> None:
    experiment = next(iter(serving.federation.state.experiments.values()))
    url, headers, _ = raw(
        serving, "GET", f"/v1/blobs/{experiment.model.sha256}", handle=steward_of("bern")
    )
    answer = httpx.get(url, headers=headers | {"range": range_}, timeout=PATIENCE_S)
    assert refusal(answer)[:2] == (400, "MalformedInput")


def test_another_hospitals_update_is_not_handed_out(serving: Serving) -> None:
    update = next(
        e.body.op.update
        for e in serving.federation.entries()
        if e.body.op.type == "update.submitted" and e.body.author == node_of("bern")
    )
    with serving.client(node_of("bern")) as client:
        assert client.get_blob(update)
    with serving.client(node_of("basel")) as client, pytest.raises(RequestRefused) as caught:
        client.get_blob(update)
    assert (caught.value.status, caught.value.error) == (403, "AccessDenied")
    assert "an update is for the node that made it" in caught.value.reason


def test_a_client_notices_bytes_that_are_not_those_named(serving: Serving) -> None:
    experiment = next(iter(serving.federation.state.experiments.values()))
    path = serving.coordinator.blobs.path(experiment.spec.sha256)
    path.write_bytes(b"x" * experiment.spec.bytes)
    with (
        serving.client(BASEL) as client,
        pytest.raises(MalformedInput, match="other bytes than those named"),
    ):
        client.get_blob(experiment.spec)

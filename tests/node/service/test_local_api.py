"""The node's own page: health, status, metrics, a registration, for this machine alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import orjson
import pytest

from consilium.commands.status import local_url, node_status, tables_of
from consilium.errors import InputError
from node.data.hospital_key import KEY_FILE
from node.service.local_api import LOCAL_FILE, LocalServer
from node.service.loop import NodeService
from tests.federation import node_of
from tests.node.town import Town, small_schema, small_table
from tests.patience import PATIENCE_S


@pytest.fixture
def local(town: Town) -> Iterator[tuple[Town, httpx.Client, str]]:
    node = town.start_node("basel")
    town.until(lambda: town.state.members[node_of("basel")].ready)
    server = LocalServer(node.service)
    url = server.start()
    file = town.home("basel").path / LOCAL_FILE
    assert file.stat().st_mode & 0o077 == 0
    told = orjson.loads(file.read_bytes())
    assert told["url"] == url
    with httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE_S) as client:
        yield town, client, told["token"]
    server.close()
    assert not file.exists()


def test_the_local_service_shows_health_status_and_metrics(
    local: tuple[Town, httpx.Client, str],
) -> None:
    town, client, _ = local
    town.until(lambda: client.get("/readyz").status_code == 200)
    assert client.get("/healthz").text == "ok\n"
    status = client.get("/status").json()
    assert status["handle"] == "basel-node"
    assert status["healthy"]
    assert status["federation"] == town.founded.federation
    assert status["independently_witnessed"] is False
    assert node_status(local_url(town.home("basel").path)) == client.get("/status").json()
    metrics = client.get("/metrics").text
    assert "consilium_node_healthy 1\n" in metrics
    assert "# TYPE consilium_node_rounds_total counter" in metrics


def test_a_home_from_which_no_node_runs_says_so(town: Town) -> None:
    with pytest.raises(InputError, match="no node runs from this home"):
        local_url(town.home("basel").path)


def test_only_lists_of_things_alike_are_shown_as_tables() -> None:
    rows = [{"cell": "a", "epsilon_spent": 1}, {"cell": "b", "epsilon_spent": 2}]
    odd: list[object] = [[], ["basel"], [{"a": 1}, {"b": 2}], [{"a": 1}, 2]]
    said = {"cells": rows} | {f"odd {at}": one for at, one in enumerate(odd)}
    assert tables_of(said) == {"cells": rows}


def test_a_dataset_is_registered_with_a_running_node(
    local: tuple[Town, httpx.Client, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    town, client, token = local
    path = small_table(tmp_path / "new.csv", rows=199)
    offer = {
        "path": str(path),
        "schema": small_schema("basel-heart").model_dump(mode="json"),
        "epsilon": 5.0,
    }
    assert client.post("/datasets", json=offer).status_code == 401
    headers = {"authorization": f"Bearer {token}"}
    answer = client.post("/datasets", json=offer, headers=headers)
    assert answer.status_code == 200, answer.text
    assert town.state.datasets["basel-heart"].registration == answer.json()["registration"]
    (shown,) = client.get("/status").json()["datasets"]
    assert shown["usable_here"]
    assert shown["declared_train"] == 140
    everything = client.get("/status").text + client.get("/metrics").text
    numbers = re.findall(r"(?<![0-9a-f])[0-9]+(?![0-9a-f])", everything)  # hashes hold any digits
    assert "199" not in numbers, "a counted size is shown"
    path.rename(tmp_path / "moved.csv")
    (moved,) = client.get("/status").json()["datasets"]
    assert not moved["usable_here"]
    (tmp_path / "moved.csv").rename(path)
    worse = client.post("/datasets", json=offer | {"path": "/gone.csv"}, headers=headers)
    assert worse.status_code == 400
    assert "No such file" in worse.json()["reason"]
    monkeypatch.setattr(
        NodeService, "picture", property(lambda node: replace(node._picture, reached=False))
    )
    unread = client.post("/datasets", json=offer, headers=headers)
    assert unread.status_code == 503
    assert "the coordinator does not answer" in unread.json()["reason"]
    monkeypatch.undo()
    (town.home("basel").path / KEY_FILE).unlink()
    divided_anew = client.post("/datasets", json=offer, headers=headers)
    assert divided_anew.status_code == 503
    assert "nobody may divide them anew" in divided_anew.json()["reason"]


def test_the_local_service_answers_to_this_machines_names_only(
    local: tuple[Town, httpx.Client, str],
) -> None:
    _, client, token = local
    assert client.get("/status", headers={"host": "evil.example"}).status_code == 400
    assert client.post("/pause").status_code == 401
    headers = {"authorization": f"Bearer {token}"}
    assert client.post("/pause", headers=headers).status_code == 204
    assert client.get("/status").status_code == 200

"""The console shows what this process checked, and nothing it did not."""

from __future__ import annotations

import re
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from importlib import resources
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from audit.console.app import create_app
from audit.console.render import stylesheet
from ledger.entries.operations.log import TimeNoted
from ledger.formats.merkle import leaf_hash
from ledger.formats.note import parse_note
from ledger.formats.proof import parse_proof
from tests.audit.conftest import World
from tests.federation import COORDINATOR, Federation

BASE = "http://localhost"


@pytest.fixture(scope="module")
def console(world: World) -> Iterator[TestClient]:
    app = create_app(str(world.home), trust=world.federation.id, interval_s=60)
    with TestClient(app, base_url=BASE) as client:
        yield client


def strip_text(page: str) -> str:
    found = re.search(r'<div class="strip (\w+)".*?<p>(.*?)</p>', page, re.DOTALL)
    assert found
    return f"{found[1]}: " + re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", found[2]))


def test_every_link_of_every_page_leads_somewhere(console: TestClient) -> None:
    seen: set[str] = set()
    waiting = ["/"]
    while waiting:
        url = waiting.pop()
        if url in seen:
            continue
        seen.add(url)
        answer = console.get(url)
        assert answer.status_code == 200, url
        if "text/html" in answer.headers["content-type"]:
            found = re.findall(r'(?:href|src)="([^"#]+)', answer.text)
            assert all(link.startswith("/") for link in found), (url, found)
            waiting += found
    assert {"/datasets", "/members", "/ledger", "/reports", "/verify"} <= seen
    assert any(url.endswith("/contribution.json") for url in seen)


def test_the_strip_is_green_in_words_over_an_honest_copy(console: TestClient) -> None:
    strip = strip_text(console.get("/").text)
    assert strip.startswith("good: Checked on this machine")
    assert "61 entries" in strip
    assert "4 of 4 hospitals signed" in strip


def test_a_dataset_page_lists_every_use_with_limit_delta_and_unit(console: TestClient) -> None:
    page = console.get("/datasets/basel-heart").text
    assert "first" in page
    assert "approved by basel-steward" in page
    assert re.search(r"of 5 spent · δ 10⁻⁵ · per record", page)


def test_an_entry_comes_with_its_bytes_and_a_proof_that_others_can_check(
    console: TestClient, world: World
) -> None:
    page = console.get("/entries/29").text
    for grade in ("checked here", "witnessed", "recomputed", "stated"):
        assert grade in page
    assert console.get("/entries/29/leaf").content == world.federation.leaves[29]
    proof = parse_proof(console.get("/entries/29/proof").content)
    assert proof.index == 29
    tree = world.federation.log.tree
    assert tree.leaf(29) == leaf_hash(world.federation.leaves[29])
    assert proof.path == tree.inclusion(29)
    assert len(parse_note(proof.note).signatures) == 5


def test_what_is_not_in_the_ledger_is_said_and_not_invented(console: TestClient) -> None:
    answer = console.get("/datasets/ulm-heart")
    assert answer.status_code == 404
    assert "no dataset" in answer.text
    assert console.get("/entries/61").status_code == 404
    assert console.get("/static/..%2fconsole.py").status_code == 404


def test_every_answer_forbids_scripts_frames_and_sources_from_elsewhere(
    console: TestClient,
) -> None:
    for url in ("/", "/static/console.css", "/datasets/ulm-heart", "/strip"):
        headers = console.get(url).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    page = console.get("/").text
    assert not re.search(r"<script(?![^>]*src=)", page)
    assert not re.search(r'\sstyle="|<style', page)


def test_it_answers_to_its_own_names_only_and_changes_nothing(console: TestClient) -> None:
    assert console.get("/", headers={"host": "evil.example"}).status_code == 400
    assert console.post("/").status_code == 405
    assert console.delete("/datasets/basel-heart").status_code == 405


def test_the_live_strip_is_sent_only_when_there_is_news(console: TestClient) -> None:
    asks = re.search(r'hx-get="(/strip[^"]+)"', console.get("/").text)
    assert asks
    assert console.get(asks[1].replace("&amp;", "&")).status_code == 204
    stale = console.get("/strip?seen=1&page=1")
    assert stale.status_code == 200
    assert "This page shows an earlier check." in strip_text(stale.text)
    assert "earlier check" not in strip_text(console.get("/").text)


def test_a_console_that_no_longer_looks_at_its_copy_is_not_green(world: World) -> None:
    app = create_app(str(world.home), trust=world.federation.id, interval_s=0.01)
    with TestClient(app, base_url=BASE) as client, pytest.MonkeyPatch.context() as patch:
        assert strip_text(client.get("/").text).startswith("good: Checked on this machine")
        patch.setattr(threading, "excepthook", lambda _: None)
        patch.setattr(app.state.watch, "look", lambda: [][0])
        app.state.watch._thread.join(10)
        strip = strip_text(client.get("/").text)
        assert strip.startswith("warn: Nobody checks this copy any more; start the console again")
        assert strip_text(client.get("/strip").text).startswith("warn: Nobody checks")


def test_a_changed_copy_is_red_with_the_place_and_what_to_do(world: World, tmp_path: Path) -> None:
    home = world.copy_home(tmp_path / "home")
    with closing(sqlite3.connect(home / "ledger.db")) as database, database:
        for (name,) in database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            database.execute(f"DROP TRIGGER {name}")
        database.execute('UPDATE entries SET signature = zeroblob(64) WHERE "index" = 40')
    with TestClient(create_app(str(home), interval_s=60), base_url=BASE) as client:
        page = client.get("/")
        strip = strip_text(page.text)
        assert strip.startswith("bad: This copy was changed.")
        assert "Entry 40" in strip
        assert "Nothing after 39 can be believed" in strip
        assert "What to do" in client.get("/verify").text
        assert "✕ refuted" in client.get("/verify").text


def test_a_copy_that_cannot_be_opened_still_has_a_page_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"no database at all")
    with TestClient(create_app(str(tmp_path), interval_s=60), base_url=BASE) as client:
        assert strip_text(client.get("/").text).startswith("bad: This copy cannot be read.")
        assert client.get("/datasets").status_code == 404
        assert client.get("/verify").status_code == 200


def test_a_copy_that_grows_is_verified_again(tmp_path: Path) -> None:
    federation = Federation.found()
    federation.finalize()
    home = tmp_path / "home"
    federation.persist(home).close()
    app = create_app(str(home), interval_s=60)
    with TestClient(app, base_url=BASE) as client:
        before = app.state.watch.current.number
        assert not app.state.watch.look()
        federation.say(COORDINATOR, TimeNoted(type="time.noted"))
        federation.finalize()
        shutil.rmtree(home)
        federation.persist(home).close()
        assert app.state.watch.look()
        assert app.state.watch.current.number == before + 1
        assert f"{federation.log.size} entries" in strip_text(client.get("/").text)
        assert client.get(f"/entries/{federation.log.size - 1}").status_code == 200


def test_fewer_than_three_hospitals_are_amber_in_words(tmp_path: Path) -> None:
    federation = Federation.found(("basel", "bern"))
    federation.finalize()  # still under genesis, when no node was ready
    federation.say(COORDINATOR, TimeNoted(type="time.noted"))
    federation.finalize()
    federation.persist(tmp_path / "home").close()
    with TestClient(create_app(str(tmp_path / "home")), base_url=BASE) as client:
        strip = strip_text(client.get("/").text)
    assert strip.startswith("warn: Not independently witnessed (fewer than three hospitals)")


def test_an_empty_federation_says_what_will_appear_and_how(tmp_path: Path) -> None:
    federation = Federation.found()
    federation.finalize()
    federation.persist(tmp_path / "home").close()
    with TestClient(create_app(str(tmp_path / "home")), base_url=BASE) as client:
        assert "consilium dataset register" in client.get("/datasets").text
        assert "consilium experiment propose" in client.get("/experiments").text
        assert "Nothing waits for anybody" in client.get("/").text


def test_the_stylesheet_stays_under_12_kilobytes_and_the_script_keeps_its_licence() -> None:
    assert len(stylesheet().encode()) < 12_000
    folder = resources.files("audit").joinpath("static")
    assert "Zero-Clause BSD" in folder.joinpath("htmx.LICENSE").read_text("utf-8")


def pairs(css: str) -> list[tuple[str, str, float]]:
    """Each theme's text colours on its paper, with their contrast."""
    themes = [css[: css.index("@media (prefers")], css[css.index("@media (prefers") :]]
    found = []
    for theme in themes:
        colour = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", theme[:1400]))
        for ink in ("ink", "muted", "accent", "good", "warn", "bad"):
            found.append((ink, "paper", contrast(colour[ink], colour["paper"])))
        for tone in ("good", "warn", "bad"):
            found.append((tone, f"{tone}-bg", contrast(colour[tone], colour[f"{tone}-bg"])))
    return found


def contrast(a: str, b: str) -> float:
    """WCAG 2.1 contrast ratio."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_has_at_least_4_5_to_1_in_both_themes() -> None:
    assert [(ink, paper) for ink, paper, ratio in pairs(stylesheet()) if ratio < 4.5] == []

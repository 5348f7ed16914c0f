"""The console in a real browser: a compliance officer's walk, and accessibility on the way."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn

from audit.console.app import create_app
from tests.audit.conftest import World
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")


@contextmanager
def served(world: World) -> Iterator[str]:
    """A console over the world's home, at the address that this gives."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(str(world.home), trust=world.federation.id)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture(scope="module")
def address(world: World) -> Iterator[str]:
    with served(world) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser) -> Iterator[object]:  # type: ignore[no-untyped-def]
    opened = browser.new_page(viewport={"width": 1180, "height": 900})
    opened.set_default_timeout(1000 * PATIENCE_S)
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    yield opened
    opened.close()
    assert said == []


def pages_of(world: World) -> list[str]:
    experiment = f"/experiments/{world.experiment}"
    return [
        "/",
        "/datasets",
        "/datasets/basel-heart",
        "/datasets/basel-heart/report",
        "/experiments",
        experiment,
        f"{experiment}/contribution",
        f"{experiment}/certificate",
        "/members",
        "/ledger",
        "/entries/29",
        "/verify",
        "/reports",
    ]


SCROLLS_SIDEWAYS = """[...document.querySelectorAll(".table, figure, pre")]
    .filter(part => part.checkVisibility() && part.scrollWidth > part.clientWidth + 1)
    .map(part => part.outerHTML.slice(0, 120))"""


def violations(page) -> list[str]:  # type: ignore[no-untyped-def]
    found = axe.Axe().run(page).response["violations"]
    return [f"{v['id']}: {[node['html'][:120] for node in v['nodes'][:2]]}" for v in found]


def test_an_officer_finds_every_use_of_a_dataset_and_opens_both_reports(  # type: ignore[no-untyped-def]
    page, address: str, world: World
) -> None:
    page.goto(address)
    assert "Checked on this machine" in page.get_by_role("status").inner_text()
    page.get_by_role("link", name="Datasets", exact=True).click()
    page.get_by_role("link", name="basel-heart").click()
    rows = page.get_by_role("region", name="Every use").get_by_role("row")
    assert rows.count() == 1 + sum(
        any(site.dataset == "basel-heart" for site in e.plan.sites)
        for e in world.federation.state.experiments.values()
    )
    page.get_by_role("link", name="Data-use report").click()
    assert page.get_by_role("heading", level=1).inner_text() == "Data use of basel-heart"
    assert page.get_by_role("heading", name="9 · What this report cannot show").is_visible()
    page.go_back()
    page.get_by_role("link", name="first").click()
    page.get_by_role("link", name="Contribution report").click()
    assert page.get_by_role("heading", level=1).inner_text() == "Contributions to first"
    assert page.get_by_role("cell", name="basel-heart").count() == 0
    assert page.get_by_role("rowheader", name="basel-heart").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_an_accessibility_violation(  # type: ignore[no-untyped-def]
    page, address: str, world: World, scheme: str
) -> None:
    page.emulate_media(color_scheme=scheme)
    for url in pages_of(world):
        page.goto(address + url)
        assert violations(page) == [], url


def test_the_pages_are_whole_at_360_pixels_and_without_scripts(  # type: ignore[no-untyped-def]
    browser, address: str, world: World
) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, java_script_enabled=True)
    small = context.new_page()
    for url in pages_of(world):
        small.goto(address + url)
        assert small.evaluate("document.documentElement.scrollWidth") <= 360, url
        assert small.evaluate(SCROLLS_SIDEWAYS) == [], url
    context.close()
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(f"{address}/datasets/basel-heart")
    assert plain.get_by_role("heading", name="Every use").is_visible()
    assert plain.locator("time").first.inner_text()
    context.close()


LONG = """
for (const one of document.querySelectorAll("main h1, main h2, main p, main dd, main li, main .sub"))
  one.textContent = "W".repeat(3000);
for (const cell of document.querySelectorAll("main td, main tbody th"))
  cell.textContent = "T".repeat(200);
"""


@pytest.mark.parametrize("width", [360, 1180])
def test_a_word_of_3000_letters_hides_nothing_beside_the_page(  # type: ignore[no-untyped-def]
    page, address: str, world: World, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    for url in ("/", "/datasets/basel-heart", f"/experiments/{world.experiment}", "/reports"):
        page.goto(address + url)
        page.evaluate(LONG)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, url


def test_paper_has_no_navigation_and_the_checkpoint(  # type: ignore[no-untyped-def]
    page, address: str
) -> None:
    page.goto(f"{address}/datasets/basel-heart")
    page.emulate_media(media="print")
    assert not page.get_by_role("navigation").is_visible()
    line = page.locator(".onpaper")
    assert line.is_visible()
    assert "size 61" in line.inner_text()


def test_a_page_whose_console_is_gone_says_so(browser, world: World) -> None:  # type: ignore[no-untyped-def]
    with served(world) as address:
        page = browser.new_page()
        page.set_default_timeout(1000 * PATIENCE_S)
        page.goto(f"{address}/datasets/basel-heart")
        assert page.locator(".strip.good").is_visible()
    strip = page.locator(".strip.warn")
    strip.wait_for()
    assert "The console does not answer" in strip.inner_text()
    assert strip.inner_text().startswith("!")
    page.close()


def test_keyboard_users_reach_the_content_first(page, address: str) -> None:  # type: ignore[no-untyped-def]
    page.goto(address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"

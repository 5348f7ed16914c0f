from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs import pages

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
_PAGES = pages.pages()
_NAMES = [str(page.relative_to(pages.REPOSITORY)) for page in _PAGES]


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings make, as GitHub makes them."""
    found = set()
    for line in text.splitlines():
        heading = re.match(r"#+ (.+)$", line)
        if heading:
            plain = re.sub(r"[^\w\- ]", "", heading[1].lower())
            found.add(plain.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", _PAGES, ids=_NAMES)
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = page if not path else (page.parent / path).resolve()
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{page.name}: {target}"


@pytest.mark.parametrize("page", _PAGES, ids=_NAMES)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    for file, name in _TEST.findall(page.read_text(encoding="utf-8")):
        source = pages.REPOSITORY / file
        assert source.is_file(), f"{page.name}: {file}"
        assert f"def {name}(" in source.read_text(encoding="utf-8"), f"{page.name}: {name}"


def test_every_page_is_reachable_from_the_readme() -> None:
    seen = {pages.REPOSITORY / "README.md"}
    waiting = list(seen)
    while waiting:
        page = waiting.pop()
        for target in _LINK.findall(page.read_text(encoding="utf-8")):
            path = target.partition("#")[0]
            file = (page.parent / path).resolve()
            if path.endswith(".md") and not path.startswith("https://") and file not in seen:
                seen.add(file)
                waiting.append(file)
    assert {page for page in _PAGES if page.parent == pages.DOCS} <= seen


def test_every_file_of_attacks_is_in_the_threat_model_and_no_other() -> None:
    named = set(re.findall(r"`(tests/adversary/test_\w+\.py)", pages.read("docs/threat-model.md")))
    there = {
        str(file.relative_to(pages.REPOSITORY))
        for file in (pages.REPOSITORY / "tests" / "adversary").glob("test_*.py")
    }
    assert named == there


def test_every_row_of_the_trust_table_names_a_test_or_says_that_none_tries_it() -> None:
    lines = pages.section("docs/threat-model.md", "The table").splitlines()
    table = [line for line in lines if line.startswith("| ")][1:]
    assert len(table) > 20
    for line in table:
        tried = line.rstrip(" |").rsplit(" | ", 1)[1]
        assert "`tests/" in tried or tried.startswith("not tried"), line

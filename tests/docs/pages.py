"""Reading our own pages: tables, fenced blocks and labelled examples of a Markdown file."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_EXAMPLE = re.compile(
    r"^<!-- example: ([a-z0-9-]+) -->\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
_CODE = re.compile(r"`([^`]+)`")


def pages() -> list[Path]:
    """Every Markdown page that users read."""
    places = (REPOSITORY, DOCS, REPOSITORY / "deploy", REPOSITORY / "examples")
    return sorted(page for place in places for page in place.glob("*.md"))


def read(name: str) -> str:
    """The text of a page, by its path in the repository."""
    return (REPOSITORY / name).read_text(encoding="utf-8")


def examples(name: str) -> dict[str, str]:
    """The labelled examples of a page, without the last line break."""
    return {label: text.rstrip("\n") for label, text in _EXAMPLE.findall(read(name))}


def fenced(text: str, language: str) -> list[str]:
    """The fenced blocks in a language."""
    return [body for tag, body in _FENCE.findall(text) if tag == language]


def section(name: str, heading: str) -> str:
    """The part of a page under a heading, up to the next one of the same level or higher."""
    text = read(name)
    found = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    if found is None:
        raise LookupError(f"{name} has no heading {heading!r}")
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows(text: str) -> list[list[str]]:
    """The cells of every table row in a text whose first cell is code, backticks removed there."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("| `"):
            cells[0] = code_in(cells[0])[0]
            found.append(cells)
    return found


def code_in(text: str) -> list[str]:
    """Everything between backticks."""
    return _CODE.findall(text)

from __future__ import annotations

import re
import shlex

import pytest

from tests.docs import pages
from tests.docs.commands import commands, resolve

_INLINE = re.compile(r"`(consilium [a-z][^`]*)`")
_START = re.compile(r"^.*?(?:/bin/|&& |; )(?=consilium )")
_CONTAINER = re.compile(r"^docker compose run --rm (?!-)\S+ ")


def spoken() -> list[tuple[str, str]]:
    """Every command line of ours that a page shows, with the page."""
    found = set()
    for page in pages.pages():
        text = page.read_text(encoding="utf-8")
        lines = [line for body in pages.fenced(text, "bash") for line in body.splitlines()]
        name = str(page.relative_to(pages.REPOSITORY))
        for line in (*lines, *_INLINE.findall(text)):
            part = _CONTAINER.sub("consilium ", line)
            part = _START.split(part.split(" #")[0].strip().removesuffix("&").strip())[-1]
            if part.startswith("consilium "):
                found.add((name, part))
    return sorted(found)


def test_pages_show_commands() -> None:
    assert len(spoken()) > 20


@pytest.mark.parametrize(("page", "line"), spoken())
def test_a_command_on_a_page_exists_with_its_options(page: str, line: str) -> None:
    command, rest = resolve(shlex.split(line)[1:])
    assert not hasattr(command, "commands"), f"{page}: no such command in `{line}`"
    options = {
        name: parameter
        for parameter in command.params
        if parameter.param_type_name == "option"
        for name in parameter.opts
    }
    places = [p for p in command.params if p.param_type_name == "argument"]
    given = 0
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            given += 1
            continue
        assert word in options, f"{page}: `{line}` has no option {word}"
        if not options[word].is_flag:
            assert rest, f"{page}: `{line}` gives {word} no value"
            rest.pop(0)
    assert given <= len(places), f"{page}: `{line}` has too many arguments"


def test_the_list_of_commands_is_that_of_the_command_line() -> None:
    table = {row[0]: row[1] for row in pages.rows(pages.read("docs/commands.md"))}
    expected = {f"consilium {words}": text for words, text in commands().items()}
    assert table == expected

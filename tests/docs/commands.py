"""Every command of the command line with the first sentence of its help.

``python -m tests.docs.commands`` prints the table as ``docs/commands.md`` must hold it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from consilium.cli import app


def root() -> Any:
    """The whole command line; typer brings its own click, so types are looked at by their shape."""
    return typer.main.get_command(app)


def resolve(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words name, and what is left of them."""
    command = root()
    rest = list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    return command, rest


def commands() -> dict[str, str]:
    """What each command does, by its words."""
    return {" ".join(path): _first_sentence(command) for path, command in _leaves(root())}


def _leaves(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    inside = getattr(command, "commands", None)
    if inside is None:
        yield path, command
        return
    for name, part in inside.items():
        yield from _leaves(part, *path, name)


def _first_sentence(command: Any) -> str:
    paragraph = str(command.help).strip().split("\n\n")[0]
    return " ".join(paragraph.split())


if __name__ == "__main__":
    print("| command | what it does |\n|---|---|")
    for words, text in commands().items():
        print(f"| `consilium {words}` | {text} |")

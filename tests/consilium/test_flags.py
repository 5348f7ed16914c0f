"""The same flag is the same thing in every command, and stands at the same place of its help."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from tests.consilium.conftest import Run
from tests.docs.commands import root

TAIL = ("--yes", "--home", "--at", "--passphrase-file", "--json")
"""What many commands share ends their help, in this order."""


def leaves(command: Any, *path: str) -> Iterator[tuple[str, Any]]:
    inside = getattr(command, "commands", None)
    if inside is None:
        yield " ".join(path), command
        return
    for name, part in inside.items():
        yield from leaves(part, *path, name)


def options(command: Any) -> list[Any]:
    return [param for param in command.params if param.param_type_name == "option"]


def test_a_flag_takes_a_value_in_every_command_or_in_none() -> None:
    kinds: dict[str, dict[bool, list[str]]] = defaultdict(lambda: defaultdict(list))
    for words, command in leaves(root()):
        for option in options(command):
            kinds[option.opts[0]][option.is_flag].append(words)
    assert {flag: dict(found) for flag, found in kinds.items() if len(found) > 1} == {}


def test_shared_flags_are_explained_alike() -> None:
    for flag in ("--yes", "--home", "--passphrase-file", "--json"):
        said = {
            option.help
            for _, command in leaves(root())
            for option in options(command)
            if option.opts[0] == flag
        }
        assert len(said) == 1, said


def test_shared_flags_end_a_command_s_help_in_one_order() -> None:
    for words, command in leaves(root()):
        names = [option.opts[0] for option in options(command) if option.opts[0] != "--help"]
        if not words.startswith("audit") or words == "audit attack":
            # `audit` reads copies, where --at comes with --trust.
            shared = [name for name in TAIL if name in names]
            assert names[len(names) - len(shared) :] == shared, words


UNTIL_STOPPED = {"coordinator run", "node run", "ledger witness", "audit console"}


def test_every_command_that_ends_by_itself_has_a_document_for_programs() -> None:
    without = {
        words
        for words, command in leaves(root())
        if "--json" not in [option.opts[0] for option in options(command)]
    }
    assert without == UNTIL_STOPPED


def test_every_command_shows_an_example_of_itself() -> None:
    for words, command in leaves(root()):
        assert f"consilium {words}" in (command.epilog or ""), words


def test_the_release_and_the_exit_codes_are_told(run: Run) -> None:
    assert run("--version").out == f"consilium {version('consilium')}\n"
    told = run("--help").out
    assert all(f"\n    {code}  " in told for code in range(5))

"""What a command shows: tables and lines for people, one JSON document for programs.

Results go to standard output, everything else to standard error. Texts from a federation are shown as
they are: never as markup, and control characters visibly escaped, so that a name cannot move the
cursor or paint over a line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from consilium.errors import InputError

_PLAIN_WIDTH = 10_000
"""Where no terminal is, lines are not folded: a program, or a file, takes them whole."""

_FOLDED = 1.25
"""How much wider than its terminal a table may be: folded further, nobody can read it."""


def show_json(value: object) -> None:
    """Print one JSON document."""
    json.dump(value, sys.stdout, indent=2, sort_keys=False, ensure_ascii=True)
    sys.stdout.write("\n")


def tell(as_json: bool, document: object, *lines: str) -> None:
    """Print what was done: one JSON document for programs, or lines for people."""
    if as_json:
        show_json(document)
        return
    for line in lines:
        say_line(line)


def show_table(title: str, rows: Sequence[Mapping[str, object]], *, empty: str = "none") -> None:
    """Print rows with the same keys as a table, or row by row where a terminal is too narrow for one."""
    if not rows:
        say_line(f"{title}: {empty}")
        return
    table = Table(title=None, box=None, pad_edge=False, header_style="bold", show_edge=False)
    for name in rows[0]:
        numeric = all(isinstance(row[name], int | float | None) for row in rows)
        table.add_column(_text(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    console = _console()
    wide = console.options.update(max_width=_PLAIN_WIDTH)
    if Measurement.get(console, wide, table).maximum <= _FOLDED * console.width:
        console.print(table)
        return
    for at, row in enumerate(rows):
        if at:
            say_line("")
        show_fields(row)


def show_fields(fields: Mapping[str, object]) -> None:
    """Print one thing, a field a line."""
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        say_line(f"{name:<{width}}  {_plain(value)}")


def say_line(line: str) -> None:
    """Print one line to standard output."""
    sys.stdout.write(_visible(line) + "\n")


def note(line: str) -> None:
    """Print one line to standard error: progress, advice, warnings."""
    sys.stderr.write(_visible(line) + "\n")
    sys.stderr.flush()


@contextmanager
def counted(what: str) -> Iterator[Callable[[int, int], None]]:
    """Draw a bar on standard error while something is counted; nothing where no terminal is.

    Yields:
        To be told how many of how many are done.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(file=sys.stderr, highlight=False, markup=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(_visible(what))
        yield lambda done, total: progress.update(task, completed=done, total=total)


def ask(question: str) -> None:
    """Go on when a person says yes.

    Raises:
        InputError: there is nobody to ask.
        typer.Abort: the answer was no.
    """
    if not sys.stdin.isatty():
        raise InputError(f"{question} There is no terminal to ask at; say --yes")
    typer.confirm(question, abort=True)


def _console() -> Console:
    plain = None if sys.stdout.isatty() else _PLAIN_WIDTH
    return Console(file=sys.stdout, width=plain, highlight=False, markup=False, emoji=False)


def _text(value: object) -> Text:
    return Text(_visible(_plain(value)))


def _plain(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(one) for one in value) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_plain(one)}" for name, one in value.items()) or "-"
    return str(value)


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else f"\\u{ord(c):04x}" for c in text)

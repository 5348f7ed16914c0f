"""Following an experiment on the terminal: a bar for people, a line of JSON per change for programs."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from consilium.actions.speaking import open_member
from consilium.client import Client
from consilium.client import Progress as Standing
from consilium.errors import FAILED, RunFailed
from consilium.settings import Settings
from consilium.terminal import note
from ledger.experiment.round_words import round_words


def watch_on_terminal(settings: Settings, name: str, *, as_json: bool) -> None:
    """Follow an experiment to its end.

    Raises:
        RunFailed, or with ``as_json`` typer.Exit: it was stopped; says why.
    """
    with open_member(settings.home, settings.passphrase_file) as member:
        client = Client.of(member)
        client.follow()
        last: Standing | None = None
        if as_json:
            for last in client.watch(name):
                sys.stdout.write(json.dumps(dataclasses.asdict(last)) + "\n")
                sys.stdout.flush()
        else:
            last = show_progress(name, client.watch(name))
    if last is not None and last.status == "stopped":
        if as_json:  # the last line says it
            raise typer.Exit(FAILED)
        raise RunFailed(f"experiment {name} was stopped: {last.reason}")


def show_progress(name: str, standings: Iterable[Standing]) -> Standing | None:
    """Draw a bar on standard error until the standings end; returns the last one."""
    console = Console(file=sys.stderr, highlight=False, markup=False)
    last: Standing | None = None
    if not console.is_terminal:
        shown: tuple[str, int] | None = None
        for last in standings:
            if (last.status, last.round) != shown:
                note(f"{name}: {describe(last)}")
            shown = (last.status, last.round)
        return last
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(name)
        for last in standings:
            done = last.rounds if last.status in ("completed", "released") else last.round - 1
            progress.update(
                task,
                total=last.rounds,
                completed=done,
                description=f"{name}: {describe(last)}",
            )
    return last


def describe(standing: Standing) -> str:
    """Where an experiment stands, in a few words."""
    if standing.status == "stopped":
        return f"stopped ({standing.reason})"
    if standing.status == "proposed":
        return f"waiting for stewards; approved: {', '.join(standing.approved) or 'none'}"
    if standing.status != "running":
        return standing.status
    doing = {"train": "training", None: "between rounds"}.get(standing.kind, "")
    attempt = f"attempt {standing.attempt}" if standing.attempt > 1 else ""
    state = ", ".join(part for part in (doing, attempt) if part)
    waiting = f", waiting for {', '.join(standing.waiting_for)}" if standing.waiting_for else ""
    words = round_words(standing.round, standing.training_rounds)
    return f"round {words}{f' ({state})' if state else ''}{waiting}"

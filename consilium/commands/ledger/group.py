"""``consilium ledger``: the log itself: entries, checkpoints, a copy to take away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from consilium.commands.options import AtOption, HomeOption, JsonOption, PassphraseOption, examples

app = typer.Typer(no_args_is_help=True, help="Look at the log, export it, verify it.")


@app.command("list", epilog=examples("consilium ledger list --at demo-out --type round.aggregated"))
def list_entries(
    kind: Annotated[
        str | None, typer.Option("--type", help="Only this operation, e.g. budget.reserved.")
    ] = None,
    author: Annotated[str | None, typer.Option("--author", help="Only this member's.")] = None,
    last: Annotated[int | None, typer.Option("--last", min=1, help="Only the last N.")] = None,
    home: HomeOption = None,
    at: AtOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """The entries in order, with the fold's verdict on each."""
    from consilium.actions.reading import open_view
    from consilium.settings import load_settings
    from consilium.summaries.log import entry_summary
    from consilium.terminal import show_json, show_table

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_view(settings.home, at, settings.passphrase_file) as view:
        rows = [
            entry_summary(item)
            for item in view.entries()
            if kind in (None, item.entry.body.op.type) and author in (None, item.entry.body.author)
        ]
    rows = rows if last is None else rows[-last:]
    if as_json:
        show_json(rows)
    else:
        show_table("entries", [{**row, "hash": row["hash"][:12]} for row in rows])


@app.command(epilog=examples("consilium ledger show 12 --at demo-out"))
def show(
    index: Annotated[int, typer.Argument(min=0, help="Index of the entry, from 0.")],
    home: HomeOption = None,
    at: AtOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """One entry: the bytes that were signed, by whom, and what the fold says of it."""
    import json

    from consilium.actions.reading import open_view
    from consilium.errors import UnknownName
    from consilium.settings import load_settings
    from consilium.summaries.log import entry_summary
    from consilium.terminal import say_line, show_fields, show_json
    from ledger.rules.verdict import EXPLANATIONS

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_view(settings.home, at, settings.passphrase_file) as view:
        found = next((item for item in view.entries() if item.index == index), None)
        if found is None:
            raise UnknownName("entry", str(index), [f"0 to {view.state.size - 1}"])
    void = found.outcome.void
    extra = {
        "signature": found.entry.signature.hex(),
        "explanation": None if void is None else EXPLANATIONS[void],
    }
    body = json.loads(found.entry.raw)
    if as_json:
        show_json({**entry_summary(found), **extra, "body": body})
        return
    show_fields({**entry_summary(found), **extra})
    say_line(json.dumps(body, indent=2))


@app.command(
    epilog=examples(
        "consilium ledger export --out heart.consilium",
        "consilium ledger export --at hub --out heart.consilium",
    )
)
def export(
    out: Annotated[Path, typer.Option("--out", help="The bundle to write (*.consilium).")],
    home: HomeOption = None,
    at: AtOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the log, its checkpoints and the blobs that are here into one file, for an auditor."""
    from consilium.actions.homes import MOST_BLOBS, find_home
    from consilium.actions.ledger.exporting import export_copy
    from consilium.actions.reading import open_view
    from consilium.settings import load_settings
    from consilium.terminal import note, tell

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    if at is None:
        source = find_home(settings.home, MOST_BLOBS).path
        with open_view(source, None, settings.passphrase_file):
            note(f"{source} is up to date")
    else:
        source = Path(at)
    exported = export_copy(source, out)
    document = {"out": str(out), "entries": exported.entries, "blobs": exported.blobs}
    tell(
        as_json,
        document | {"absent_blobs": exported.absent},
        f"{exported.entries} entries and {exported.blobs} blobs written to {out}",
    )
    if exported.absent:
        note(f"{exported.absent} blobs are not in this copy; checks that need them cannot be made")


@app.command(epilog=examples("consilium ledger checkpoint --at demo-out"))
def checkpoint(
    home: HomeOption = None,
    at: AtOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the newest signed checkpoint (a C2SP note): a seal over the whole log to keep."""
    from consilium.actions.ledger.offline import open_here
    from consilium.settings import load_settings
    from consilium.summaries.log import checkpoint_summary
    from consilium.terminal import say_line, show_json

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_here(settings, at) as source:
        newest = source.newest()
    if as_json:
        show_json(checkpoint_summary(newest))
    else:
        say_line(newest.decode("utf-8").rstrip("\n"))


@app.command(
    epilog=examples(
        "consilium ledger review --finding in_order",
        "consilium ledger review --finding incident --size 4120",
    )
)
def review(
    finding: Annotated[str, typer.Option("--finding", help="in_order, question_open or incident.")],
    size: Annotated[
        int | None,
        typer.Option("--size", min=1, help="Entries examined. [default: the final checkpoint's]"),
    ] = None,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign that you examined the log, as a steward or auditor; reports and the console list it.

    Your copy is verified anew before anything is signed. What you examined beside that is yours to
    say: `consilium audit verify` and the reports help.
    """
    from consilium.actions.speaking import closed_word, open_member, say
    from consilium.errors import InputError
    from consilium.settings import load_settings
    from consilium.terminal import tell
    from ledger.entries.operations.audits import LedgerReviewed, ReviewFinding

    said = closed_word(finding, ReviewFinding, "--finding")
    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_member(settings.home, settings.passphrase_file, ("auditor", "steward")) as member:
        member.follow()
        replica = member.replica
        examined = replica.final.size if size is None else size
        if examined > replica.size:
            raise InputError(f"--size {examined}: the log has {replica.size} entries")
        root = replica.root(examined).hex()
        found = say(
            member,
            LedgerReviewed(type="ledger.reviewed", size=examined, root=root, finding=said),
        )
        tell(
            as_json,
            {"size": examined, "root": root, "finding": said, "entry": found.index},
            f"reviewed the log up to {examined} entries: {said} (entry {found.index})",
        )


@app.command(epilog=examples("consilium ledger verify --home ~/consilium"))
def verify(
    home: HomeOption = None,
    at: AtOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify your own copy, trusting the genesis entry of your invitation; see `audit verify`."""
    from consilium.actions.audit.verifying import verify_and_show
    from consilium.actions.homes import MOST_BLOBS, find_home
    from consilium.settings import load_settings
    from ledger.exchange.home import GENESIS

    source, trust = at, None
    if source is None:
        place = find_home(load_settings(home=home).home, MOST_BLOBS).path
        source, trust = str(place), str(place / GENESIS)
    raise typer.Exit(verify_and_show(source, trust, cross_check=False, as_json=as_json))

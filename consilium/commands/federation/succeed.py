"""``consilium federation succeed``: a log that cannot go on, and the one that takes over."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from consilium.commands.options import (
    CaOption,
    HomeOption,
    JsonOption,
    NewDatabaseOption,
    PassphraseOption,
    YesOption,
    examples,
)

app = typer.Typer(
    no_args_is_help=True,
    help="After a fork, a stolen log key or a lost quorum: a new log that takes over from the old.",
)

OldOption = Annotated[
    str | None,
    typer.Option("--old", help="A fuller copy of the old log than your own. [default: your own]"),
]


@app.command(
    epilog=examples(
        "consilium federation succeed propose --old basel.consilium --organisation university \\",
        "  --url https://new.example.org --home newhub",
    )
)
def propose(
    old: Annotated[
        str, typer.Option("--old", help="A copy of the old log: home, database, bundle.")
    ],
    organisation: Annotated[
        str, typer.Option("--organisation", help="Who runs the new coordinator; no hospital.")
    ],
    url: Annotated[str, typer.Option("--url", help="Where members will reach it.")],
    handle: Annotated[
        str, typer.Option("--handle", help="The new coordinator's own.")
    ] = "coordinator",
    ca: CaOption = None,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the new coordinator's keys, and the proposal that stewards of k organisations endorse.

    It takes over from the last final checkpoint of the copy. HOME is the new coordinator's.
    """
    from consilium.actions.federation.succeeding import propose as make
    from consilium.settings import load_settings
    from consilium.terminal import say_line, show_json

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    path = make(settings, old, organisation=organisation, url=url, handle=handle, ca=ca)
    if as_json:
        show_json({"home": str(settings.home), "proposal": str(path)})
        return
    say_line(f"proposal: {path}")
    say_line(f"next, each steward: consilium federation succeed endorse {path.name}")


@app.command(epilog=examples("consilium federation succeed endorse proposal.json --home basel"))
def endorse(
    proposal: Annotated[Path, typer.Argument(help="The proposal's file.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The file to write. [default: beside the proposal]")
    ] = None,
    old: OldOption = None,
    yes: YesOption = False,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a proposal against your own copy, see what it means, and sign it as a steward."""
    from consilium.actions.federation.succeeding import endorse as sign
    from consilium.actions.federation.succeeding import look_at_proposal
    from consilium.settings import load_settings
    from consilium.terminal import ask, say_line, show_fields, show_json

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    meaning = look_at_proposal(settings, proposal, old)
    if not as_json:
        show_fields(dict(meaning))
    if not yes:
        ask("Sign this for your organisation?")
    path = sign(settings, proposal, old, out)
    if as_json:
        show_json({**meaning, "endorsement": str(path)})
    else:
        say_line(f"endorsement: {path}; send it to whoever proposed")


@app.command(
    epilog=examples(
        "consilium federation succeed found --endorsement a.endorsement --endorsement b.endorsement \\",
        "  --home newhub",
    )
)
def found(
    endorsement: Annotated[
        list[Path], typer.Option("--endorsement", help="A steward's file; repeated.")
    ],
    database: NewDatabaseOption = None,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Found the new log with the endorsements of k organisations, by the old federation's policy."""
    from consilium.actions.federation.succeeding import found as begin
    from consilium.settings import load_settings
    from consilium.terminal import say_line, show_json

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    path = begin(settings, endorsement, database)
    if as_json:
        show_json({"home": str(settings.home), "succession": str(path)})
        return
    say_line(f"succession: {path}; hand it to every member")
    say_line(f"next: consilium coordinator run --home {shlex.quote(str(settings.home))}")


@app.command(
    epilog=examples(
        "consilium federation succeed accept succession.json --home basel",
        "consilium federation succeed accept succession.json --home basel --old fuller.consilium",
    )
)
def accept(
    succession: Annotated[Path, typer.Argument(help="The succession's file.")],
    old: OldOption = None,
    yes: YesOption = False,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a successor against your own copy, see what it means, and follow it from now on.

    Keys, blobs and a node's private register stay in the home; the old copy is kept beside them. Stop
    the node's service first.
    """
    from consilium.actions.federation.succeeding import accept as follow
    from consilium.actions.federation.succeeding import look_at_succession
    from consilium.settings import load_settings
    from consilium.terminal import ask, say_line, show_fields, show_json

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    meaning = look_at_succession(settings, succession, old)
    if not as_json:
        show_fields(dict(meaning))
    if not yes:
        ask("Follow this log from now on?")
    accepted = follow(settings, succession, old)
    if as_json:
        show_json({**meaning, "accepted": accepted})
        return
    for each in accepted:
        say_line(f"{each['home']} follows {each['federation'][:12]}; old copy: {each['old_copy']}")

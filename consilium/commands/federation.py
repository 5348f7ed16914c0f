"""``consilium federation``: founding one, and looking at one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from consilium.commands.options import AtOption, HomeOption, JsonOption, PassphraseOption, examples

app = typer.Typer(no_args_is_help=True, help="Found a federation, or look at yours.")


@app.command(
    epilog=examples(
        "consilium federation create heart --organisation operator --url https://hub.example.org \\",
        "  --hospital basel --hospital bern --hospital chur --researcher institute=ada --home hub",
        "consilium coordinator run --home hub",
    )
)
def create(
    name: Annotated[str, typer.Argument(help="The federation's name.")],
    organisation: Annotated[
        str, typer.Option("--organisation", help="Who runs the coordinator; none of the hospitals.")
    ],
    url: Annotated[str, typer.Option("--url", help="Where members will reach the coordinator.")],
    hospital: Annotated[
        list[str] | None,
        typer.Option("--hospital", help="Invite this hospital's node and steward; repeated."),
    ] = None,
    researcher: Annotated[
        list[str] | None,
        typer.Option("--researcher", help="ORGANISATION=HANDLE, invite a researcher; repeated."),
    ] = None,
    seat: Annotated[
        list[str] | None,
        typer.Option("--seat", help="ORGANISATION:HANDLE=ROLE, invite anybody; repeated."),
    ] = None,
    endorsements: Annotated[
        int | None,
        typer.Option(
            "--endorsements",
            min=1,
            help="Organisations that a change needs. [default: more than half of the hospitals]",
        ),
    ] = None,
    ca: Annotated[
        Path | None, typer.Option("--ca", help="PEM of your own certificate authority.")
    ] = None,
    database: Annotated[
        str | None, typer.Option("--database", help="URL of the log's database. [default: SQLite]")
    ] = None,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Found a federation: its first entry, the coordinator's home, and the founders' invitations.

    Invitations are written into HOME/invitations; each one lets its people in, once: hand them over
    as you would passwords. The policy is fixed in entry 0; later changes need endorsements.
    """
    from consilium.actions.founding import found, loopback_port
    from consilium.commands.terminal import say_line, show_json
    from consilium.settings import load_settings

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    made = found(
        settings,
        name,
        organisation=organisation,
        url=url,
        hospitals=tuple(hospital or ()),
        researchers=tuple(researcher or ()),
        seats=tuple(seat or ()),
        endorsements=endorsements,
        ca=ca,
        database=database,
    )
    if as_json:
        show_json(made)
        return
    say_line(f"federation {made['name']}: {made['federation']}")
    for organisation_name, path in made["invitations"].items():
        say_line(f"  invitation for {organisation_name}: {path}")
    port = loopback_port(url)
    listen = "" if port is None else f" --port {port}"
    say_line(f"next: consilium coordinator run --home {made['home']}{listen}")


@app.command(epilog=examples("consilium federation show --at demo-out --json"))
def show(
    home: HomeOption = None,
    at: AtOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """The federation's id, size, policy and who witnesses its log."""
    from consilium.actions.reading import open_view
    from consilium.commands.summaries import federation_summary
    from consilium.commands.terminal import show_fields, show_json
    from consilium.settings import load_settings

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_view(settings.home, at, settings.passphrase_file) as view:
        summary = federation_summary(view.state, view.final_size)
    if as_json:
        show_json(summary)
    else:
        show_fields(summary)

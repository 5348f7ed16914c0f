"""``consilium coordinator``: the meeting point's service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from consilium.commands.options import HomeOption, JsonOption, PassphraseOption, examples

app = typer.Typer(no_args_is_help=True, help="Run the coordinator, or ask how it is.")


@app.command(
    epilog=examples(
        "consilium coordinator run --home hub --port 8460",
        "consilium coordinator run --home hub --host 0.0.0.0 --tls-certificate c.pem --tls-key k.pem",
    )
)
def run(
    host: Annotated[
        str | None, typer.Option("--host", help="Where to listen. [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", help="0 takes a free one. [default: 8460]")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option("--tls-certificate", help="PEM; without it a proxy ends TLS.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="PEM.")] = None,
    database: Annotated[
        str | None, typer.Option("--database", help="URL of the log's database.")
    ] = None,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
) -> None:
    """Serve until SIGTERM. May be killed at any time: it goes on where the log is."""
    from consilium.passphrase import read_passphrase
    from consilium.settings import load_settings
    from coordinator.service import run as serve
    from coordinator.settings import KEYRING
    from coordinator.settings import load_settings as coordinator_settings
    from ledger.formats.keys import load_keyring

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    own = coordinator_settings(
        settings.home,
        host=host,
        port=port,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        database=database,
    )
    passphrase = read_passphrase(settings.passphrase_file, of=f"the coordinator ({own.home})")
    serve(own, load_keyring(own.home / KEYRING, passphrase))


@app.command(epilog=examples("consilium coordinator status --url http://127.0.0.1:8460"))
def status(
    url: Annotated[
        str | None, typer.Option("--url", help="Ask this coordinator. [default: your home's]")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Whether a coordinator answers and takes entries, and how far its log is."""
    from consilium.actions.homes import find_home
    from consilium.commands.status import coordinator_status
    from consilium.commands.terminal import show_fields, show_json
    from consilium.settings import load_settings

    settings = load_settings(home=home)
    found = coordinator_status(url or find_home(settings.home).config.url)
    if as_json:
        show_json(found)
    else:
        show_fields(found)

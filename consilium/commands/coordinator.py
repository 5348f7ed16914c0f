"""``consilium coordinator``: the meeting point's service."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from consilium.commands.options import (
    DatabaseOption,
    HomeOption,
    HostOption,
    JsonOption,
    PassphraseOption,
    PortOption,
    RequestOption,
    examples,
)

app = typer.Typer(no_args_is_help=True, help="Run the coordinator, or ask how it is.")


@app.command(
    epilog=examples(
        "consilium coordinator run --home hub --port 8460",
        "consilium coordinator run --home hub --host 0.0.0.0 --tls-certificate c.pem --tls-key k.pem",
    )
)
def run(
    host: HostOption = None,
    port: PortOption = None,
    tls_certificate: Annotated[
        Path | None, typer.Option("--tls-certificate", help="PEM; without it a proxy ends TLS.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="PEM.")] = None,
    database: DatabaseOption = None,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
) -> None:
    """Serve until SIGTERM. May be killed at any time: it goes on where the log is."""
    from consilium.passphrase import read_passphrase
    from consilium.settings import load_settings
    from coordinator.renewing import coming_keys
    from coordinator.service import run as serve
    from coordinator.settings import KEYRING
    from coordinator.settings import load_settings as coordinator_settings
    from ledger.formats.key_file import load_keyring

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
    keyring = load_keyring(own.home / KEYRING, passphrase)
    serve(own, keyring, coming_keys(own.home, passphrase))


@app.command("rotate-keys", epilog=examples("consilium coordinator rotate-keys --home hub"))
def rotate_keys(
    database: DatabaseOption = None,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change the coordinator's keys, with the old ones in hand. Stop the coordinator first.

    Its entry, request and sealing key are new; the log key stays, which only a new log can change
    (`federation succeed`). Run the same command again if it was interrupted, and back up the home.
    """
    from consilium.actions.coordinator.hub_keys import rotate
    from consilium.settings import load_settings
    from consilium.terminal import say_line, show_json

    done = rotate(load_settings(home=home, passphrase_file=passphrase_file), database=database)
    if as_json:
        show_json({"handle": done.handle, "key": done.key, "index": done.index})
        return
    ended = (
        "were in force already" if done.index is None else f"are in force from entry {done.index}"
    )
    say_line(f"{done.handle} goes on with key {done.key}; the new keys {ended}")
    say_line("the old key file is gone: back up the home")


@app.command(
    "new-keys", epilog=examples("consilium coordinator new-keys --out hub.rekey --home hub")
)
def new_keys(
    out: RequestOption,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make new keys when evidence has ended the coordinator's entry key, and a request for them.

    Leave the coordinator running: it takes what stewards say. Hand them the request (`member rekey`,
    `member endorse`), and tell the fingerprint by another way. When it is in force, restart.
    """
    from consilium.actions.coordinator.hub_keys import request
    from consilium.settings import load_settings
    from consilium.terminal import tell

    made = request(load_settings(home=home, passphrase_file=passphrase_file), out)
    tell(
        as_json,
        {"handle": made.handle, "request": str(out), "fingerprint": made.fingerprint},
        f"request for {made.handle}: {out}; fingerprint {made.fingerprint}",
        "next, each steward: consilium member rekey FILE, then the others: member endorse",
    )


@app.command(
    epilog=examples(
        "consilium coordinator refill --home hub --from basel=/media/basel --from bern-node=b.consilium",
        "consilium coordinator refill --home hub --wait --without chur-node",
    )
)
def refill(
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            help="A copy: home, database or bundle; HANDLE=COPY says whose node's; repeated.",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the nodes to bring their copies.")
    ] = False,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", help="A node whose copy is lost for good; repeated."),
    ] = None,
    host: HostOption = None,
    port: PortOption = None,
    database: DatabaseOption = None,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fill a lost or rolled-back database again from the hospitals' copies, verified entry by entry.

    HOME needs the coordinator's keyring.json; the rest is written anew. Nothing is signed below the
    highest checkpoint that anybody shows, and the coordinator does not run before every node that
    joined has shown its copy or was left out by name.
    """
    from consilium.actions.coordinator.refilling import refill as fill
    from consilium.settings import load_settings
    from consilium.terminal import note, say_line, show_json

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    found = fill(
        settings,
        source or (),
        without=without or (),
        listen=wait,
        host=host,
        port=port,
        database=database,
    )
    if found["warning"]:
        note(f"warning: {found['warning']}")
    if as_json:
        show_json(found)
        return
    say_line(f"{found['entries']} entries are back ({found['new_entries']} of them now)")
    say_line(f"copies shown by: {', '.join(found['shown']) or 'nobody'}")
    if found["left_out"]:
        say_line(f"left out: {', '.join(found['left_out'])}")
    if found["missing_blobs"]:
        say_line(f"{found['missing_blobs']} blobs that entries name are in no copy so far")
    say_line(f"next: consilium coordinator run --home {shlex.quote(found['home'])}")


@app.command(
    epilog=examples(
        "consilium coordinator status --home hub",
        "consilium coordinator status --url http://127.0.0.1:8460",
    )
)
def status(
    url: Annotated[
        str | None,
        typer.Option("--url", help="Ask this coordinator. [default: the home's]"),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Whether a coordinator answers and takes entries, and how far its log is."""
    from consilium.commands.status import coordinator_status, coordinator_url
    from consilium.settings import load_settings
    from consilium.terminal import show_fields, show_json

    found = coordinator_status(url or coordinator_url(load_settings(home=home).home))
    if as_json:
        show_json(found)
    else:
        show_fields(found)

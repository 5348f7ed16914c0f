"""Options that many commands share, so that they are spelled and explained alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help="Your home directory, or one that holds several. [default: ~/.consilium]",
        show_default=False,
    ),
]
PassphraseOption = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="File with the passphrase of your keys; without it you are asked.",
        show_default=False,
    ),
]
AtOption = Annotated[
    str | None,
    typer.Option(
        "--at",
        help="Read from here instead: a home, a bundle, a folder of tiles, a demo's folder (no keys, "
        "no network), or a coordinator's URL (entries need a member's --home).",
        show_default=False,
    ),
]
DatasetArgument = Annotated[str, typer.Argument(help="The dataset's name.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
HostOption = Annotated[
    str | None, typer.Option("--host", help="Where to listen. [default: 127.0.0.1]")
]
PortOption = Annotated[
    int | None, typer.Option("--port", help="0 takes a free one. [default: 8460]")
]
DatabaseOption = Annotated[
    str | None, typer.Option("--database", help="URL of the log's database.")
]
NewDatabaseOption = Annotated[
    str | None, typer.Option("--database", help="URL of the log's database. [default: SQLite]")
]
CaOption = Annotated[
    Path | None, typer.Option("--ca", help="PEM of your own certificate authority.")
]
SchemasOption = Annotated[
    list[Path] | None,
    typer.Option("--schema", help="Schema file, repeated; one may stand for all datasets."),
]
WithdrawalOption = Annotated[
    str, typer.Option("--reason", help="consent, quality, legal, policy or other.")
]
RequestOption = Annotated[Path, typer.Option("--out", help="Where to write the request.")]
ChangeArgument = Annotated[
    str, typer.Argument(help="Id of the change, or a unique beginning of it.")
]


def examples(*commands: str) -> str:
    """An epilog with commands to copy, each on its own line."""
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)

"""``consilium dataset prove`` and ``forget-secret``: whether a patient's rows were in a dataset.

A proof is made inside the hospital from the file as it was registered, and checked by anyone
(``consilium audit membership``). Once a version's secret is erased, none can be made for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from consilium.commands.options import (
    DatasetArgument,
    HomeOption,
    JsonOption,
    PassphraseOption,
    YesOption,
    examples,
)

UnitOption = Annotated[
    str,
    typer.Option("--unit", help="The patient's id; a row's number from 0 where rows have none."),
]
VersionOption = Annotated[
    str | None,
    typer.Option("--registration", help="Of an older version: its entry's hash. [default: newest]"),
]
PROVE_EPILOG = examples(
    "consilium dataset prove basel-heart --unit 4711 --out proof.json",
    "consilium dataset prove basel-heart --unit 4711 --open-rows --out proof.json",
)
FORGET_EPILOG = examples("consilium dataset forget-secret basel-heart --registration 5f1c... --yes")


def prove(
    name: DatasetArgument,
    unit: UnitOption,
    out: Annotated[Path, typer.Option("--out", help="The file to write.")],
    registration: VersionOption = None,
    open_rows: Annotated[
        bool, typer.Option("--open-rows", help="Also show the unit's rows as committed to.")
    ] = False,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prove that a patient's rows were in a registered dataset, or that they were not.

    Needs the file as it was registered. Give the proof to the patient or the court that asked, and do
    not publish it: whoever holds it can test guesses about the one or two leaves that it shows.
    """
    from consilium.actions.dataset.membership import prove_unit
    from consilium.settings import load_settings
    from consilium.terminal import say_line, show_json

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    found = prove_unit(settings, name, unit, registration, out, rows=open_rows)
    if as_json:
        show_json(found)
        return
    say_line(f"{out}: {unit} {'was' if found['present'] else 'was not'} in {name}")
    say_line(f"checked by anyone with: consilium audit membership {out} --at COPY")


def forget_secret(
    name: DatasetArgument,
    registration: VersionOption = None,
    yes: YesOption = False,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase the secret of a version's commitment: no proof about its rows can be made again.

    The ledger and every other proof stay valid. It cannot be undone, and copies of private.db made
    before still hold the secret. Training does not need it.
    """
    from consilium.actions.dataset import membership
    from consilium.settings import load_settings
    from consilium.terminal import ask, tell

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    if not yes:
        ask(f"Nobody will be able to prove again who was in {name}. Go on?")
    erased = membership.forget_secret(settings, name, registration)
    tell(
        as_json,
        {"dataset": name, "version": erased},
        f"{name}: the secret of version {erased[:16]} is erased; older backups still hold it",
    )

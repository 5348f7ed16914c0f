"""``consilium ledger``: for other people's tools: proofs, leaves, policies, tiles, a witness."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from consilium.commands.ledger.group import app as app
from consilium.commands.options import AtOption, HomeOption, JsonOption, PassphraseOption, examples

IndexArgument = Annotated[int, typer.Argument(min=0, help="Index of the entry, from 0.")]
CosignedOption = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        help="A checkpoint of this log kept or cosigned elsewhere; the cosignatures that are known "
        "here are added. [default: the newest final one]",
        show_default=False,
    ),
]


@app.command(
    epilog=examples(
        "consilium ledger proof 12 --at demo-out --out 12.tlog-proof",
        "consilium ledger proof 12 --at https://hub.example.org --out 12.tlog-proof",
    )
)
def proof(
    index: IndexArgument,
    out: Annotated[Path, typer.Option("--out", help="The proof to write (*.tlog-proof).")],
    checkpoint: CosignedOption = None,
    home: HomeOption = None,
    at: AtOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the offline proof (C2SP tlog-proof) that an entry is in the log.

    The entry itself is not inside: see `ledger leaf`. Who verifies it needs a policy: see
    `ledger policy`. A server gives proofs to anyone.
    """
    from consilium.actions.files import read_file, write_file
    from consilium.actions.ledger.offline import LIMITS, open_here
    from consilium.settings import load_settings
    from consilium.terminal import note, tell
    from ledger.formats.note import parse_note

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_here(settings, at) as source:
        signed = source.note(index)
        if checkpoint is not None:
            signed = source.with_lines(read_file(checkpoint, LIMITS["checkpoint"]))
        made = source.prove(index, signed)
    write_file(out, made.encode())
    opened = parse_note(signed)
    size = opened.text.split(b"\n")[1].decode()
    tell(
        as_json,
        {"out": str(out), "index": index, "size": int(size), "signatures": len(opened.signatures)},
        f"{out}: entry {index} in the log of {size} entries, {len(made.path)} hashes",
    )
    if len(opened.signatures) == 1:
        note("nobody but the log has signed this checkpoint: no hospital stands behind it yet")


@app.command(epilog=examples("consilium ledger leaf 12 --at demo-out --out 12.leaf"))
def leaf(
    index: IndexArgument,
    out: Annotated[Path, typer.Option("--out", help="The file to write.")],
    home: HomeOption = None,
    at: AtOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the exact bytes of an entry's leaf: what the log's tree commits to."""
    from consilium.actions.files import write_file
    from consilium.actions.ledger.offline import open_here
    from consilium.settings import load_settings
    from consilium.terminal import tell
    from ledger.formats.merkle import leaf_hash

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_here(settings, at) as source:
        data = source.leaf(index)
    write_file(out, data)
    digest = leaf_hash(data).hex()
    document = {"out": str(out), "bytes": len(data), "leaf_hash": digest}
    tell(as_json, document, f"{out}: {len(data)} bytes, leaf hash {digest}")


@app.command(
    epilog=examples(
        "consilium ledger policy --at demo-out > federation.policy",
        "consilium ledger policy --at demo-out --witness VKEY --out federation.policy",
    )
)
def policy(
    out: Annotated[
        Path | None, typer.Option("--out", help="The file to write. [default: standard output]")
    ] = None,
    witness: Annotated[
        list[str] | None,
        typer.Option("--witness", help="Ask for this outside witness's cosignature too (a vkey)."),
    ] = None,
    home: HomeOption = None,
    at: AtOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a policy file (C2SP tlog-policy): the log's key, every witness key, the quorum.

    The witnesses are those under the newest final checkpoint. From a coordinator, without a member's
    home, it is the coordinator's word.
    """
    from consilium.actions.files import write_file
    from consilium.actions.ledger.offline import open_here, policy_text, witness_keys
    from consilium.settings import load_settings
    from consilium.terminal import tell

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_here(settings, at) as source:
        text = policy_text(source, settings, witness_keys(witness))
    words = text.decode("utf-8")
    if out is None:
        tell(as_json, {"policy": words}, words.rstrip("\n"))
    else:
        write_file(out, text)
        tell(as_json, {"out": str(out), "policy": words}, f"{out}: written")


@app.command(
    epilog=examples(
        "consilium ledger tiles --at demo-out --out tiles",
        "consilium ledger tiles --at https://hub.example.org --home ~/consilium --out tiles",
    )
)
def tiles(
    out: Annotated[Path, typer.Option("--out", help="A folder; made, or brought up to date.")],
    checkpoint: CosignedOption = None,
    home: HomeOption = None,
    at: AtOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the log as static files (C2SP tlog-tiles) that any web server or bucket can hand out.

    Files are written once and flushed; other bytes under the same name are refused. A run that was cut
    off is gone on with. The files hold every entry of the log: whoever reads them reads what members
    read.
    """
    from consilium.actions.files import read_file
    from consilium.actions.ledger.offline import LIMITS, open_here
    from consilium.settings import load_settings
    from consilium.terminal import say_line, show_json

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_here(settings, at, kept=out) as source:
        given = (
            source.note()
            if checkpoint is None
            else source.with_lines(read_file(checkpoint, LIMITS["checkpoint"]))
        )
        exported = source.export(out, given)
    if as_json:
        show_json({"entries": exported.size, "written": exported.written, "kept": exported.kept})
    else:
        say_line(
            f"{out}: {exported.size} entries; {exported.written} files written, "
            f"{exported.kept} were there"
        )


@app.command(
    epilog=examples(
        "consilium ledger check 12.tlog-proof --leaf 12.leaf --policy federation.policy"
    )
)
def check(
    file: Annotated[Path, typer.Argument(metavar="PROOF", help="A *.tlog-proof file.")],
    leaf_file: Annotated[Path, typer.Option("--leaf", help="The entry's exact leaf bytes.")],
    policy_file: Annotated[Path, typer.Option("--policy", help="Whom you trust (tlog-policy).")],
    as_json: JsonOption = False,
) -> None:
    """Verify an offline proof from three files, with no ledger and no network.

    Works for any log of the C2SP kind. Exits with 1 when the proof does not hold.
    """
    from datetime import UTC, datetime

    from consilium.actions.files import read_file
    from consilium.actions.ledger.offline import LIMITS, check_proof
    from consilium.terminal import say_line, show_json

    found = check_proof(
        read_file(file, LIMITS["proof"]),
        read_file(leaf_file, LIMITS["leaf"]),
        read_file(policy_file, LIMITS["policy"]),
    )
    seen = found.checkpoint
    if as_json:
        show_json(
            {
                "ok": True,
                "index": found.index,
                "origin": seen.origin,
                "size": seen.size,
                "root": seen.root.hex(),
                "cosigned": found.signed,
            }
        )
        return
    say_line(f"proved: entry {found.index} is in the log {seen.origin} of {seen.size} entries")
    for name, time_s in sorted(found.signed.items()):
        say_line(f"  cosigned {datetime.fromtimestamp(time_s, UTC).isoformat()} by {name}")


@app.command(
    epilog=examples(
        "consilium ledger witness --state w --name auditor.example.org/witness "
        "--follow https://hub.example.org --trust genesis.leaf",
        "consilium ledger witness --state w --listen 127.0.0.1:8464",
        "consilium ledger witness --state w --once",
    )
)
def witness(
    state: Annotated[Path, typer.Option("--state", help="The witness's own directory.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Its key name; needed the first time.")
    ] = None,
    follow: Annotated[
        str | None,
        typer.Option(
            "--follow", help="A coordinator, or a server of tiles, to witness from now on."
        ),
    ] = None,
    trust: Annotated[
        str | None,
        typer.Option("--trust", help="Genesis file or id of the federation that it must be."),
    ] = None,
    log: Annotated[
        str | None, typer.Option("--log", help="A log's vkey, to be witnessed on request.")
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option("--listen", help="HOST:PORT for add-checkpoint requests and monitors."),
    ] = None,
    every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between looks.")] = 60.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    passphrase_file: PassphraseOption = None,
) -> None:
    """Witness a log from outside the federation: check that it only grows, and cosign it.

    Prints the witness's key, follows until SIGTERM, and keeps what it cosigned. It needs no membership
    and sees no entry. When the log shows two histories it keeps both notes as evidence and exits with 1;
    with --listen it stays, and /healthz turns red.
    """
    from consilium.actions.ledger.witnessing import Wanted, run_witness
    from consilium.settings import load_settings

    settings = load_settings(passphrase_file=passphrase_file)
    run_witness(Wanted(state, name, follow, trust, log, listen), settings, every_s=every, once=once)

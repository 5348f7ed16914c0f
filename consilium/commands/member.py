"""``consilium member``: joining a federation, letting others in, ending keys."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from consilium.commands.options import (
    AtOption,
    ChangeArgument,
    HomeOption,
    JsonOption,
    PassphraseOption,
    RequestOption,
    YesOption,
    examples,
)

app = typer.Typer(no_args_is_help=True, help="Join, invite, endorse, change keys, revoke.")


@app.command(epilog=examples("consilium member join basel.invitation --home ~/consilium"))
def join(
    invitation: Annotated[Path, typer.Argument(help="The invitation file you were handed.")],
    handle: Annotated[
        str | None, typer.Option("--handle", help="Take this seat only. [default: all of them]")
    ] = None,
    card: Annotated[
        Path | None, typer.Option("--card", help="YAML with name and contact; can be erased later.")
    ] = None,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make keys on this machine and take your seats in the federation.

    A hospital's invitation has two seats, its node's and its steward's: each gets a home of its own
    below --home. Run the same command again if it was interrupted.
    """
    from consilium.actions.member.joining import join as join_seats
    from consilium.settings import load_settings
    from consilium.terminal import tell

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    taken = list(join_seats(invitation, settings, handle=handle, card=card))
    tell(
        as_json,
        [
            {
                "handle": one.handle,
                "role": one.role,
                "organisation": one.organisation,
                "entry": one.index,
                "home": str(one.home),
            }
            for one in taken
        ],
        *(
            f"{one.handle} joined as {one.role} of {one.organisation} "
            f"(entry {one.index}); home: {one.home}"
            for one in taken
        ),
    )


@app.command(
    epilog=examples(
        "consilium member invite chur --out chur.invitation",
        "consilium member invite institute --seat ada=researcher --out ada.invitation",
    )
)
def invite(
    organisation: Annotated[str, typer.Argument(help="Whose people are invited.")],
    out: Annotated[Path, typer.Option("--out", help="Where to write the invitation file.")],
    seat: Annotated[
        list[str] | None,
        typer.Option("--seat", help="HANDLE=ROLE, repeated. [default: a node and a steward]"),
    ] = None,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Propose to let an organisation's people in, and write their invitation.

    It takes effect when enough organisations endorsed it (`member endorse`). Whoever holds the file
    can take the seats: hand it over as you would a password.
    """
    from consilium.actions.member.joining import invite as invite_people
    from consilium.settings import load_settings
    from consilium.terminal import tell

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    invited = invite_people(settings, organisation, tuple(seat or ()), out)
    lines = [f"proposed as change {invited.change} (entry {invited.index}); invitation: {out}"]
    if invited.missing:
        lines.append(
            f"{invited.missing} more organisation{'' if invited.missing == 1 else 's'} must endorse it: "
            f"consilium member endorse {invited.change[:8]}"
        )
    document = {
        "change": invited.change,
        "entry": invited.index,
        "in_force": not invited.missing,
        "missing": invited.missing,
        "invitation": str(out),
    }
    tell(as_json, document, *lines)


@app.command(epilog=examples("consilium member endorse 3f9a0c11 --home ~/consilium"))
def endorse(
    change: ChangeArgument,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stand behind a proposed change, for your organisation."""
    from consilium.actions.speaking import endorse_change
    from consilium.settings import load_settings
    from consilium.terminal import tell

    done = endorse_change(load_settings(home=home, passphrase_file=passphrase_file), change)
    tell(
        as_json,
        asdict(done),
        f"endorsed {done.change[:8]}" + ("; it is in force" if done.in_force else ""),
    )


@app.command(epilog=examples("consilium member uninvite 5d0c92aa --home ~/consilium"))
def uninvite(
    invitation: Annotated[
        str, typer.Argument(help="Id of the invitation, a unique beginning of it, or a handle.")
    ],
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Propose to withdraw an invitation: its free seats let nobody in any more.

    It takes effect when enough organisations endorsed it (`member endorse`).
    """
    from consilium.actions.speaking import open_member, propose
    from consilium.naming import the_invitation
    from consilium.settings import load_settings
    from consilium.terminal import tell
    from ledger.entries.operations.federation import WithdrawChange

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_member(settings.home, settings.passphrase_file, ("steward",)) as member:
        member.follow()
        found = the_invitation(member.replica.state, invitation)
        proposed = propose(member, WithdrawChange(invitation=found))
        tell(as_json, asdict(proposed), *proposed.proposed())


@app.command(epilog=examples("consilium member rotate --home ~/consilium"))
def rotate(
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change your keys, with the old ones in hand. Stop the service that uses this home first.

    New keys are made here; the old ones sign for them, and end. What was sealed to the old keys is
    sealed to the new ones. Run the same command again if it was interrupted.
    """
    from consilium.actions.member.renewing import rotate as change_keys
    from consilium.settings import load_settings
    from consilium.terminal import tell

    done = change_keys(load_settings(home=home, passphrase_file=passphrase_file))
    tell(
        as_json,
        {"handle": done.handle, "key": done.key, "retired_at": done.retired_at},
        f"{done.handle} goes on with key {done.key}; the old keys ended at entry {done.retired_at}",
    )


@app.command(
    "new-keys",
    epilog=examples(
        "consilium member new-keys --out basel-node.rekey --home ~/consilium",
        "consilium member new-keys --out x.rekey --invitation basel.invitation --handle basel-node",
    ),
)
def new_keys(
    out: RequestOption,
    lost: Annotated[
        bool, typer.Option("--lost", help="The key file does not open any more: set it aside.")
    ] = False,
    invitation: Annotated[
        Path | None,
        typer.Option("--invitation", help="There is no home any more: make one from this file."),
    ] = None,
    handle: Annotated[
        str | None, typer.Option("--handle", help="With --invitation: whose keys.")
    ] = None,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make new keys when the old ones cannot speak (lost, revoked, copied), and a request for them.

    Hand the request to a steward, who proposes it (`member rekey`), and tell the fingerprint by
    another way. When enough organisations endorsed it, this home opens with the new keys.
    """
    from consilium.actions.member.renewing import request_keys
    from consilium.settings import load_settings
    from consilium.terminal import note, tell

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    made = request_keys(settings, out, invitation=invitation, handle=handle, lost=lost)
    asked = made.request
    tell(
        as_json,
        {"handle": asked.handle, "request": str(out), "fingerprint": asked.fingerprint},
        f"request for {asked.handle}: {out}; fingerprint {asked.fingerprint}",
    )
    for line in made.lost:
        note(line)


@app.command(epilog=examples("consilium member rekey basel-node.rekey --home ~/consilium"))
def rekey(
    request: Annotated[Path, typer.Argument(help="The request that the member handed over.")],
    yes: YesOption = False,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Propose new keys for a member, after comparing the fingerprint with its owner.

    It takes effect when enough organisations endorsed it (`member endorse`).
    """
    from consilium.actions.speaking import open_member, propose
    from consilium.settings import load_settings
    from consilium.terminal import ask, note, say_line, tell
    from ledger.entries.rekey_request import load_request

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_member(settings.home, settings.passphrase_file, ("steward",)) as member:
        member.follow()
        asked = load_request(request, member.config.federation)
        (note if as_json else say_line)(
            f"new keys for {asked.handle}, fingerprint {asked.fingerprint}"
        )
        if not yes:
            ask(f"Did {asked.handle} tell you this fingerprint?")
        proposed = propose(member, asked.change)
        tell(as_json, asdict(proposed), *proposed.proposed())


@app.command(
    epilog=examples("consilium member revoke basel-node --compromised-since 2027-03-01 --yes")
)
def revoke(
    handle: Annotated[str, typer.Argument(help="Whose keys end here.")],
    compromised_since: Annotated[
        str | None,
        typer.Option(
            "--compromised-since", "--since", help="ISO date: entries from then on are disputed."
        ),
    ] = None,
    yes: YesOption = False,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a member's keys at once: your own, or as steward those of your organisation."""
    from consilium.actions.speaking import open_member, say
    from consilium.commands.dates import parse_time_ms
    from consilium.settings import load_settings
    from consilium.terminal import ask, tell
    from ledger.entries.operations.members import KeyRevoked

    since = None if compromised_since is None else parse_time_ms(compromised_since)
    settings = load_settings(home=home, passphrase_file=passphrase_file)
    if not yes:
        ask(f"End the keys of {handle}, for good?")
    with open_member(settings.home, settings.passphrase_file) as member:
        operation = KeyRevoked(type="key.revoked", member=handle, compromised_since_ms=since)
        found = say(member, operation)
        document = {"member": handle, "compromised_since_ms": since, "entry": found.index}
        tell(as_json, document, f"the keys of {handle} ended at entry {found.index}")


@app.command(
    "erase-card",
    epilog=examples("consilium member erase-card", "consilium member erase-card basel-node --yes"),
)
def erase_card(
    handle: Annotated[
        str | None, typer.Argument(help="Whose card, as steward. [default: your own]")
    ] = None,
    yes: YesOption = False,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have a member's card (name, contact) forgotten: every copy deletes it, proofs stay valid.

    Whoever copied the card elsewhere, or holds a bundle with it, keeps it.
    """
    from consilium.actions.member.erasing import erase_member_card
    from consilium.settings import load_settings
    from consilium.terminal import ask, tell

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    if not yes:
        ask(f"Erase the card of {handle or 'this member'} everywhere, for good?")
    erased = list(erase_member_card(settings, handle))
    tell(
        as_json,
        [{"card": one.card, "entry": one.index} for one in erased],
        *(f"card {one.card[:12]} is erased by entry {one.index}" for one in erased),
    )


@app.command("list", epilog=examples("consilium member list --at demo-out --json"))
def list_members(
    home: HomeOption = None,
    at: AtOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Who is in the federation, and which changes wait for endorsements."""
    from consilium.actions.reading import open_view
    from consilium.settings import load_settings
    from consilium.summaries.federation import change_summary, member_summary
    from consilium.terminal import show_json, show_table

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_view(settings.home, at, settings.passphrase_file) as view:
        members = sorted(view.state.members.values(), key=lambda m: m.joined_at)
        changes = [change_summary(view.state, c) for c in sorted(view.state.changes)]
        rows = [member_summary(member) for member in members]
        if as_json:
            show_json({"members": rows, "changes": changes})
            return
        show_table("members", rows)
        waiting = [change for change in changes if not change["in_force"]]
        if waiting:
            show_table("changes", waiting)

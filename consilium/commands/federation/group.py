"""``consilium federation``: founding one, and looking at one."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import Annotated

import typer

from consilium.commands.federation import succeed as succeed_commands
from consilium.commands.member import endorse
from consilium.commands.options import (
    AtOption,
    CaOption,
    ChangeArgument,
    HomeOption,
    JsonOption,
    NewDatabaseOption,
    PassphraseOption,
    WithdrawalOption,
    YesOption,
    examples,
)

app = typer.Typer(no_args_is_help=True, help="Found a federation, look at yours, change its rules.")
app.add_typer(succeed_commands.app, name="succeed")


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
    ca: CaOption = None,
    database: NewDatabaseOption = None,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Found a federation: its first entry, the coordinator's home, and the founders' invitations.

    Invitations are written into HOME/invitations; each one lets its people in, once: hand them over
    as you would passwords. The policy is fixed in entry 0; later changes need endorsements.
    """
    from consilium.actions.federation.founding import found
    from consilium.settings import load_settings
    from consilium.terminal import say_line, show_json

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
    say_line(f"next: consilium coordinator run --home {shlex.quote(made['home'])}")


@app.command(
    epilog=examples(
        "consilium federation policy --at demo-out",
        "consilium federation policy --set endorsements=3 --set max_age_ms=600000",
    )
)
def policy(
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=NUMBER, repeated: propose the policy with these changed."),
    ] = None,
    home: HomeOption = None,
    at: AtOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """The policy in force; with --set, propose another one as a steward.

    It takes effect when as many organisations as the old policy says endorsed it
    (`federation endorse`).
    """
    from msgspec import to_builtins

    from consilium.actions.reading import open_view
    from consilium.actions.speaking import changed_policy, open_member, propose
    from consilium.settings import load_settings
    from consilium.terminal import show_fields, show_json, tell
    from ledger.entries.operations.federation import PolicyChange

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    if not change:
        with open_view(settings.home, at, settings.passphrase_file) as view:
            fields = to_builtins(view.state.policy)
        if as_json:
            show_json(fields)
        else:
            show_fields(fields)
        return
    with open_member(settings.home, settings.passphrase_file, ("steward",)) as member:
        member.follow()
        wanted = changed_policy(member.replica.state.policy, change)
        proposed = propose(member, PolicyChange(policy=wanted))
        tell(as_json, asdict(proposed), *proposed.proposed())


@app.command(epilog=examples("consilium federation changes --json"))
def changes(
    home: HomeOption = None,
    at: AtOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Every change that was proposed: what, by whom, who stands behind it, whether it is in force."""
    from consilium.actions.reading import open_view
    from consilium.settings import load_settings
    from consilium.summaries.federation import change_summary
    from consilium.terminal import show_json, show_table

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_view(settings.home, at, settings.passphrase_file) as view:
        rows = [change_summary(view.state, change) for change in sorted(view.state.changes)]
    if as_json:
        show_json(rows)
    else:
        show_table("changes", rows)


app.command(
    "endorse",
    help="Stand behind a proposed change, for your organisation; the same as `member endorse`.",
    epilog=examples("consilium federation endorse 3f9a0c11 --home ~/consilium"),
)(endorse)


@app.command("take-back", epilog=examples("consilium federation take-back 3f9a0c11"))
def take_back(
    change: ChangeArgument,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take back a change that your organisation proposed and that is not in force.

    It is gone from the list, with whatever endorsements it had, and cannot be endorsed any more.
    """
    from consilium.actions.speaking import open_member, say
    from consilium.naming import the_change
    from consilium.settings import load_settings
    from consilium.terminal import tell
    from ledger.entries.operations.federation import ChangeWithdrawn

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_member(settings.home, settings.passphrase_file, ("steward",)) as member:
        member.follow()
        found = the_change(member.replica.state, change)
        said = say(member, ChangeWithdrawn(type="change.withdrawn", change=found))
        document = {"change": found, "entry": said.index}
        tell(as_json, document, f"change {found[:8]} is taken back by entry {said.index}")


@app.command(epilog=examples("consilium federation expel davos --home ~/consilium"))
def expel(
    organisation: Annotated[str, typer.Argument(help="Who is to leave.")],
    yes: YesOption = False,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Propose to put an organisation out: its keys end for good, its datasets are withdrawn.

    It takes effect when enough other organisations endorsed it (`federation endorse`); it is not
    asked itself. What its patients' budgets paid stays paid.
    """
    from consilium.actions.speaking import open_member, propose
    from consilium.naming import the_organisation
    from consilium.settings import load_settings
    from consilium.terminal import ask, tell
    from ledger.entries.operations.federation import ExpelChange

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_member(settings.home, settings.passphrase_file, ("steward",)) as member:
        member.follow()
        found = the_organisation(member.replica.state, organisation)
        if not yes:
            ask(f"Propose to expel {found}, for good?")
        proposed = propose(member, ExpelChange(organisation=found))
        tell(as_json, asdict(proposed), *proposed.proposed())


@app.command(
    epilog=examples(
        "consilium federation leave --home ~/consilium",
        "consilium federation leave --reason legal --erase-cards --yes",
    )
)
def leave(
    reason: WithdrawalOption = "other",
    erase_cards: Annotated[
        bool, typer.Option("--erase-cards", help="Have your organisation's cards forgotten too.")
    ] = False,
    yes: YesOption = False,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Leave with your organisation: its datasets are withdrawn and all its keys end, yours last.

    Your copies of the log stay readable here. What was signed and spent stays. Run the same command
    again if it was interrupted; to come back takes new keys from k organisations (`member rekey`).
    """
    from consilium.actions.federation.leaving import catch_up, plan_farewell
    from consilium.actions.federation.leaving import leave as say_farewell
    from consilium.actions.speaking import closed_word, open_member
    from consilium.settings import load_settings
    from consilium.terminal import ask, note, say_line, tell
    from ledger.entries.operations.datasets import WithdrawalReason

    said = closed_word(reason, WithdrawalReason, "--reason")
    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_member(settings.home, settings.passphrase_file, ("steward",)) as member:
        catch_up(member)
        state = member.replica.state
        farewell = plan_farewell(state, member.config.handle, erase_cards=erase_cards)
        for warning in farewell.warnings:
            note(warning)
        ahead = note if as_json else say_line
        ahead(f"datasets that are withdrawn: {', '.join(farewell.datasets) or 'none'}")
        ahead(f"members whose keys end: {', '.join(farewell.members)}")
        if not yes:
            ask(f"Leave with {farewell.organisation}, for good?")
        done = list(say_farewell(member, farewell, said))
        document = {
            "organisation": farewell.organisation,
            "datasets": list(farewell.datasets),
            "members": list(farewell.members),
            "done": done,
        }
        tell(as_json, document, *done)


@app.command(epilog=examples("consilium federation show --at demo-out --json"))
def show(
    home: HomeOption = None,
    at: AtOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """The federation's id, size, policy and who witnesses its log."""
    from consilium.actions.reading import open_view
    from consilium.settings import load_settings
    from consilium.summaries.federation import federation_summary
    from consilium.terminal import show_fields, show_json

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_view(settings.home, at, settings.passphrase_file) as view:
        summary = federation_summary(view.state, view.final_size)
    if as_json:
        show_json(summary)
    else:
        show_fields(summary)

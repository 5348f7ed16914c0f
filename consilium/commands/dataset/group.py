"""``consilium dataset``: a hospital's data, judged locally and offered by its public schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from consilium.commands.dataset import membership as dataset_membership
from consilium.commands.dataset import statistics as dataset_statistics
from consilium.commands.options import (
    AtOption,
    DatasetArgument,
    HomeOption,
    JsonOption,
    PassphraseOption,
    WithdrawalOption,
    YesOption,
    examples,
)

app = typer.Typer(no_args_is_help=True, help="Check, register, list and withdraw datasets.")

DataOption = Annotated[Path, typer.Option("--data", help="CSV (plain or .gz) or Parquet.")]
SchemaOption = Annotated[Path, typer.Option("--schema", help="The dataset's schema, YAML or JSON.")]
PurposeBudgetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--purpose-budget",
        metavar="PURPOSE=EPSILON",
        help="Most that one purpose may use of each cell's promise; may be said again, only to lower "
        "it. Purposes: research, public_health, care, policy, statistics, education, development.",
    ),
]


@app.command(epilog=examples("consilium dataset check --data heart.csv --schema schema.yaml"))
def check(data: DataOption, schema: SchemaOption, as_json: JsonOption = False) -> None:
    """Say whether a file fits its schema. Nothing is written and nothing leaves this machine."""
    from consilium.actions.dataset.registering import check_file
    from consilium.terminal import say_line, show_fields, show_json

    found = check_file(data, schema)
    if as_json:
        show_json(found)
        return
    show_fields(found)
    say_line("It fits. These counts stay here; what is published is the declared size.")


@app.command(
    epilog=examples(
        "consilium dataset register --data heart.csv --schema schema.yaml --epsilon 8",
        "consilium dataset register --data more.csv --schema more.yaml   # the same patients' budget",
        "consilium dataset register --data a.csv --schema a.yaml --epsilon 8 --blocks year",
        "consilium dataset register --data a.csv --schema a.yaml --epsilon 8 "
        "--purpose-budget research=6 --purpose-budget development=0",
        "consilium dataset register --data b.csv --schema a.yaml --new-patients 400   # a year later",
        "consilium dataset register --data a.csv --schema a.yaml --epsilon 1 --refresh-days 365",
    )
)
def register(
    data: DataOption,
    schema: SchemaOption,
    epsilon: Annotated[
        float | None,
        typer.Option(
            "--epsilon",
            help="What your patients are promised for ever (or for each period, --refresh-days); said "
            "when a cell of them is opened.",
        ),
    ] = None,
    delta: Annotated[
        float | None,
        typer.Option("--delta", help="Of that promise. [default: min(1e-5, 1/(10 N))]"),
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option("--card", help="YAML: controller, legal basis, retention; erasable later."),
    ] = None,
    blocks: Annotated[
        str | None,
        typer.Option(
            "--blocks",
            help="year or quarter: cells by when a patient was first registered. Said with your "
            "first dataset.",
        ),
    ] = None,
    new_patients: Annotated[
        int | None,
        typer.Option(
            "--new-patients",
            min=0,
            help="Opens today's block for about so many patients who were never registered before; "
            "0 takes in nobody new.",
        ),
    ] = None,
    lifetime: Annotated[
        float | None,
        typer.Option(
            "--lifetime",
            help="Epsilon for a patient over all your federations together, said once; --epsilon is "
            "this one's part. Needs the setting promises.",
        ),
    ] = None,
    purpose_budget: PurposeBudgetOption = None,
    individual: Annotated[
        bool,
        typer.Option(
            "--individual",
            help="Account for each training patient alone, inside this hospital. Said with your first "
            "dataset; read docs/privacy.md before.",
        ),
    ] = False,
    refresh_days: Annotated[
        int | None,
        typer.Option(
            "--refresh-days",
            min=30,
            max=36_525,
            help="The promise holds for each period of so many days, and not for ever. Said with your "
            "first dataset; read docs/privacy.md before.",
        ),
    ] = None,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Offer a dataset: its public schema and declared sizes are published, its rows stay here."""
    from consilium.actions.dataset.registering import register_file
    from consilium.actions.speaking import closed_word
    from consilium.settings import load_settings
    from consilium.terminal import show_fields, show_json
    from ledger.rules.blocks import Period

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    found = register_file(
        settings,
        data,
        schema,
        epsilon=epsilon,
        delta=delta,
        card=card,
        blocks=None if blocks is None else closed_word(blocks, Period, "--blocks"),
        new_patients=new_patients,
        lifetime=lifetime,
        purposes=purpose_budget or (),
        individual=individual,
        refresh_days=refresh_days,
    )
    if as_json:
        show_json(found)
    else:
        show_fields(found)


@app.command("list", epilog=examples("consilium dataset list --at demo-out --json"))
def list_datasets(
    home: HomeOption = None,
    at: AtOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """The federation's datasets and what their patients' budgets still hold."""
    from consilium.actions.reading import open_view
    from consilium.settings import load_settings
    from consilium.summaries.datasets import dataset_summary
    from consilium.terminal import show_json, show_table

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_view(settings.home, at, settings.passphrase_file) as view:
        known = sorted(view.state.datasets.items())
        rows = [dataset_summary(view.state, name, dataset) for name, dataset in known]
    if as_json:
        show_json(rows)
    else:
        show_table("datasets", rows)


@app.command(epilog=examples("consilium dataset show basel-heart --at demo-out"))
def show(
    name: DatasetArgument,
    home: HomeOption = None,
    at: AtOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """A dataset's schema: what a spec may name as features and target."""
    from consilium.actions.reading import open_view
    from consilium.naming import the_dataset
    from consilium.settings import load_settings
    from consilium.summaries.datasets import dataset_summary, schema_columns
    from consilium.terminal import show_fields, show_json, show_table
    from ledger.experiment.schema import Schema
    from ledger.formats.documents import parse_document

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_view(settings.home, at, settings.passphrase_file) as view:
        dataset = the_dataset(view.state, name)
        schema = parse_document(view.blob(dataset.terms.schema_), Schema)
        summary = dataset_summary(view.state, name, dataset)
    if as_json:
        show_json({**summary, "schema": schema.model_dump(mode="json")})
        return
    show_fields({**summary, "title": schema.title or None})
    show_table("columns", schema_columns(schema))


@app.command(epilog=examples("consilium dataset budget basel-heart --at demo-out --json"))
def budget(
    name: DatasetArgument,
    home: HomeOption = None,
    at: AtOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a dataset's patients were promised, what is spent of it, what that means and what still fits."""
    from consilium.actions.reading import open_view
    from consilium.naming import the_dataset
    from consilium.settings import load_settings
    from consilium.summaries.datasets import budget_row, dataset_budget_summary, refresh_lines
    from consilium.terminal import say_line, show_json, show_table

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_view(settings.home, at, settings.passphrase_file) as view:
        found = dataset_budget_summary(view.state, the_dataset(view.state, name))
    if as_json:
        show_json(found)
        return
    shown = [budget_row(cell) for cell in found["cells"]]
    show_table("cells", shown)
    if any(cell["purposes"] for cell in found["cells"]):
        parts = [{"cell": cell["cell"], **p} for cell in found["cells"] for p in cell["purposes"]]
        say_line("")
        show_table("by purpose", parts)
    for cell in found["cells"]:
        for line in refresh_lines(cell):
            say_line("")
            say_line(line)
    say_line("")
    say_line("epsilon of what is spent, at each delta:")
    for cell in found["cells"]:
        points = "  ".join(f"{p['epsilon']:.3f} ({p['delta']:.0e})" for p in cell["curve"])
        say_line(f"  {cell['cell']}: {points}")
    for cell in found["cells"]:
        if cell["half"] == "individual":
            say_line(
                f"{cell['cell']}: patients have accounts of their own inside the hospital, not "
                "recomputable from here; shown is the most that any of them can have lost."
            )
    if found["last_experiment"] is None:
        say_line("No experiment has reserved anything yet.")
    elif found["more_like_last"] is None:
        say_line("Further experiments fit: each patient takes part while the own account has room.")
    else:
        last, more = found["last_experiment"], found["more_like_last"]
        say_line(f"{more} more experiments like {last}, the last one, fit.")


@app.command(
    epilog=examples(
        "consilium dataset limit basel-heart --purpose-budget development=0",
        "consilium dataset limit basel-heart --purpose-budget research=3 --yes --json",
    )
)
def limit(
    name: DatasetArgument,
    purpose_budget: PurposeBudgetOption = None,
    yes: YesOption = False,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lower what a purpose may use of your patients' budget. It is never raised again."""
    from consilium.actions.dataset.purposes import limit_purposes, read_parts
    from consilium.errors import InputError
    from consilium.settings import load_settings
    from consilium.terminal import ask, show_json, show_table

    if not purpose_budget:
        raise InputError("say --purpose-budget, as in --purpose-budget research=3")
    parts = read_parts(purpose_budget)
    settings = load_settings(home=home, passphrase_file=passphrase_file)
    if not yes:
        ask(f"Lower for good what {name} grants: {', '.join(purpose_budget)}?")
    found = limit_purposes(settings, name, parts)
    show_json(found) if as_json else show_table("limited", found)


@app.command("erase-card", epilog=examples("consilium dataset erase-card basel-heart --yes"))
def erase_card(
    name: DatasetArgument,
    yes: YesOption = False,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have a dataset's cards forgotten, of all its versions; the dataset stays in use.

    Every copy deletes them and every proof stays valid. Whoever copied a card elsewhere keeps it.
    """
    from consilium.actions.member.erasing import erase_dataset_card
    from consilium.settings import load_settings
    from consilium.terminal import ask, tell

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    if not yes:
        ask(f"Erase the cards of {name} everywhere, for good?")
    erased = list(erase_dataset_card(settings, name))
    tell(
        as_json,
        [{"card": one.card, "entry": one.index} for one in erased],
        *(f"card {one.card[:12]} is erased by entry {one.index}" for one in erased),
    )


@app.command(epilog=examples("consilium dataset withdraw basel-heart --reason consent"))
def withdraw(
    name: DatasetArgument,
    reason: WithdrawalOption = "other",
    yes: YesOption = False,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """End every further use of a dataset, at once and for ever."""
    from consilium.actions.speaking import closed_word, open_member, say
    from consilium.naming import the_dataset
    from consilium.settings import load_settings
    from consilium.terminal import ask, tell
    from ledger.entries.operations.datasets import DatasetWithdrawn, WithdrawalReason

    said = closed_word(reason, WithdrawalReason, "--reason")
    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_member(settings.home, settings.passphrase_file, ("steward", "node")) as member:
        member.follow()
        the_dataset(member.replica.state, name)
        if not yes:
            ask(f"Withdraw {name}? This cannot be taken back.")
        operation = DatasetWithdrawn(type="dataset.withdrawn", dataset=name, reason=said)
        index = say(member, operation).index
        document = {"dataset": name, "reason": said, "entry": index}
        tell(as_json, document, f"{name} is withdrawn from entry {index} on")


app.command("describe", epilog=dataset_statistics.EPILOG)(dataset_statistics.describe)
app.command("prove", epilog=dataset_membership.PROVE_EPILOG)(dataset_membership.prove)
app.command("forget-secret", epilog=dataset_membership.FORGET_EPILOG)(
    dataset_membership.forget_secret
)

"""``consilium dataset describe``: noisy statistics of a dataset, allowed, released and read.

One command for three people: the steward allows and pays, the node releases once, any member reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from consilium.commands.options import (
    AtOption,
    DatasetArgument,
    HomeOption,
    JsonOption,
    PassphraseOption,
    YesOption,
    examples,
)

EPILOG = examples(
    "consilium dataset describe basel-heart --epsilon 0.3   # the steward allows and pays",
    "consilium dataset describe basel-heart --epsilon 0.5 --mechanism laplace --yes",
    "consilium dataset describe basel-heart --answer   # the node, its service stopped",
    "consilium dataset describe basel-heart --html basel.html",
)


def describe(
    name: DatasetArgument,
    epsilon: Annotated[
        str | None,
        typer.Option("--epsilon", help="As steward: allow statistics that cost so much, and pay."),
    ] = None,
    columns: Annotated[
        str, typer.Option("--columns", help="With --epsilon: names with commas. [default: all]")
    ] = "",
    bins: Annotated[
        int, typer.Option("--bins", min=2, max=256, help="With --epsilon: of each number column.")
    ] = 10,
    mechanism: Annotated[
        str,
        typer.Option(
            "--mechanism",
            help="With --epsilon: gaussian, at the budget's delta; or laplace, a pure epsilon (delta 0), "
            "with quantiles by the noisy maximum.",
        ),
    ] = "gaussian",
    answer: Annotated[
        bool, typer.Option("--answer", help="As node: release what the steward allowed, once.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the newest as a page with charts.")
    ] = None,
    yes: YesOption = False,
    home: HomeOption = None,
    at: AtOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Noisy counts, means, histograms and quantiles of a dataset before any experiment.

    They are charged to the patients kept for training, and every member may read them.
    """
    from consilium.actions.dataset import describing
    from consilium.actions.files import write_file
    from consilium.actions.reading import open_view
    from consilium.actions.speaking import closed_word
    from consilium.errors import InputError
    from consilium.settings import load_settings
    from consilium.terminal import ask, say_line, show_fields, show_json, show_table

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    if answer and epsilon is not None:
        raise InputError("the steward says --epsilon, the node --answer; not both at once")
    if html is not None and (answer or epsilon is not None):
        raise InputError("--html shows what is released already: run it again without the others")
    if epsilon is not None:
        wanted = tuple(part.strip() for part in columns.split(",") if part.strip())
        amount = describing.decimal_epsilon(epsilon)
        kind = closed_word(mechanism, Literal["gaussian", "laplace"], "--mechanism")
        if not yes:
            ask(f"Charge epsilon {epsilon} to the patients of {name}, for good?")
        allowed = describing.allow_statistics(settings, name, amount, wanted, bins, kind)
        show_json(allowed) if as_json else show_fields(allowed)
        return
    if answer:
        released = describing.answer_all(settings, name)
        show_json(released) if as_json else show_table("released", released)
        return
    with open_view(settings.home, at, settings.passphrase_file) as view:
        found = describing.told_of(view.state, name, view.blob)
    if html is not None:
        if not found:
            raise InputError(f"no statistics of {name} are released")
        write_file(html, describing.as_html(found[-1]).encode())
    if as_json:
        show_json([describing.as_json(one) for one in found])
        return
    for one in found:
        for line in describing.as_lines(one):
            say_line(line)
    if not found:
        say_line(f"no statistics of {name} are released")

"""``consilium demo``: a whole federation on this machine, in about a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from consilium.commands.options import JsonOption


def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Folder with UCI heart disease (processed.*.data): four real hospitals. "
            "[default: scikit-learn's breast cancer table over simulated ones]",
        ),
    ] = None,
    hospitals: Annotated[
        int, typer.Option("--hospitals", min=2, max=10, help="Simulated hospitals.")
    ] = 4,
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=1000, help="Of training.")] = 20,
    epsilon: Annotated[
        float,
        typer.Option(
            "--epsilon", min=0.01, max=100, help="Each hospital's promise to its patients."
        ),
    ] = 8.0,
    out: Annotated[
        Path | None, typer.Option("--out", help="An empty or new folder. [default: demo-out]")
    ] = None,
    secure_aggregation: Annotated[
        bool,
        typer.Option("--secure-aggregation", help="Masks on every vector; 3 hospitals or more."),
    ] = False,
    keep_running: Annotated[
        bool, typer.Option("--keep-running", help="Leave the services on until Ctrl-C.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Found a federation, train a model, verify the ledger and write the reports, on loopback.

    A coordinator and one node per hospital run as processes of their own; every step is a command
    that a real federation uses, shown as it runs. Keys are protected more weakly than real ones, to
    save time. With --json the last line of standard output is one JSON object.
    """
    from consilium.demo.run import run_demo

    run_demo(
        data=data,
        hospitals=hospitals,
        rounds=rounds,
        epsilon=epsilon,
        out=out,
        secure_aggregation=secure_aggregation,
        keep_running=keep_running,
        as_json=as_json,
    )

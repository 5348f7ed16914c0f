"""``consilium model``: models that were released, and how good they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from consilium.commands.options import AtOption, HomeOption, JsonOption, PassphraseOption, examples

app = typer.Typer(no_args_is_help=True, help="Fetch released models and read their metrics.")

NameArgument = Annotated[str, typer.Argument(help="Name or id of the experiment.")]


@app.command("list", epilog=examples("consilium model list --at demo-out"))
def list_models(
    home: HomeOption = None,
    at: AtOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Models that were released."""
    from consilium.actions.reading import open_view
    from consilium.settings import load_settings
    from consilium.terminal import show_json, show_table

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_view(settings.home, at, settings.passphrase_file) as view:
        known = sorted(view.state.experiments.values(), key=lambda e: e.index)
        rows: list[dict[str, str | int | float | None]] = [
            {
                "experiment": e.name,
                "id": e.id,
                "researcher": e.researcher,
                "parameters": e.plan.parameters,
                "sha256": e.model.sha256,
                "bytes": e.model.bytes,
            }
            for e in known
            if e.status == "released"
        ]
    if as_json:
        show_json(rows)
    else:
        show_table("models", rows)


@app.command(
    epilog=examples("consilium model download heart-disease --out model.safetensors --wait")
)
def download(
    name: NameArgument,
    out: Annotated[Path, typer.Option("--out", help="A file that does not exist yet.")],
    wait: Annotated[
        bool, typer.Option("--wait", help="Until it is released, however long that takes.")
    ] = False,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch a released model (safetensors). The ledger will say that you took it."""
    from consilium.actions.experiment.watching import show_progress
    from consilium.actions.speaking import open_member
    from consilium.client import Client
    from consilium.naming import the_experiment
    from consilium.settings import load_settings
    from consilium.terminal import tell

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_member(settings.home, settings.passphrase_file) as member:
        client = Client.of(member)
        client.follow()
        if wait:
            show_progress(name, client.watch(name))
        written = client.download(name, out)
        document = {"experiment": the_experiment(client.state, name).id, "model": str(written)}
        tell(as_json, document, f"model written to {written}")


@app.command(epilog=examples("consilium model metrics heart-disease --at demo-out --json"))
def metrics(
    name: NameArgument,
    home: HomeOption = None,
    at: AtOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """How good a model is over all hospitals, from their noisy score histograms, with intervals."""
    import dataclasses

    from consilium.actions.reading import open_view
    from consilium.client import pooled_metrics
    from consilium.settings import load_settings
    from consilium.summaries.experiments import measure_row
    from consilium.terminal import show_json, show_table

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_view(settings.home, at, settings.passphrase_file) as view:
        found = pooled_metrics(view, name)
    if as_json:
        show_json(
            {
                model: {key: dataclasses.asdict(measure) for key, measure in measured.items()}
                for model, measured in found.items()
            }
        )
        return
    show_table(
        "metrics",
        [
            {"model": model, **measure_row(key, measure)}
            for model, measured in found.items()
            for key, measure in measured.items()
        ],
        empty="this experiment released none",
    )

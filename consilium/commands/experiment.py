"""``consilium experiment``: from a spec to a model, and what hospitals say about it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from consilium.commands.options import (
    AtOption,
    HomeOption,
    JsonOption,
    PassphraseOption,
    SchemasOption,
    YesOption,
    examples,
)

app = typer.Typer(
    no_args_is_help=True, help="Check, rehearse, propose, approve, watch experiments."
)

SpecArgument = Annotated[
    Path, typer.Argument(help="A spec, YAML or JSON, or the name of a preset.")
]
NameArgument = Annotated[
    str, typer.Argument(help="Name or id of the experiment, or a unique beginning of the id.")
]
DatasetOption = Annotated[
    str | None,
    typer.Option("--dataset", help="Which of your datasets. [default: the one that is asked for]"),
]


@app.command(
    epilog=examples(
        "consilium experiment check experiment.yaml --schema schema.yaml",
        "consilium experiment check experiment.yaml   # against the registered datasets",
        "consilium experiment check heart-disease      # a preset",
    )
)
def check(
    spec: SpecArgument,
    schema: SchemasOption = None,
    home: HomeOption = None,
    at: AtOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a spec is sound, and what it would cost. Nothing is proposed."""
    from consilium.actions.reading import open_view
    from consilium.actions.written import read_written
    from consilium.examples import spec_path
    from consilium.experiment import Experiment
    from consilium.settings import load_settings
    from consilium.summaries.experiments import house_note, plan_sites
    from consilium.terminal import note, say_line, show_json, show_table
    from ledger.experiment.schema import Schema

    experiment = Experiment.from_yaml(spec_path(spec))
    experiment.refuse_past()
    if schema:
        given = [read_written(path, Schema) for path in schema]
        plan = experiment.check(experiment.schemas_for(given))
    else:
        settings = load_settings(home=home, passphrase_file=passphrase_file)
        with open_view(settings.home, at, settings.passphrase_file) as view:
            plan = experiment.propose(experiment.sites_in(view)).operation.plan
    sites = plan_sites(plan)
    if advice := house_note(experiment.spec):
        note(advice)
    if as_json:
        summary = {"parameters": plan.parameters, "rounds": plan.rounds, "quorum": plan.quorum}
        show_json({"name": experiment.spec.name, **summary, "sites": sites})
        return
    say_line(
        f"{experiment.spec.name}: {plan.parameters} parameters, {plan.rounds} rounds, "
        f"quorum {plan.quorum} of {len(plan.sites)}"
    )
    show_table("datasets", sites)


@app.command(
    epilog=examples("consilium experiment rehearse experiment.yaml --schema schema.yaml --rounds 3")
)
def rehearse(
    spec: SpecArgument,
    schema: Annotated[
        list[Path],
        typer.Option("--schema", help="Schema file, repeated; one may stand for all datasets."),
    ],
    rounds: Annotated[
        int | None, typer.Option("--rounds", min=1, help="Training rounds. [default: the spec's]")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a spec on made-up rows, with the nodes' own code and the plan's noise."""
    from consilium.actions.written import read_written
    from consilium.examples import spec_path
    from consilium.experiment import Experiment
    from consilium.summaries.experiments import house_note, measure_row, rehearsal_summary
    from consilium.terminal import note, say_line, show_fields, show_json, show_table
    from ledger.experiment.schema import Schema

    experiment = Experiment.from_yaml(spec_path(spec))
    done = experiment.rehearse([read_written(path, Schema) for path in schema], rounds=rounds)
    if advice := house_note(experiment.spec):
        note(advice)
    summary = rehearsal_summary(done)
    measured = [measure_row(name, measure) for name, measure in done.measures.items()]
    if as_json:
        show_json({**summary, "measures": measured})
        return
    show_fields(summary)
    if measured:
        show_table("measures", measured)
    say_line(
        "Made-up rows hold nothing to learn: only that it runs, its sizes and its noise count."
    )


@app.command(epilog=examples("consilium experiment propose experiment.yaml"))
def propose(
    spec: SpecArgument,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the hospitals for an experiment. What they approve is this very spec and plan."""
    from consilium.actions.experiment.approving import unaffordable
    from consilium.actions.speaking import open_member
    from consilium.client import Client
    from consilium.examples import spec_path
    from consilium.experiment import Experiment
    from consilium.settings import load_settings
    from consilium.summaries.experiments import experiment_summary, house_note
    from consilium.terminal import note, say_line, show_json

    experiment = Experiment.from_yaml(spec_path(spec))
    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_member(settings.home, settings.passphrase_file, ("researcher",)) as member:
        client = Client.of(member)
        proposed = client.propose(experiment)
        asked = client.state.experiments[proposed]
        for line in unaffordable(client.state, asked.plan.purpose, asked.plan.sites):
            note(f"warning: {line}; its steward cannot approve that")
        if advice := house_note(experiment.spec):
            note(advice)
        summary = experiment_summary(asked)
    if as_json:
        show_json(summary)
        return
    say_line(f"proposed {summary['name']}: {proposed}")
    say_line(f"it waits for the stewards of: {', '.join(summary['asked'])}")


@app.command("list", epilog=examples("consilium experiment list --at demo-out --json"))
def list_experiments(
    home: HomeOption = None,
    at: AtOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """All experiments and how far they are."""
    from consilium.actions.reading import open_view
    from consilium.settings import load_settings
    from consilium.summaries.experiments import experiment_row, experiment_summary
    from consilium.terminal import show_json, show_table

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_view(settings.home, at, settings.passphrase_file) as view:
        known = sorted(view.state.experiments.values(), key=lambda e: e.index)
        summaries = [experiment_summary(experiment) for experiment in known]
    if as_json:
        show_json(summaries)
    else:
        show_table("experiments", [experiment_row(summary) for summary in summaries])


@app.command(epilog=examples("consilium experiment show heart-disease --at demo-out"))
def show(
    name: NameArgument,
    home: HomeOption = None,
    at: AtOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """What an experiment asks for, what it costs each dataset, and who said what."""
    from consilium.actions.reading import open_view
    from consilium.naming import the_experiment
    from consilium.settings import load_settings
    from consilium.summaries.experiments import experiment_row, experiment_summary, plan_sites
    from consilium.terminal import show_fields, show_json, show_table
    from ledger.experiment.spec import ExperimentSpec
    from ledger.formats.documents import parse_document

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_view(settings.home, at, settings.passphrase_file) as view:
        found = the_experiment(view.state, name)
        spec = parse_document(view.blob(found.spec), ExperimentSpec)
        summary = experiment_summary(found)
    sites = plan_sites(found.plan)
    if as_json:
        show_json({**summary, "sites": sites, "spec": spec.model_dump(mode="json")})
        return
    show_fields({**experiment_row(summary), "id": found.id})
    show_fields(
        {
            "title": spec.title,
            "purpose": " ".join(spec.purpose.split()),
            "lawful basis": spec.lawful_basis,
            "until": str(spec.until),
            "target": spec.task.target,
            "features": ", ".join(spec.features),
        }
    )
    show_table("datasets", sites)


@app.command(
    epilog=examples(
        "consilium experiment approve heart-disease",
        "consilium experiment approve 3f9a0c11 --dataset basel-heart --epsilon-max 2 --yes",
    )
)
def approve(
    name: NameArgument,
    dataset: DatasetOption = None,
    epsilon_max: Annotated[
        float | None,
        typer.Option("--epsilon-max", help="Most it may cost. [default: what the plan says]"),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", help="ISO date. [default: the spec's]")
    ] = None,
    yes: YesOption = False,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say yes for one of your hospital's datasets, after seeing what it will cost."""
    import math

    from consilium.actions.experiment.approving import refuse_unaffordable, request_of
    from consilium.actions.speaking import open_member, positive_number, say
    from consilium.commands.dates import parse_time_ms
    from consilium.naming import the_experiment
    from consilium.settings import load_settings
    from consilium.terminal import ask, note, say_line, tell
    from ledger.entries.operations.experiments import ExperimentApproved

    positive_number(epsilon_max, "--epsilon-max")
    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_member(settings.home, settings.passphrase_file, ("steward",)) as member:
        member.follow()
        found = the_experiment(member.replica.state, name)
        request = request_of(member, found, dataset)
        for line in request.lines():
            (note if as_json else say_line)(line)
        refuse_unaffordable(member.replica.state, request)
        most = request.site.epsilon_micro
        if epsilon_max is not None:
            most = math.floor(epsilon_max * 10**6)
        if not yes:
            ask(f"Approve for {request.dataset}?")
        operation = ExperimentApproved(
            type="experiment.approved",
            experiment=found.id,
            dataset=request.dataset,
            epsilon_max_micro=max(1, most),
            until_ms=request.spec.until_ms if until is None else parse_time_ms(until),
        )
        index = say(member, operation).index
        document = {
            "experiment": found.id,
            "dataset": request.dataset,
            "epsilon_max": operation.epsilon_max_micro / 1e6,
            "until_ms": operation.until_ms,
            "entry": index,
        }
        tell(as_json, document, f"approved {found.name} for {request.dataset} (entry {index})")


@app.command(epilog=examples("consilium experiment refuse heart-disease --reason purpose"))
def refuse(
    name: NameArgument,
    reason: Annotated[
        str,
        typer.Option(
            "--reason", help="purpose, privacy_cost, legal_basis, quality, conflict or other."
        ),
    ] = "other",
    dataset: DatasetOption = None,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say no for one of your hospital's datasets, or take an earlier yes back. It acts on sight."""
    from consilium.actions.experiment.approving import dataset_of
    from consilium.actions.speaking import closed_word, open_member, say
    from consilium.naming import the_experiment
    from consilium.settings import load_settings
    from consilium.terminal import tell
    from ledger.entries.operations.experiments import ExperimentRefused, RefusalReason

    said = closed_word(reason, RefusalReason, "--reason")
    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_member(settings.home, settings.passphrase_file, ("steward",)) as member:
        member.follow()
        found = the_experiment(member.replica.state, name)
        asked = dataset_of(member.replica.state, member.config.organisation, found, dataset)
        operation = ExperimentRefused(
            type="experiment.refused", experiment=found.id, dataset=asked, reason=said
        )
        index = say(member, operation).index
        document = {"experiment": found.id, "dataset": asked, "reason": said, "entry": index}
        tell(as_json, document, f"refused {found.name} for {asked} (entry {index})")


@app.command(epilog=examples("consilium experiment stop heart-disease"))
def stop(
    name: NameArgument,
    yes: YesOption = False,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """End your own experiment before its plan does."""
    from consilium.actions.speaking import open_member
    from consilium.client import Client
    from consilium.naming import the_experiment
    from consilium.settings import load_settings
    from consilium.terminal import ask, tell

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_member(settings.home, settings.passphrase_file, ("researcher",)) as member:
        client = Client.of(member)
        client.follow()
        if not yes:
            ask(f"Stop {name}? It cannot go on afterwards.")
        client.stop(name)
        tell(as_json, {"experiment": the_experiment(client.state, name).id}, f"stopped {name}")


@app.command(epilog=examples("consilium experiment watch heart-disease"))
def watch(
    name: NameArgument,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow an experiment to its end. Exits with 1 when it is stopped."""
    from consilium.actions.experiment.watching import watch_on_terminal
    from consilium.settings import load_settings

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    watch_on_terminal(settings, name, as_json=as_json)

"""``consilium audit attack``: what an attacker is seen to learn, beside what the plan is proven to allow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consilium.commands.options import (
    AtOption,
    HomeOption,
    JsonOption,
    PassphraseOption,
    SchemasOption,
    examples,
)

if TYPE_CHECKING:
    from consilium.actions.audit.attack_target import Target
    from consilium.actions.audit.attacking import Attacked
    from consilium.settings import Settings

SUBMITTERS = ("auditor", "node")
KINDS = ("known-answers", "canary", "one-run", "membership", "membership-rmia")
EPILOG = examples(
    "consilium audit attack --kind known-answers",
    "consilium audit attack --spec experiment.yaml --schema schema.yaml --runs 2000",
    "consilium audit attack --kind one-run --at demo-out --experiment heart-disease",
    "consilium audit attack --kind membership --at demo-out --public-twins public.csv --json",
    "consilium audit attack --experiment heart-disease --home ~/consilium --submit",
)


def attack(
    kind: Annotated[
        str,
        typer.Option(
            "--kind", help="known-answers, canary, one-run, membership or membership-rmia."
        ),
    ] = "canary",
    spec: Annotated[
        Path | None, typer.Option("--spec", help="A spec, or a preset's name; with --schema.")
    ] = None,
    schema: SchemasOption = None,
    experiment: Annotated[
        str | None,
        typer.Option("--experiment", help="Name or id of one in a log. [default: the only one]"),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="Whose part of the plan. [default: the least noisy]"),
    ] = None,
    runs: Annotated[
        int, typer.Option("--runs", min=100, max=1_000_000, help="canary: runs of each kind.")
    ] = 2000,
    canaries: Annotated[
        int, typer.Option("--canaries", min=8, max=4000, help="one-run: made-up people.")
    ] = 1000,
    shadows: Annotated[
        int, typer.Option("--shadows", min=8, max=10_000, help="membership*: models to train.")
    ] = 64,
    public_twins: Annotated[
        Path | None,
        typer.Option("--public-twins", help="membership*: a PUBLIC file that fits the schema."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write everything that was found: .json.")
    ] = None,
    submit: Annotated[
        bool, typer.Option("--submit", help="Say it in the log, as an auditor or a node.")
    ] = False,
    home: HomeOption = None,
    at: AtOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Attack an experiment's private mechanism, and hold what was learned against the proof.

    canary: many runs of the training code with and without one made-up person; a lower bound of mu and
    epsilon. one-run: one run with many; a smoke alarm only. membership: who trained a released model, asked of
    twins by LiRA; membership-rmia: by RMIA, for few shadows. known-answers: accountant and sampler. Rows are made up from public schemas, or public; never a
    patient's, since a rate on real members is itself a statistic of them. Exits with 1 when more was
    observed than is proven possible.
    """
    from consilium.actions.files import write_file
    from consilium.actions.homes import find_home
    from consilium.cli import explain_failure
    from consilium.settings import load_settings
    from consilium.terminal import note, say_line, show_json

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    _refuse_mixtures(kind, spec, schema, experiment, at, public_twins, submit, out)
    if submit:
        find_home(settings.home, SUBMITTERS)
    target = None if kind == "known-answers" else _target(settings, spec, schema, experiment, at)
    found = _found(settings, kind, target, dataset, runs, canaries, shadows, public_twins)
    if out is not None:
        write_file(out, found.encoded())
    if as_json:
        show_json(found.document())
    else:
        say_line(f"{kind}: {found.says}")
        verdict = "AGAINST the proof" if found.contradicts else "nothing beyond the proof"
        say_line(
            f"{found.samples:,} samples at a confidence of {found.confidence_ppm / 1e4:g} %: {verdict}"
        )
        for answer in (found.details or {}).get("answers", ()):
            if not answer["right"]:
                say_line(
                    f"  {answer['question']}: {answer['got']}, not {answer['low']} .. {answer['high']}"
                )
    unsaid = _submit(settings, found) if submit else None
    if found.contradicts:
        if unsaid is not None:
            code, why = explain_failure(unsaid)
            note(
                f"the finding stands, and is NOT in the log (alone this would exit with {code}): {why}"
            )
        raise typer.Exit(1)
    if unsaid is not None:
        raise unsaid


def _target(
    settings: Settings,
    spec: Path | None,
    schema: list[Path] | None,
    experiment: str | None,
    at: str | None,
) -> Target:
    from consilium.actions.audit.attack_target import target_in, target_of_spec
    from consilium.actions.reading import open_view
    from consilium.actions.written import read_written
    from consilium.errors import InputError
    from consilium.examples import spec_path
    from ledger.experiment.schema import Schema

    if spec is not None:
        return target_of_spec(
            spec_path(spec), [read_written(path, Schema) for path in schema or ()]
        )
    with open_view(settings.home, at, settings.passphrase_file) as view:
        known = sorted(found.name for found in view.state.experiments.values())
        if experiment is None and len(known) != 1:
            raise InputError(
                f"say which with --experiment; there are: {', '.join(known) or 'none'}"
            )
        return target_in(view, experiment or known[0])


def _found(
    settings: Settings,
    kind: str,
    target: Target | None,
    dataset: str | None,
    runs: int,
    canaries: int,
    shadows: int,
    public_twins: Path | None,
) -> Attacked:
    from consilium.actions.audit import attacking
    from consilium.terminal import counted
    from node.training.attack.shadows import PublicTwins

    if target is None:
        return attacking.ask_known_answers()
    with counted(f"{kind} of {target.name}") as progress:
        if kind == "canary":
            return attacking.attack_with_canaries(target, dataset, runs, progress)
        if kind == "one-run":
            return attacking.attack_one_run(target, dataset, canaries, progress)
        twins = None
        if public_twins is not None:
            attacking.refuse_datasets(public_twins, settings.home)
            twins = PublicTwins(public_twins)
        return attacking.attack_membership(
            "membership_rmia" if kind == "membership-rmia" else "membership",
            target,
            twins,
            shadows,
            progress,
        )


def _submit(settings: Settings, found: Attacked) -> Exception | None:
    """Say it in the log; or why it could not be said, which must not hide what was found."""
    from consilium.actions.speaking import open_member, say
    from consilium.errors import ConsiliumError
    from consilium.terminal import note
    from ledger.errors import LedgerError

    try:
        with open_member(settings.home, settings.passphrase_file, SUBMITTERS) as member:
            index = say(member, found.audited(member.publish(found.encoded()))).index
    except (ConsiliumError, LedgerError) as error:
        return error
    note(f"said in the log: entry {index}")
    return None


def _refuse_mixtures(
    kind: str,
    spec: Path | None,
    schema: list[Path] | None,
    experiment: str | None,
    at: str | None,
    public_twins: Path | None,
    submit: bool,
    out: Path | None,
) -> None:
    from consilium.errors import InputError

    if kind not in KINDS:
        raise InputError(f"--kind {kind!r} is none of: {', '.join(KINDS)}")
    if kind == "known-answers" and (spec or schema or experiment or at):
        raise InputError(
            "--kind known-answers is about this machine's software; it takes no experiment"
        )
    if spec is not None and (experiment is not None or at is not None):
        raise InputError("say what to attack once: --spec FILE, or --experiment NAME of a log")
    if (spec is None) != (not schema):
        raise InputError("--spec and --schema belong together")
    if submit and spec is not None:
        raise InputError("--submit speaks of an experiment in the log; name it with --experiment")
    if submit and at is not None:
        raise InputError("--submit reads your own copy; leave --at out")
    if public_twins is not None and not kind.startswith("membership"):
        raise InputError(
            "--public-twins is for --kind membership or membership-rmia; other attacks make rows up"
        )
    if out is not None and out.suffix != ".json":
        raise InputError(f"{out}: results are written as .json")
    if out is not None and not out.parent.is_dir():
        raise InputError(f"{out}: {out.parent} is no folder")

"""``consilium audit``: verification, reports and the console, over any copy of a ledger."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consilium.commands.audit import attack as audit_attack
from consilium.commands.options import JsonOption, examples

if TYPE_CHECKING:
    from audit.verification.verify import Verification
    from consilium.actions.audit.reporting import Report

app = typer.Typer(
    no_args_is_help=True,
    help="Verify a copy, write reports, browse. Needs no keys, no network and no hospital.",
)

app.command(epilog=audit_attack.EPILOG)(audit_attack.attack)

PathArgument = Annotated[
    str | None,
    typer.Argument(help="A bundle, a home, a demo's folder, or a database URL."),
]
AtOption = Annotated[str | None, typer.Option("--at", help="The same, as an option.")]
TrustOption = Annotated[
    str | None,
    typer.Option("--trust", help="Genesis file of your invitation, or the federation's id."),
]


@app.command(
    epilog=examples(
        "consilium audit verify heart.consilium --trust genesis.leaf",
        "consilium audit verify demo-out --json",
    )
)
def verify(
    path: PathArgument = None,
    at: AtOption = None,
    trust: TrustOption = None,
    cross_check: Annotated[
        bool, typer.Option("--cross-check", help="Show Opacus' accountants too (needs torch).")
    ] = False,
    predecessor: Annotated[
        str | None, typer.Option("--predecessor", help="A copy of the log that this one took over.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Replay a copy and prove or refute it, step by step.

    Exits with 0 when nothing was refuted, with 1 and the place when something was. What cannot be
    checked in this copy is said, and never counted as good.
    """
    from consilium.actions.audit.verifying import verify_and_show

    place = _place(path, at)
    raise typer.Exit(
        verify_and_show(
            place, trust, cross_check=cross_check, as_json=as_json, predecessor=predecessor
        )
    )


report = typer.Typer(no_args_is_help=True, help="Write reports, as .html or .json.")
app.add_typer(report, name="report")

OutOption = Annotated[Path, typer.Option("--out", help="The file to write: .html or .json.")]
ExperimentOption = Annotated[
    str | None,
    typer.Option("--experiment", help="Name or id of the experiment. [default: the only one]"),
]
ByOption = Annotated[str, typer.Option("--by", help="Who makes the report, in words.")]


@report.command(
    "data-use",
    epilog=examples(
        "consilium audit report data-use demo-out --dataset basel-heart --out use.html"
    ),
)
def report_data_use(
    out: OutOption,
    path: PathArgument = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Of which dataset. [default: the only one]")
    ] = None,
    at: AtOption = None,
    trust: TrustOption = None,
    by: ByOption = "consilium",
    as_json: JsonOption = False,
) -> None:
    """Who used a dataset, what for, on whose approval, at what cost to its patients' privacy."""
    from consilium.actions.audit.reporting import data_use

    _report(path, at, trust, lambda found: data_use(found, dataset, by), out, as_json)


@report.command(
    "contribution",
    epilog=examples("consilium audit report contribution demo-out --out contribution.html"),
)
def report_contribution(
    out: OutOption,
    path: PathArgument = None,
    experiment: ExperimentOption = None,
    at: AtOption = None,
    trust: TrustOption = None,
    by: ByOption = "consilium",
    as_json: JsonOption = False,
) -> None:
    """What each hospital added to a model, from updates that were released anyway."""
    from consilium.actions.audit.reporting import contribution

    _report(path, at, trust, lambda found: contribution(found, experiment, by), out, as_json)


@report.command(
    "certificate",
    epilog=examples("consilium audit report certificate demo-out --out certificate.html"),
)
def report_certificate(
    out: OutOption,
    path: PathArgument = None,
    experiment: ExperimentOption = None,
    at: AtOption = None,
    trust: TrustOption = None,
    by: ByOption = "consilium",
    as_json: JsonOption = False,
) -> None:
    """What a released model may tell about one patient at most, under NIST SP 800-226's headings."""
    from consilium.actions.audit.reporting import privacy_certificate

    _report(path, at, trust, lambda found: privacy_certificate(found, experiment, by), out, as_json)


@report.command(
    "budget", epilog=examples("consilium audit report budget demo-out --out budget.json")
)
def report_budget(
    out: Annotated[Path, typer.Option("--out", help="The file to write: .json or .csv.")],
    path: PathArgument = None,
    at: AtOption = None,
    trust: TrustOption = None,
    by: ByOption = "consilium",
    as_json: JsonOption = False,
) -> None:
    """What every hospital's patients were promised, what is spent of it, and on what; .json or .csv."""
    from consilium.actions.audit.reporting import verified, write_budget
    from consilium.terminal import tell

    with verified(_place(path, at), trust) as found:
        write_budget(found, out, by)
        tell(
            as_json,
            {"out": str(out), "ledger": found.report.completeness()},
            f"{out}: {found.report.completeness()}",
        )


@report.command("all", epilog=examples("consilium audit report all demo-out --out reports"))
def report_all(
    out: Annotated[Path, typer.Option("--out", help="A folder for all of them, and an index.")],
    path: PathArgument = None,
    at: AtOption = None,
    trust: TrustOption = None,
    by: ByOption = "consilium",
    as_json: JsonOption = False,
) -> None:
    """Every report on everything in the ledger, as pages and as JSON."""
    from consilium.actions.audit.reporting import verified, write_all
    from consilium.terminal import tell

    with verified(_place(path, at), trust) as found:
        written = write_all(found, out, by)
        tell(as_json, written | {"ledger": found.report.completeness()}, written["html"])


@app.command(
    epilog=examples(
        "consilium audit events demo-out --out events.json --auditor recompute_budget.py",
        "python3 -I -S recompute_budget.py events.json",
    )
)
def events(
    out: Annotated[Path, typer.Option("--out", help="The file to write: .json.")],
    path: PathArgument = None,
    auditor: Annotated[
        Path | None,
        typer.Option("--auditor", help="Also write the auditor that recomputes it, as one script."),
    ] = None,
    at: AtOption = None,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Every privacy event of a copy, for an auditor who installs nothing of ours.

    The script needs Python's standard library alone. It recomputes each charge from its parameters,
    the sums, the gates and every epsilon, and exits with 1 where one differs.
    """
    from consilium.actions.audit.reporting import verified, write_events
    from consilium.terminal import tell

    with verified(_place(path, at), trust) as found:
        write_events(found, out, auditor)
        tell(
            as_json,
            {"out": str(out), "ledger": found.report.completeness()},
            f"{out}: {found.report.completeness()}",
        )


@app.command(
    epilog=examples("consilium audit membership proof.json --at demo-out --trust genesis.leaf")
)
def membership(
    proof: Annotated[Path, typer.Argument(help="What a hospital handed out: `dataset prove`.")],
    at: Annotated[str, typer.Option("--at", help="A copy of the ledger: see `audit verify`.")],
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge a hospital's proof that a patient's rows were in a dataset, or were not.

    Exits with 0 when the proof holds, whichever it shows, and with 1 when it does not.
    """
    from consilium.actions.audit.reporting import verified
    from consilium.actions.dataset.membership import judge_file
    from consilium.terminal import say_line, show_json, tell
    from ledger.errors import NotConsistent

    with verified(_place(None, at), trust) as found:
        try:
            judged = judge_file(found, proof)
        except NotConsistent as error:
            refuted = f"REFUTED: {proof}: {error}"
            tell(as_json, {"proof": str(proof), "refuted": str(error)}, refuted)
            raise typer.Exit(1) from None
    if as_json:
        show_json(judged)
        return
    verb = "was" if judged["present"] else "was not"
    say_line(
        f"{judged['unit']} {verb} in {judged['dataset']} as entry {judged['entry']} registered it"
    )
    for row in judged["rows"] or ():
        say_line(f"  {row}")
    say_line(f"the ledger is {judged['ledger']}")


@app.command(
    epilog=examples(
        "consilium audit console demo-out",
        "consilium audit console ~/consilium/node --port 8462 --trust genesis.leaf",
        "consilium audit console ~/consilium/node --host-name ledger.basel.example   # a proxy's name",
    )
)
def console(
    path: PathArgument = None,
    at: AtOption = None,
    trust: TrustOption = None,
    host: Annotated[
        str, typer.Option("--host", help="Another address opens it to a network, without a login.")
    ] = "127.0.0.1",
    host_name: Annotated[
        list[str] | None,
        typer.Option(
            "--host-name",
            help="A name by which browsers reach it, such as a proxy's; repeated. Others are refused.",
        ),
    ] = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")
    ] = 8462,
) -> None:
    """Browse a copy: datasets and their uses, experiments, members, entries, reports. Read-only."""
    from consilium.actions.audit.console_server import serve

    serve(_place(path, at), trust, host=host, names=tuple(host_name or ()), port=port)


def _report(
    path: str | None,
    at: str | None,
    trust: str | None,
    make: Callable[[Verification], Report],
    out: Path,
    as_json: bool,
) -> None:
    """Verify a copy, make a report of it, write it, and say how complete the copy is."""
    from consilium.actions.audit.reporting import verified, write_report
    from consilium.terminal import tell

    with verified(_place(path, at), trust) as found:
        write_report(make(found), out)
        tell(
            as_json,
            {"out": str(out), "ledger": found.report.completeness()},
            f"{out}: {found.report.completeness()}",
        )


def _place(path: str | None, at: str | None) -> str:
    if path is not None and at is not None:
        raise typer.BadParameter("say once what to read: PATH or --at PATH")
    place = path or at
    if place is None:
        raise typer.BadParameter("say what to read: PATH, e.g. demo-out or heart.consilium")
    if "://" not in place and not Path(place).exists():
        raise typer.BadParameter(f"{place} is not there")
    return place

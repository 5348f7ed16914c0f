"""``consilium node``: a hospital's service."""

from __future__ import annotations

from typing import Annotated

import typer

from consilium.commands.options import HomeOption, JsonOption, PassphraseOption, examples

app = typer.Typer(no_args_is_help=True, help="Run a hospital's node, or ask how it is.")


@app.command(epilog=examples("consilium node run --home ~/consilium"))
def run(
    listen: Annotated[
        str | None,
        typer.Option("--listen", help="HOST:PORT of the local status page. [default: loopback]"),
    ] = None,
    epsilon_max: Annotated[
        str | None, typer.Option("--epsilon-max", help="Most that one experiment may cost here.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Of the training process. [default: 1]")
    ] = None,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
) -> None:
    """Follow the log, verify it, witness it, and train where steward and budget allow it.

    Opens connections to the coordinator only; the status page listens on this machine. Serves until
    SIGTERM, and may be killed at any time.
    """
    from consilium.actions.speaking import open_member
    from consilium.settings import load_settings
    from node.service.main import run as serve
    from node.service.settings import load_settings as node_settings

    settings = load_settings(home=home, passphrase_file=passphrase_file)
    with open_member(settings.home, settings.passphrase_file, ("node",)) as member:
        own = node_settings(
            member.home.path, listen=listen, epsilon_max=epsilon_max, threads=threads
        )
        serve(member, own)


@app.command(
    epilog=examples(
        "consilium node status --home ~/consilium",
        "consilium node status --url http://127.0.0.1:8461",
    )
)
def status(
    url: Annotated[
        str | None,
        typer.Option("--url", help="The node's local address. [default: as your home says]"),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a running node is doing, and what its patients' budgets hold."""
    from consilium.commands.status import local_url, node_status, tables_of
    from consilium.settings import load_settings
    from consilium.terminal import say_line, show_fields, show_json, show_table

    found = node_status(url or local_url(load_settings(home=home).home))
    if as_json:
        show_json(found)
        return
    tables = tables_of(found)
    show_fields({name: value for name, value in found.items() if name not in tables})
    for name, rows in tables.items():
        say_line("")
        show_table(name, rows)


@app.command(epilog=examples("consilium node selftest", "consilium node selftest --json"))
def selftest(as_json: JsonOption = False) -> None:
    """Hold the training code of this machine against its plan, on synthetic rows.

    Whole rounds run as in production, on made-up hospitals; what they send, less the sum that it should hold,
    must be the planned noise, independent everywhere. A node runs this whenever it starts, and says the
    result in the log. It needs no home and touches no patient's row. Exits with 1 when a check fails.
    """
    from consilium.terminal import say_line, show_json, show_table
    from node.training.process.worker import Worker

    with Worker() as worker:
        report = worker.selftest()
    checks = [
        {"check": one.check, "p": one.p, "failed": one.failed, "says": one.says}
        for one in report.findings
    ]
    if as_json:
        show_json(
            {
                "passed": report.failure is None,
                "residuals": report.residuals,
                "sigma_ratio": report.sigma_ratio,
                "checks": checks,
            }
        )
    else:
        show_table("checks", [one | {"p": f"{one['p']:.3g}"} for one in checks])
        verdict = "passed" if report.failure is None else "FAILED: this machine must not train"
        say_line(f"{report.residuals:,} residuals: {verdict}")
    if report.failure is not None:
        raise typer.Exit(1)

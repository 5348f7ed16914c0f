"""The command ``consilium``: groups of commands, and the outermost shell.

Every error that is raised on purpose becomes one message on standard error and an exit code; with
``--json`` also one line of JSON on standard output:

    0    done
    1    a verification refuted something, or what was begun or its database failed
    2    bad input or usage; nothing was changed
    3    the coordinator cannot be reached
    4    the federation refused: not admitted, not permitted, or void by its rules
    130  stopped by a person: ctrl-C, or a question answered with no

A traceback is shown with ``--debug`` alone. Nothing heavy is imported here: each command imports what
it needs, so that ``--help`` is quick.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated

import typer

from consilium.commands import coordinator as coordinator_commands
from consilium.commands import demo as demo_command
from consilium.commands import experiment as experiment_commands
from consilium.commands import member as member_commands
from consilium.commands import model as model_commands
from consilium.commands import node as node_commands
from consilium.commands.audit import group as audit_commands
from consilium.commands.dataset import group as dataset_commands
from consilium.commands.federation import group as federation_commands
from consilium.commands.ledger import offline as ledger_commands
from consilium.commands.options import examples

INTERRUPTED = 130

app = typer.Typer(
    name="consilium",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 120},
    help="Hospitals train a model together; records stay home; the ledger proves what was done.",
    epilog="\b\n"
    "Each command explains itself: consilium dataset register --help\n"
    "\n\b\n"
    "Exit codes:\n"
    "  0  done\n"
    "  1  a verification refuted something, or what was begun or its database failed\n"
    "  2  bad input or usage; nothing was changed\n"
    "  3  the coordinator cannot be reached\n"
    "  4  the federation refused: not admitted, not permitted, or void by its rules\n"
    "  130  stopped by a person",
)
app.add_typer(federation_commands.app, name="federation")
app.add_typer(member_commands.app, name="member")
app.add_typer(coordinator_commands.app, name="coordinator")
app.add_typer(node_commands.app, name="node")
app.add_typer(dataset_commands.app, name="dataset")
app.add_typer(experiment_commands.app, name="experiment")
app.add_typer(model_commands.app, name="model")
app.add_typer(ledger_commands.app, name="ledger")
app.add_typer(audit_commands.app, name="audit")
app.command(
    "demo",
    epilog=examples(
        "consilium demo --out demo-out", "consilium demo --secure-aggregation --keep-running"
    ),
)(demo_command.demo)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"consilium {version('consilium')}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Say which release this is.", callback=_show_version, is_eager=True
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback when something fails.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: without the program's name; None for those of this process.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal of another character set shows what it lacks escaped, as on standard error.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        result = typer.main.get_command(app).main(
            given, prog_name="consilium", standalone_mode=False
        )
    except typer.TyperException as error:
        return _fail_usage(given, error)
    except (typer.Abort, KeyboardInterrupt):
        return _fail(given, INTERRUPTED, "stopped")
    except BrokenPipeError:
        # Whoever read our output has enough of it (head, less).
        sys.stderr.close()
        return 0
    except Exception as error:
        if given[:1] == ["--debug"]:
            raise
        return _fail(given, *explain_failure(error))
    if result == INTERRUPTED:  # ctrl-C, which typer catches before us
        return _fail(given, INTERRUPTED, "stopped")
    return result if isinstance(result, int) else 0


def _fail_usage(given: Sequence[str], error: typer.TyperException) -> int:
    """Say what was wrong with the command line, and how the command is used."""
    from consilium.terminal import note

    context = getattr(error, "ctx", None)
    message = error.format_message()
    if context is not None and message == context.get_help():
        note(message)
        return error.exit_code
    if context is not None:
        note(context.get_usage())
    return _fail(given, error.exit_code, message)


def _fail(given: Sequence[str], code: int, message: str) -> int:
    """Say what was wrong, to people and where JSON was asked for to programs; returns the code."""
    from consilium.terminal import note

    note(f"consilium: {message}")
    if "--json" in given:
        sys.stdout.write(json.dumps({"error": {"code": code, "message": message}}) + "\n")
    return code


def explain_failure(error: Exception) -> tuple[int, str]:
    """The exit code and the message for an error."""
    from consilium.errors import BAD_INPUT, FAILED, REFUSED, UNREACHABLE, ConsiliumError
    from ledger.errors import (
        AlreadyRunning,
        CoordinatorUnreachable,
        ForkDetected,
        LedgerError,
        NotAdmitted,
        RequestRefused,
        StoreUnusable,
    )
    from privacy.errors import PrivacyError

    if isinstance(error, ConsiliumError):
        return error.exit_code, str(error)
    if isinstance(error, CoordinatorUnreachable):
        return UNREACHABLE, str(error)
    if isinstance(error, RequestRefused | NotAdmitted):
        return REFUSED, str(error)
    if isinstance(error, ForkDetected):
        return FAILED, f"{error} (they are in your copy of the ledger)"
    # A database that is away may be back, and who holds a lock may end: services try again.
    if isinstance(error, StoreUnusable | AlreadyRunning):
        return FAILED, str(error)
    if isinstance(error, LedgerError | PrivacyError):
        return BAD_INPUT, str(error)
    if type(error).__module__ in _ON_PURPOSE:
        if type(error).__name__ in _BEGUN:
            return FAILED, str(error)
        # Loaded already if it was raised; importing a package to find out would be slow.
        return BAD_INPUT, str(error)
    if isinstance(error, OSError) and error.strerror:
        # A full disk, a folder that is not ours: this machine's answer, not a mistake of ours.
        place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return FAILED, f"{place}{error.strerror}"
    if isinstance(error, UnicodeEncodeError):
        return BAD_INPUT, "a name or path holds bytes that are not UTF-8 text; give it another one"
    kind = type(error).__name__
    return FAILED, (
        f"unexpected {kind}: {error}\n"
        "This is a mistake in Consilium. `consilium --debug ...` shows where; please report it."
    )


_ON_PURPOSE = frozenset({"node.errors", "coordinator.errors", "audit.errors"})
_BEGUN = frozenset({"Halted"})
"""Those of services that ran and failed: a service manager starts them again, as it does not after 2."""

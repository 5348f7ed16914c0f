"""Everything that ``consilium`` raises, in one tree, and the exit codes of the command line.

::

    ConsiliumError              (exit_code)
    ├── InputError              2  what was asked cannot be done as it was asked
    │   └── UnknownName         2  no such, or more than one, experiment, dataset, ... (known)
    ├── RefusedByFederation     4  the log took an entry, and its fold found it void (index, reason)
    └── RunFailed               1  it began and did not come to its end (an experiment, the demo)

Exit codes: 0 done; 1 refuted or failed; 2 bad input or usage; 3 the coordinator cannot be reached;
4 refused by the federation. Errors of the other packages are mapped in ``cli.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

OK = 0
FAILED = 1
BAD_INPUT = 2
UNREACHABLE = 3
REFUSED = 4


class ConsiliumError(Exception):
    """The root: every error this package raises on purpose."""

    exit_code = FAILED


class InputError(ConsiliumError):
    """What was asked cannot be done as it was asked; the message says what to change."""

    exit_code = BAD_INPUT


class UnknownName(InputError):
    """No such thing, or more than one by that name.

    Attributes:
        kind: what was looked for, such as ``experiment``.
        name: as it was given.
        known: what could have been meant.
    """

    def __init__(
        self, kind: str, name: str, known: Sequence[str], *, several: bool = False
    ) -> None:
        listed = ", ".join(known) or "none"
        if several:
            text = f"{kind} {name!r} is ambiguous; it could be: {listed}"
        else:
            text = f"there is no {kind} {name!r}; known: {listed}"
        super().__init__(text)
        self.kind = kind
        self.name = name
        self.known = tuple(known)


class RefusedByFederation(ConsiliumError):
    """The log holds the entry, but by the federation's rules it has no effect.

    Attributes:
        operation: its type, such as ``experiment.approved``.
        index: where it stands in the log.
        reason: the fold's closed word for why.
    """

    exit_code = REFUSED

    def __init__(self, operation: str, index: int, reason: str, explanation: str) -> None:
        super().__init__(f"{operation} (entry {index}) has no effect: {explanation} ({reason})")
        self.operation = operation
        self.index = index
        self.reason = reason


class RunFailed(ConsiliumError):
    """Something began and did not come to its end."""

    exit_code = FAILED

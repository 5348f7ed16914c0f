"""Everything that ``audit`` raises, in one tree.

::

    AuditError
    ├── SourceUnusable      what was pointed at cannot be read as a copy of a ledger (place, reason)
    ├── DamagedCopy         a copy gave way while it was read; verification turns it into a check
    ├── BadTrustAnchor      ``--trust`` is neither a genesis entry nor a federation's id
    ├── NotInLedger         a report or page asks for what the ledger does not have (kind, name)
    └── NotReleased         a certificate is asked for of a model that was not released (name)

A change that verification finds is no error: it is a check that ends ``refuted``.
"""

from __future__ import annotations

from pathlib import Path


class AuditError(Exception):
    """The root: every error this package raises on purpose."""


class SourceUnusable(AuditError):
    """What was pointed at cannot be read as a copy of a ledger.

    Attributes:
        place: the file, directory or database.
        reason: what is wrong with it, and what to do.
    """

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason


class DamagedCopy(AuditError):
    """A copy gave way while it was read: a gap, a damaged page, a column of another type.

    Attributes:
        place: e.g. ``entry 7``.
        reason: what is wrong there.
    """

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason


class BadTrustAnchor(AuditError):
    """The trust anchor is neither a genesis entry nor a federation's id."""

    def __init__(self, given: str, reason: str) -> None:
        super().__init__(
            f"trust anchor {given!r}: {reason}; give the genesis.leaf file that came with your "
            "invitation, or the federation's id of 64 hexadecimal digits"
        )
        self.given = given
        self.reason = reason


class WitnessUnusable(AuditError):
    """A witness's own directory cannot be used.

    Attributes:
        path: the file or directory.
        reason: what is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class NotInLedger(AuditError):
    """The ledger does not have what was asked for.

    Attributes:
        kind: dataset, experiment, entry.
        name: what was asked for.
    """

    def __init__(self, kind: str, name: str, known: str = "") -> None:
        rest = f"; there are: {known}" if known else ""
        super().__init__(f"this ledger has no {kind} {name!r}{rest}")
        self.kind = kind
        self.name = name


class NotReleased(AuditError):
    """A privacy certificate is of a released model, and this experiment has none.

    Attributes:
        name: the experiment's.
    """

    def __init__(self, name: str, outcome: str) -> None:
        super().__init__(
            f"{name} has no released model ({outcome}); a privacy certificate is made of a released "
            "one, the data-use report of any use"
        )
        self.name = name

"""Everything that ``node`` raises, in one tree.

::

    NodeError
    ├── DatasetError            a file does not fit its schema (dataset, column, row, reason)
    ├── DatasetChanged          a registered file is gone or has other bytes (path, expected, found)
    ├── JobRefused              spec, schema, plan and model do not fit together (reason)
    ├── IntentRefused           the caller did not record an intent, so no noise was used (purpose)
    ├── TestNoiseRefused        predictable noise was asked for outside a test federation
    ├── SelfTestFailed          this machine's training code does not do what the plan says (reason)
    ├── WorkerError             the training process
    │   ├── WorkerDied          it ended or was killed; the next call starts another
    │   └── WorkerMisbehaved    it sent what the protocol does not know
    ├── RoundFailed             a round ended by what no rule foresees, e.g. a full disk (reason)
    ├── NoLongerAsked           what asked for a vector was taken back before it left (experiment, dataset)
    ├── IntentsClosed           noise was asked for without an open reservation (experiment, dataset)
    ├── PatientSpendUnreadable  what patients have spent does not open, or is of no known form (reason)
    ├── RegistrationRefused     a dataset cannot be registered as it is (dataset, reason)
    ├── PromiseExceeded         federations together promise more than a lifetime holds (book, reason)
    └── ServiceError            the node service cannot start or go on (reason)

A ``DatasetError`` may quote one value of one row: it is for the hospital's own administrator and
never leaves the node. The others say nothing that depends on rows. Callers catch types and read
fields; the messages are for people and may change.
"""

from __future__ import annotations


class NodeError(Exception):
    """The root: every error this package raises on purpose."""


class DatasetError(NodeError):
    """A file does not fit its declared schema.

    Attributes:
        dataset: the dataset's name.
        column: the column's name, or None when the whole file is meant.
        row: the row as a person counts it in the file, its header line included; None when no
            single row is meant.
        reason: what is wrong and what to do; may quote one value, so it stays at the hospital.
    """

    def __init__(
        self, dataset: str, reason: str, *, column: str | None = None, row: int | None = None
    ) -> None:
        place = f'dataset "{dataset}"'
        if column is not None:
            place += f': column "{column}"'
        if row is not None:
            place += f"{'' if column is not None else ':'} row {row}"
        super().__init__(f"{place}: {reason}")
        self.dataset = dataset
        self.column = column
        self.row = row
        self.reason = reason


class DatasetChanged(NodeError):
    """The bytes of a registered file are no longer those that were registered.

    Attributes:
        path: the file.
        expected: SHA-256 at registration, hexadecimal.
        found: SHA-256 now; None when the file is gone or changed while it was read.
    """

    def __init__(self, path: str, *, expected: str, found: str | None) -> None:
        state = (
            "is gone, or cannot be read as it was" if found is None else f"now has SHA-256 {found}"
        )
        super().__init__(
            f"file {path} {state}, but was registered with {expected}; "
            "restore it, or register the dataset again (its spend stays)"
        )
        self.path = path
        self.expected = expected
        self.found = found


class JobRefused(NodeError):
    """What a round asks for cannot be done with this schema, whatever the rows are.

    Attributes:
        reason: which parts do not fit together.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the round cannot be run: {reason}")
        self.reason = reason


class IntentRefused(NodeError):
    """The caller did not record an intent; no noise was drawn and nothing was released.

    Attributes:
        purpose: the release that was about to be made.
    """

    def __init__(self, purpose: str) -> None:
        super().__init__(
            f"the intent to release {purpose!r} was not recorded; nothing was released"
        )
        self.purpose = purpose


class AllowanceStale(NodeError):
    """Something was charged to all patients while a round was made with what they had left before.

    Nothing was released; the round is made again with what is left now. What is looked at was charged to all
    alike, so that this happens says nothing of any patient.
    """

    def __init__(self) -> None:
        super().__init__(
            "all patients were charged for something else while the round was made; nothing was released, and "
            "it is made again with what they have left"
        )


class SelfTestFailed(NodeError):
    """What this node's training code sends over synthetic rows is not what a plan would say.

    Attributes:
        reason: the checks that failed, with their figures; nothing about any patient.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the self-test of the training code failed, so this node does not train: {reason}; "
            "run consilium node selftest, and compare the installed release with its published hash"
        )
        self.reason = reason


class TestNoiseRefused(NodeError):
    """Predictable noise was asked for outside a test federation."""

    __test__ = False

    def __init__(self) -> None:
        super().__init__(
            "predictable noise protects nobody: --test-noise needs CONSILIUM_TEST_FEDERATION=1, "
            "and everything it makes is marked as not for production"
        )


class WorkerError(NodeError):
    """Something went wrong with the training process."""


class WorkerDied(WorkerError):
    """The training process ended, was killed or ran out of time.

    An intent that it had asked for counts as used. The next call starts another process.

    Attributes:
        exit_code: its exit status; negative for a signal; None when it could not be read.
        reason: what the parent saw.
    """

    def __init__(self, exit_code: int | None, reason: str) -> None:
        super().__init__(f"the training process died ({reason}, exit status {exit_code})")
        self.exit_code = exit_code
        self.reason = reason


class WorkerMisbehaved(WorkerError):
    """The training process sent what the protocol does not know; it was killed.

    Attributes:
        reason: what was received.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the training process broke the protocol: {reason}")
        self.reason = reason


class RoundFailed(NodeError):
    """A round ended by what no rule foresees, such as a full disk; an intent it had counts as used.

    Attributes:
        reason: the error's type and text.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the round failed ({reason}); look at the node's disk, memory and log, then restart it"
        )
        self.reason = reason


class IntentsClosed(NodeError):
    """Noise was asked for where no reservation is open: none was made, or it is being settled.

    Attributes:
        experiment: its id.
        dataset: the dataset's name.
    """

    def __init__(self, experiment: str, dataset: str) -> None:
        super().__init__(
            f'experiment {experiment[:12]}, dataset "{dataset}": no reservation is open, so no '
            "noise may be used"
        )
        self.experiment = experiment
        self.dataset = dataset


class NoLongerAsked(NodeError):
    """What asked for a vector was taken back before data was used for it, or before it left.

    One that was made stays here, and what it cost stays charged.

    Attributes:
        experiment: its id.
        dataset: the dataset's name.
    """

    def __init__(self, experiment: str, dataset: str) -> None:
        super().__init__(
            f'experiment {experiment[:12]}, dataset "{dataset}": the approval was taken back, the experiment '
            "ended or the node was paused, so no data is used and no vector leaves"
        )
        self.experiment = experiment
        self.dataset = dataset


class RegistrationRefused(NodeError):
    """A dataset fits its schema, but cannot be registered; nothing of it was.

    Attributes:
        dataset: the dataset's name.
        reason: what is wrong and what to do.
    """

    def __init__(self, dataset: str, reason: str) -> None:
        super().__init__(f'dataset "{dataset}" was not registered: {reason}')
        self.dataset = dataset
        self.reason = reason


class PromiseExceeded(NodeError):
    """The federations of a hospital together would promise more than its patients' lifetime holds.

    Attributes:
        book: the file that says so.
        reason: what is wrong and what to do.
    """

    def __init__(self, book: str, reason: str) -> None:
        super().__init__(f"book of promises {book}: {reason}")
        self.book = book
        self.reason = reason


class PatientSpendUnreadable(NodeError):
    """The record of what each patient has spent does not open, or is of no known form.

    Attributes:
        reason: what is wrong.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the record of what patients have spent cannot be used: {reason}")
        self.reason = reason


class ServiceError(NodeError):
    """The node service cannot start or go on.

    Attributes:
        reason: what is wrong and what to do.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the node cannot run: {reason}")
        self.reason = reason

"""What a log says beyond its state: who named which blob, and what came before.

The state holds what is; a coordinator also needs when an experiment was completed, the model after
each training round, who took a released model, and what older versions of a dataset declared. Filled
entry by entry, in order, by one thread; values are replaced and never changed, so that other threads
may read.
"""

from __future__ import annotations

from dataclasses import dataclass

from ledger.entries.named_blobs import BlobKind, named_blobs, named_card
from ledger.entries.operations.datasets import DatasetRegistered
from ledger.entries.operations.experiments import ExperimentCompleted, ModelDownloaded
from ledger.entries.operations.rounds import RoundAggregated, RoundOpened, UpdateSubmitted
from ledger.entries.operations.succession import FederationCarried
from ledger.entries.operations.values import BlobRef
from ledger.rules.log import Sequenced


@dataclass(frozen=True, slots=True)
class BlobUse:
    """What an entry says that a blob is: an applied one, or one that submits an update.

    Attributes:
        kind: as in ``named_blobs``, or ``card``; ``final`` for a model that an experiment ends with.
        experiment: the experiment, where there is one.
        author: who named it.
    """

    kind: BlobKind | str
    experiment: str | None
    author: str


class History:
    """See the module's first lines."""

    def __init__(self) -> None:
        self._uses: dict[str, tuple[BlobUse, ...]] = {}
        self._completed_at: dict[str, int] = {}
        self._models: dict[str, tuple[BlobRef, ...]] = {}
        self._downloads: set[tuple[str, str]] = set()
        self._kinds: dict[tuple[str, int], str] = {}
        self._declared_test: dict[str, int] = {}

    def observe(self, item: Sequenced) -> None:
        """Take in one entry; a void one changes nothing, but an update stays one (``access.py``)."""
        op, author = item.entry.body.op, item.entry.body.author
        if not item.outcome.applied:
            # Whoever could name the hash before its author did knows the bytes; so a public document
            # is not hidden by calling it an update.
            if isinstance(op, UpdateSubmitted) and not self.uses(op.update.sha256):
                self._add(op.update.sha256, BlobUse("update", op.experiment, author))
            return
        experiment = getattr(op, "experiment", None)
        if op.type == "experiment.proposed":
            experiment = item.entry.hash
        for kind, ref in named_blobs(op):
            final = isinstance(op, ExperimentCompleted) or (
                isinstance(op, RoundOpened) and op.kind != "train"
            )
            self._add(ref.sha256, BlobUse("final" if final else kind, experiment, author))
        card = named_card(op)
        if card is not None:
            self._add(card, BlobUse("card", None, author))
        if isinstance(op, RoundOpened):
            self._kinds[(op.experiment, op.round)] = op.kind
        elif isinstance(op, RoundAggregated):
            if self._kinds.pop((op.experiment, op.round), None) == "train":
                self._models[op.experiment] = (*self._models.get(op.experiment, ()), op.model)
        elif isinstance(op, ExperimentCompleted):
            self._completed_at[op.experiment] = item.index
        elif isinstance(op, ModelDownloaded):
            self._downloads.add((op.experiment, op.reader))
        elif isinstance(op, FederationCarried):
            for dataset in op.datasets:
                self._declared_test[dataset.registration] = dataset.terms.declared_test
        elif isinstance(op, DatasetRegistered):
            self._declared_test[item.entry.hash] = op.declared_test

    def uses(self, sha256: str) -> tuple[BlobUse, ...]:
        """What entries say that a blob is; empty for one that none names."""
        return self._uses.get(sha256, ())

    def completed_at(self, experiment: str) -> int | None:
        """Index of the entry that completed an experiment."""
        return self._completed_at.get(experiment)

    def round_models(self, experiment: str) -> tuple[BlobRef, ...]:
        """The model after each training round, in order."""
        return self._models.get(experiment, ())

    def declared_test(self, registration: str) -> int:
        """Declared test patients of a dataset's version, by its entry's hash; not of a newer one."""
        return self._declared_test[registration]

    def downloaded(self, experiment: str, reader: str) -> bool:
        """Whether the log says that a member took an experiment's model."""
        return (experiment, reader) in self._downloads

    def _add(self, sha256: str, use: BlobUse) -> None:
        known = self._uses.get(sha256, ())
        if use not in known:
            self._uses[sha256] = (*known, use)

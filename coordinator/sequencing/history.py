"""What a log says beyond its state: who named which blob, and what came before.

The state holds what is; a coordinator also needs why an entry was void, when an experiment was
completed, the model after each training round, who took a released model, and what older versions of a
dataset declared. Filled entry by entry, in order, by one thread; values are replaced and never changed,
so that other threads may read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ledger.entries.named_blobs import BlobKind, bound_cards, named_blobs
from ledger.entries.operations.datasets import DatasetRegistered
from ledger.entries.operations.experiments import ExperimentCompleted, ModelDownloaded
from ledger.entries.operations.rounds import (
    RoundAggregated,
    RoundKind,
    RoundOpened,
    UpdateSubmitted,
)
from ledger.entries.operations.succession import FederationCarried
from ledger.entries.operations.values import BlobRef
from ledger.rules.log import Sequenced

_CLOSED = ("update", "shares")
"""Kinds that a node names, and that are not for every member."""


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


@dataclass(slots=True)
class Facts:
    """What a `History` holds; ``history_bytes`` writes it into a snapshot.

    Attributes:
        uses: what entries say that a blob is, by its hash.
        voids: why the entry at an index is void.
        completed_at: index of the entry that completed an experiment.
        models: the models after an experiment's training rounds, in order.
        downloads: experiments, and who took their models.
        kinds: kinds of the rounds that are open, by experiment and number.
        declared_test: declared test patients, by registration.
    """

    uses: dict[str, tuple[BlobUse, ...]] = field(default_factory=dict)
    voids: dict[int, str] = field(default_factory=dict)
    completed_at: dict[str, int] = field(default_factory=dict)
    models: dict[str, tuple[BlobRef, ...]] = field(default_factory=dict)
    downloads: set[tuple[str, str]] = field(default_factory=set)
    kinds: dict[tuple[str, int], RoundKind] = field(default_factory=dict)
    declared_test: dict[str, int] = field(default_factory=dict)


class History:
    """See the module's first lines.

    Args:
        facts: to go on with, from a snapshot; by default those of an empty log.
    """

    def __init__(self, facts: Facts | None = None) -> None:
        self.facts = Facts() if facts is None else facts
        # Of most blobs the same few things are said: one value for all of them.
        self._said: dict[tuple[BlobUse, ...], tuple[BlobUse, ...]] = {}

    def observe(self, item: Sequenced) -> None:
        """Take in one entry; a void one changes nothing, but an update stays one (``access.py``)."""
        op, author = item.entry.body.op, item.entry.body.author
        facts = self.facts
        if item.outcome.void is not None:
            facts.voids[item.index] = item.outcome.void
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
            # Whoever could name the hash before its author did knows the bytes; so what is open
            # already, the model of the round say, is not hidden by calling it an update.
            known = self.uses(ref.sha256)
            if kind in _CLOSED and any(use.kind not in _CLOSED for use in known):
                continue
            self._add(ref.sha256, BlobUse("final" if final else kind, experiment, author))
        for card in bound_cards(op):
            self._add(card, BlobUse("card", None, author))
        if isinstance(op, RoundOpened):
            facts.kinds[(op.experiment, op.round)] = op.kind
        elif isinstance(op, RoundAggregated):
            if facts.kinds.pop((op.experiment, op.round), None) == "train":
                facts.models[op.experiment] = (*facts.models.get(op.experiment, ()), op.model)
        elif isinstance(op, ExperimentCompleted):
            facts.completed_at[op.experiment] = item.index
        elif isinstance(op, ModelDownloaded):
            facts.downloads.add((op.experiment, op.reader))
        elif isinstance(op, FederationCarried):
            for dataset in op.datasets:
                facts.declared_test[dataset.registration] = dataset.terms.declared_test
        elif isinstance(op, DatasetRegistered):
            facts.declared_test[item.entry.hash] = op.declared_test

    def uses(self, sha256: str) -> tuple[BlobUse, ...]:
        """What entries say that a blob is; empty for one that none names."""
        return self.facts.uses.get(sha256, ())

    def void(self, index: int) -> str | None:
        """Why the entry at an index is void; None for one that is applied."""
        return self.facts.voids.get(index)

    def completed_at(self, experiment: str) -> int | None:
        """Index of the entry that completed an experiment."""
        return self.facts.completed_at.get(experiment)

    def round_models(self, experiment: str) -> tuple[BlobRef, ...]:
        """The model after each training round, in order."""
        return self.facts.models.get(experiment, ())

    def declared_test(self, registration: str) -> int:
        """Declared test patients of a dataset's version, by its entry's hash; not of a newer one."""
        return self.facts.declared_test[registration]

    def downloaded(self, experiment: str, reader: str) -> bool:
        """Whether the log says that a member took an experiment's model."""
        return (experiment, reader) in self.facts.downloads

    def _add(self, sha256: str, use: BlobUse) -> None:
        known = self.facts.uses.get(sha256, ())
        if use not in known:
            said = (*known, use)
            self.facts.uses[sha256] = self._said.setdefault(said, said)

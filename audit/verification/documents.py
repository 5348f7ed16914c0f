"""Specs, schemas and cards of a copy, each read and parsed once.

A document that is absent, damaged or no such document raises one of `UNREADABLE`; reports then say
"not available" with the reason, and checks end not checkable.
"""

from __future__ import annotations

from audit.verification.records import ExperimentRecord, Registration
from audit.verification.sources import Copy
from ledger.entries.cards import DatasetCard, MemberCard, open_card
from ledger.entries.operations.values import BlobRef
from ledger.errors import BlobCorrupt, BlobMissing, MalformedInput
from ledger.experiment.adaptive_clip import round_shapes
from ledger.experiment.network_spec import Sequential, parameter_shapes
from ledger.experiment.plan.shape import network_of
from ledger.experiment.schema import Schema
from ledger.experiment.spec import ExperimentSpec
from ledger.experiment.tensors import Float64Vector, Int64Vector, decode_update, unpack_model
from ledger.formats.documents import parse_document

UNREADABLE = (BlobMissing, BlobCorrupt, MalformedInput)

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class Documents:
    """Typed access to a copy's blobs; results are kept as long as this object is.

    Args:
        copy: to read.
        erased: commitments of cards that the log says are erased: not shown, here or not.
    """

    def __init__(self, copy: Copy, erased: frozenset[str] = frozenset()) -> None:
        self._copy = copy
        self._erased = erased
        self._specs: dict[str, ExperimentSpec] = {}
        self._schemas: dict[str, Schema] = {}

    def raw(self, ref: BlobRef) -> bytes:
        """A blob's bytes."""
        return self._copy.blob(ref.sha256, ref.bytes)

    def is_erased_card(self, sha256: str) -> bool:
        """Whether the log says that a card with this commitment is erased."""
        return sha256 in self._erased

    def spec(self, experiment: ExperimentRecord) -> ExperimentSpec:
        """An experiment's specification."""
        ref = experiment.terms.spec
        if ref.sha256 not in self._specs:
            self._specs[ref.sha256] = parse_document(self.raw(ref), ExperimentSpec)
        return self._specs[ref.sha256]

    def schema(self, version: Registration) -> Schema:
        """A dataset version's public schema."""
        ref = version.terms.schema_
        if ref.sha256 not in self._schemas:
            self._schemas[ref.sha256] = parse_document(self.raw(ref), Schema)
        return self._schemas[ref.sha256]

    def network(self, experiment: ExperimentRecord) -> Sequential:
        """An experiment's full layer tree.

        Raises:
            PlanRefused: the specification does not fit the schemas.
        """
        spec = self.spec(experiment)
        version = experiment.sites.get(spec.federation.datasets[0])
        if version is None:
            raise MalformedInput("specification", "its first dataset is not in the plan")
        return network_of(spec, self.schema(version))

    def shapes(self, experiment: ExperimentRecord) -> Shapes:
        """Names and shapes of an experiment's parameters: of the model that it ends with."""
        return parameter_shapes(self.network(experiment))

    def round_shapes(self, experiment: ExperimentRecord) -> Shapes:
        """Names and shapes of the models of its rounds."""
        return round_shapes(self.spec(experiment), self.network(experiment))

    def model(self, ref: BlobRef, shapes: Shapes) -> Float64Vector:
        """A model's parameters."""
        return unpack_model(self.raw(ref), shapes)

    def update(self, ref: BlobRef, size: int) -> Int64Vector:
        """An update's or aggregate's vector of ``size`` values."""
        return decode_update(self.raw(ref), size)

    def dataset_card(self, version: Registration) -> DatasetCard | None:
        """A dataset's card; None where none was bound or its blob was erased."""
        commitment = version.terms.card
        if commitment is None or commitment in self._erased:
            return None
        try:
            return open_card(self._copy.blob(commitment), commitment, DatasetCard)
        except UNREADABLE:
            return None

    def member_card(self, commitment: str | None) -> MemberCard | None:
        """A member's card; None where none was bound or its blob was erased."""
        if commitment is None or commitment in self._erased:
            return None
        try:
            return open_card(self._copy.blob(commitment), commitment, MemberCard)
        except UNREADABLE:
            return None

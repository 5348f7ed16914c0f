"""An experiment before it is proposed: read, checked against schemas, rehearsed.

``Experiment`` holds a spec and nothing else; what it will cost follows from the datasets' registrations
(``Client.propose``) or, before there are any, from public schemas alone (``check``, ``rehearse``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from consilium.actions.written import parse_written, read_written
from consilium.errors import InputError
from ledger.copies.blobs import blob_ref
from ledger.entries.author import clock_ms
from ledger.entries.operations.datasets import CellLimit, CellRegistered, CellUse, DatasetRegistered
from ledger.entries.operations.experiments import ExperimentProposed
from ledger.entries.operations.plans import Plan
from ledger.experiment.adaptive_clip import round_shapes
from ledger.experiment.average import initial_model
from ledger.experiment.network_spec import parameter_shapes
from ledger.experiment.plan.compilation import compile_plan
from ledger.experiment.plan.shape import network_of
from ledger.experiment.plan.sites import Site, sites_from
from ledger.experiment.recipe import resolve
from ledger.experiment.schema import Schema
from ledger.experiment.spec import ExperimentSpec
from ledger.experiment.tensors import Shapes, pack_model
from ledger.formats.documents import encode_document, parse_document
from privacy.filters import limit_for

if TYPE_CHECKING:
    from consilium.actions.reading import LedgerView
    from consilium.rehearsal import Rehearsal

DELTA_MAX = 1e-5


@dataclass(frozen=True, slots=True)
class Proposal:
    """What is published and signed when an experiment is proposed.

    Attributes:
        operation: with the plan.
        spec, model: the documents that it names.
    """

    operation: ExperimentProposed
    spec: bytes
    model: bytes


@dataclass(frozen=True, slots=True)
class Experiment:
    """A researcher's experiment, as a spec describes it."""

    spec: ExperimentSpec

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a spec from a YAML or JSON file.

        Raises:
            InputError: it is no spec; names the field.
        """
        return cls(read_written(Path(path), ExperimentSpec))

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Make a spec of a mapping with the fields of the YAML form; numpy's numbers are numbers.

        Raises:
            InputError: it is no spec; names the field.
        """
        import orjson

        try:
            written = orjson.dumps(fields, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
        except orjson.JSONEncodeError as error:
            message = f"experiment: {error}; use texts, numbers, lists and mappings"
            raise InputError(message) from None
        return cls(parse_written(written, ExperimentSpec, "experiment"))

    def refuse_past(self) -> None:
        """See that the spec's last day is not over, by this machine's clock.

        Raises:
            InputError: it is.
        """
        if clock_ms() > self.spec.until_ms:
            raise InputError(
                f"until: {self.spec.until} is over; name the last day on which the data may be used"
            )

    def check(self, schemas: Sequence[Schema]) -> Plan:
        """Compile the plan as if these schemas were registered, each with the spec's own epsilon.

        Raises:
            PlanRefused: the spec does not fit; says where.
        """
        return self.propose_for(schemas).operation.plan

    def propose_for(self, schemas: Sequence[Schema]) -> Proposal:
        """`propose` for imagined registrations of these schemas (`imagined_site`)."""
        return self.propose(self._imagined(schemas))

    def resolved(self, schemas: Sequence[Schema]) -> Experiment:
        """The same with numbers where the spec says ``auto``, for imagined registrations.

        Raises:
            PlanRefused: the spec does not fit; says where.
        """
        return Experiment(resolve(self.spec, self._imagined(schemas)))

    def propose(self, sites: Sequence[Site]) -> Proposal:
        """The proposal for these sites: what the spec says, with numbers where it says ``auto``.

        Raises:
            PlanRefused: the spec does not fit; says where.
        """
        resolved = resolve(self.spec, sites)
        spec = encode_document(resolved)
        tree = network_of(resolved, sites[0].schema)
        model = pack_model(round_shapes(resolved, tree), initial_model(resolved, tree))
        plan = compile_plan(resolved, sites, blob_ref(model))
        operation = ExperimentProposed(
            type="experiment.proposed", name=self.spec.name, spec=blob_ref(spec), plan=plan
        )
        return Proposal(operation, spec, model)

    def sites_in(self, view: LedgerView) -> tuple[Site, ...]:
        """The registered datasets that the spec asks for.

        Raises:
            PlanRefused: one of them is not registered, or was withdrawn.
        """
        datasets = self.spec.federation.datasets
        schemas = {
            name: parse_document(view.blob(view.state.datasets[name].terms.schema_), Schema)
            for name in datasets
            if name in view.state.datasets
        }
        return sites_from(view.state, schemas, datasets)

    def _imagined(self, schemas: Sequence[Schema]) -> tuple[Site, ...]:
        return tuple(imagined_site(schema, self.spec) for schema in schemas)

    def shapes(self, schema: Schema) -> Shapes:
        """Names and shapes of the model's parameters on a dataset of that schema."""
        return parameter_shapes(network_of(self.spec, schema))

    def round_shapes(self, schema: Schema) -> Shapes:
        """Names and shapes of a round's model: the parameters, and a clip norm that adapts."""
        return round_shapes(self.spec, network_of(self.spec, schema))

    def schemas_for(self, schemas: Sequence[Schema]) -> tuple[Schema, ...]:
        """One schema for each dataset that the spec asks for.

        A single schema stands for all of them; of several, each must be of one of the datasets.

        Raises:
            InputError: a dataset has no schema.
        """
        if len(schemas) == 1:
            only = schemas[0]
            return tuple(
                only.model_copy(update={"dataset": name}) for name in self.spec.federation.datasets
            )
        by_name = {schema.dataset: schema for schema in schemas}
        lacking = [name for name in self.spec.federation.datasets if name not in by_name]
        if lacking:
            raise InputError(
                f"no schema for dataset {lacking[0]!r}; give one --schema for all datasets, "
                f"or one for each (given: {', '.join(sorted(by_name)) or 'none'})"
            )
        return tuple(by_name[name] for name in self.spec.federation.datasets)

    def rehearse(self, schemas: Sequence[Schema], *, rounds: int | None = None) -> Rehearsal:
        """Run it on rows made up from the public schemas; see ``rehearsal.py``."""
        from consilium.rehearsal import rehearse

        found = self.schemas_for(schemas)
        return rehearse(self.resolved(found), found, rounds=rounds)


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"a {type(value).__name__} is nothing that a spec holds")


def imagined_site(schema: Schema, spec: ExperimentSpec) -> Site:
    """A registration that a hospital with this schema could make, with one cell of its own.

    The cell promises the spec's own target epsilon, at the largest delta that its size allows. Where the
    spec names ``full_rounds``, and the schema patients, these have accounts of their own, and those kept
    for evaluation another cell.
    """
    epsilon = float(spec.privacy.epsilon)
    delta = default_delta(schema.declared_rows)
    limit = limit_for(epsilon, delta)
    one_by_one = spec.privacy.full_rounds is not None and schema.patient_column is not None
    halves: tuple[
        tuple[Literal["train", "test", "both"], Literal["test", "both", "individual"]], ...
    ] = (("both", "both"),)
    if one_by_one:
        halves = (("test", "test"), ("train", "individual"))
    cells = {
        use: CellRegistered(
            type="cell.registered",
            cell=f"{schema.dataset[:34]}-{'all' if use == 'both' else use}",
            block="all",
            half=half,
            declared_patients=schema.declared_rows,
            epsilon_micro=int(spec.privacy.epsilon * Decimal(10**6)),
            delta_e15=round(delta * 10**15),
            limit=CellLimit(g_max=limit.g_max, r_max=limit.r_max, order_centi=limit.order_centi),
        )
        for use, half in halves
    }
    terms = DatasetRegistered(
        type="dataset.registered",
        dataset=schema.dataset,
        schema_=blob_ref(encode_document(schema)),
        unit="record" if schema.patient_column is None else "patient",
        declared_train=schema.declared_train,
        declared_test=schema.declared_test,
        cells=tuple(CellUse(cell=cell.cell, use=use) for use, cell in cells.items()),
        snapshot="0" * 64,
        card=None,
    )
    return Site("0" * 64, terms, {cell.cell: cell for cell in cells.values()}, schema)


def default_delta(declared_rows: int) -> float:
    """The largest delta that the federation allows for that many declared patients."""
    return min(DELTA_MAX, 1.0 / (10 * declared_rows))

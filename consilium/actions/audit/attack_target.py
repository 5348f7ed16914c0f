"""What an attack is on: the public part of an experiment, from a log or from a spec file, and what it is charged.

Nothing here names a row. Spec, plan and schemas are what every member may read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from audit.reports.proven import is_accounted_alone, proven_epsilon, proven_mu, training_of
from consilium.actions.reading import LedgerView
from consilium.errors import InputError
from consilium.experiment import Experiment, default_delta
from consilium.naming import the_experiment
from ledger.entries.operations.plans import Plan, Release, SitePlan
from ledger.experiment.adaptive_clip import round_shapes
from ledger.experiment.plan.shape import network_of
from ledger.experiment.schema import Schema
from ledger.experiment.spec import ExperimentSpec
from ledger.experiment.tensors import Float64Vector, unpack_model
from ledger.formats.documents import parse_document
from privacy.selfaudit.attacks import Proven


@dataclass(frozen=True)
class Target:
    """The public part of an experiment.

    Attributes:
        name: for people.
        experiment: its id in a log, or None where a spec file was given.
        spec: with numbers where the researcher wrote ``auto``.
        plan: its integers.
        schemas: of its datasets, in the plan's order.
        deltas: lifetime delta of each cell.
        start: the initial model, as round 1 has it, float64.
    """

    name: str
    experiment: str | None
    spec: ExperimentSpec
    plan: Plan
    schemas: tuple[Schema, ...]
    deltas: Mapping[str, float]
    start: Float64Vector

    def site(self, dataset: str | None) -> tuple[Schema, SitePlan]:
        """A dataset's part; without a name, the part with the largest mu."""
        parts = list(zip(self.schemas, self.plan.sites, strict=True))
        if dataset is None:
            return max(parts, key=lambda part: self._mu(part[1]))
        for schema, site in parts:
            if site.dataset == dataset:
                return schema, site
        known = ", ".join(site.dataset for site in self.plan.sites)
        raise InputError(f"--dataset {dataset!r}: {self.name} asks for {known}")

    def proven(self, site: SitePlan, delta: float | None = None) -> Proven:
        """What the plan charges a site's worst cell for training, spare rounds left out.

        Args:
            site: its part of the plan.
            delta: of the epsilon; None for the cells' own.
        """
        release = _training(site)
        own = min(self.deltas[charge.cell] for charge in release.charges)
        at = own if delta is None else delta
        return Proven(mu=self._mu(site), epsilon=proven_epsilon(self.plan, release, at), delta=at)

    def refuse_individual(self) -> None:
        """See that no site accounts for each patient alone: then no charge of the plan is a run's.

        Raises:
            InputError: one does.
        """
        for site in self.plan.sites:
            if is_accounted_alone(site):
                raise InputError(
                    f"{site.dataset} accounts for each patient alone, so the plan charges no run as a "
                    "whole; attack the same spec without it"
                )

    def _mu(self, site: SitePlan) -> float:
        return proven_mu(self.plan, _training(site))


def target_of_spec(spec: Path, schemas: Sequence[Schema]) -> Target:
    """The target that a spec file describes, as if its schemas were registered.

    Raises:
        InputError, PlanRefused: it is no spec, or does not fit.
    """
    return target_of_experiment(Experiment.from_yaml(spec), schemas)


def target_of_experiment(written: Experiment, schemas: Sequence[Schema]) -> Target:
    """The target that an experiment would be, if its schemas were registered.

    Raises:
        InputError, PlanRefused: they do not fit.
    """
    found = written.schemas_for(schemas)
    experiment = written.resolved(found)
    proposal = experiment.propose_for(found)
    plan = proposal.operation.plan
    largest = {schema.dataset: default_delta(schema.declared_rows) for schema in found}
    deltas = {
        charge.cell: largest[site.dataset]
        for site in plan.sites
        for release in site.releases
        for charge in release.charges
    }
    start = unpack_model(proposal.model, experiment.round_shapes(found[0]))
    return Target(experiment.spec.name, None, experiment.spec, plan, found, deltas, start)


def target_in(view: LedgerView, name: str) -> Target:
    """The target that is an experiment of a log.

    Raises:
        UnknownName: there is none of that name.
        InputError: a dataset was registered anew since, under another schema perhaps.
    """
    found = the_experiment(view.state, name)
    spec = parse_document(view.blob(found.spec), ExperimentSpec)
    schemas = []
    for site in found.plan.sites:
        dataset = view.state.datasets[site.dataset]
        if dataset.registration != site.registration:
            raise InputError(
                f"{site.dataset} was registered anew after {found.name} was proposed; attack the spec "
                "itself: --spec FILE --schema FILE"
            )
        schemas.append(parse_document(view.blob(dataset.terms.schema_), Schema))
    shapes = round_shapes(spec, network_of(spec, schemas[0]))
    start = unpack_model(view.blob(found.plan.initial_model), shapes)
    deltas = {name: cell.terms.delta_e15 / 1e15 for name, cell in view.state.cells.items()}
    return Target(found.name, found.id, spec, found.plan, tuple(schemas), deltas, start)


def _training(site: SitePlan) -> Release:
    release = training_of(site)
    if release is None:
        raise InputError(f"{site.dataset} trains nothing in this plan: there is nothing to attack")
    return release

"""One round at one dataset: from an approved plan's integers to the bytes that leave.

Promise: everything that can fail for reasons other than rows (documents, plan, model, a changed
file) fails before the first intent; after it, a vector leaves whatever the rows are. Noise comes from
a fresh generator per purpose, closed at the end. What is drawn, with which sensitivity and deviation,
is the plan's, never computed here.

The caller owes: approval, reservation, and a plan that ``ledger.experiment.plan.check.check_plan`` accepted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

from ledger.entries.operations.plans import Purpose, Release, SitePlan
from ledger.experiment.adaptive_clip import SPAN, allowed, round_shapes
from ledger.experiment.average import LateAverage
from ledger.experiment.fast_clip import clip_norm
from ledger.experiment.inputs import embedded
from ledger.experiment.network_spec import Network, Sequential, parameter_count, parameter_shapes
from ledger.experiment.plan.quantities import training_rows
from ledger.experiment.plan.shape import network_of
from ledger.experiment.plan.sites import rows_each, site_limits
from ledger.experiment.schema import Schema
from ledger.experiment.spec import ExperimentSpec, FedAvg
from ledger.experiment.tensors import encode_update, unpack_model
from ledger.formats.documents import parse_document
from ledger.formats.snapshot_proof import salted
from ledger.formats.strict import parse_canonical
from node.data.blocks import member
from node.data.encode import Examples
from node.data.holdings import Halves, RowsAsked
from node.data.patient_spend import Allowance, PatientSpend, members_of
from node.errors import JobRefused
from node.training.networks.modules import FloatVector, build, load_flat
from node.training.process.frames import Job
from node.training.rounds.augment import number_inputs, with_own_views, with_views
from node.training.rounds.evaluate import noisy_histogram
from node.training.rounds.individual import RecordCharges, individual_round
from node.training.rounds.train import (
    BeforeNoise,
    FastSum,
    Training,
    fedavg_round,
    fedsgd_round,
    local_baseline,
    rehearse,
)
from node.training.sums.clipping import FLAT, Clipping, Counting, PerLayer
from node.training.sums.composed import ComposedSum
from node.training.sums.dense import DenseSum
from node.training.sums.exact import IntVector, loss_of, per_sample
from node.training.sums.layerwise import LayerwiseSum
from privacy.noise import Randomness

Noise = Callable[[str], Randomness]
"""Opens a generator for the one purpose that the text names."""


def _record_nothing(charges: PatientSpend) -> None:
    raise JobRefused("nobody records what the round costs each patient")


def run_round(
    job: Job,
    holdings: Halves,
    noise: Noise,
    before_noise: BeforeNoise,
    record_charges: RecordCharges = _record_nothing,
) -> bytes:
    """Run a round.

    Args:
        job: what to do.
        holdings: warm datasets.
        noise: opens generators.
        before_noise: records an intent durably, or raises; called before its noise is drawn.
        record_charges: where the plan accounts for patients one by one, records durably what the
            round costs each of them; called before its noise is drawn.

    Returns:
        The encoded update: gradients or weights for ``train``, a histogram for ``evaluate`` and
        ``baseline``.

    Raises:
        JobRefused, LedgerError: spec, schema, plan and model do not fit together.
        DatasetError, DatasetChanged: the file is not what was registered.
    """
    work = PreparedRound(job, holdings, noise, before_noise, record_charges)
    if job.kind == "train":
        vector = work.train()
    elif job.kind == "evaluate":
        load_flat(work.training.engine, work.model)
        vector = work.measure("evaluate")
    else:
        vector = work.baseline()
    return encode_update(vector)


class PreparedRound:
    """A job whose parts were found to fit together; it may be moved to another round's model.

    A round of a federation makes one and uses it once (``run_round``). Audits on made-up rows
    (``node.training.attack``) play many rounds of one.
    """

    def __init__(
        self,
        job: Job,
        holdings: Halves,
        noise: Noise,
        before_noise: BeforeNoise,
        record_charges: RecordCharges = _record_nothing,
    ) -> None:
        self._spec = parse_document(job.spec, ExperimentSpec)
        self._schema = parse_document(job.schema_document, Schema)
        self._site = parse_canonical(job.site, SitePlan)
        self._releases = {release.purpose: release for release in self._site.releases}
        self._noise = noise
        self._before_noise = before_noise
        self._record_charges = record_charges
        self._split_key = job.split_key
        self._allowance = Allowance.decode(job.allowance) if job.allowance else None
        self._context = f"{sha256(job.spec).hexdigest()}/{self._site.dataset}/{job.kind}{job.round}"
        if self._site.dataset != self._schema.dataset:
            raise JobRefused(f"the plan is for {self._site.dataset}, not {self._schema.dataset}")
        for purpose in _PURPOSES[job.kind]:
            self._release(purpose)
        tree = network_of(self._spec, self._schema)
        self._tree, self._kind = tree, job.kind
        flat = self._unpacked(job, tree)
        self.model: FloatVector = flat[: parameter_count(tree)]
        train, self._test = holdings.halves(
            RowsAsked(
                path=Path(job.path),
                schema_document=job.schema_document,
                split_key=job.split_key,
                spec=job.spec,
                expected=job.sha256,
                blocks=frozenset(job.blocks),
                patients=Path(job.patients),
                snapshot=job.snapshot,
            )
        )
        views = self._spec.privacy.augment
        if views is not None and job.kind != "evaluate":
            numbers = number_inputs(self._schema, self._spec.features, embedded(self._spec.model))
            if job.kind == "train" and self._release("train").engine == "individual":
                seed = partial(salted, job.split_key, f"views of {self._context}")
                train = with_own_views(train, numbers, views, seed)
            else:
                with closing(noise(f"{self._context}/augment")) as rng:
                    train = with_views(train, numbers, views, rng)
        self.training = Training(
            per_sample(build(tree)),
            loss_of(self._spec.task),
            train,
            self._site.divisor,
            self._fast_engine(tree, train, job.kind),
            self._clipping(tree, job.kind, flat),
        )
        rehearse(self.training)

    def move_to(self, flat: FloatVector) -> None:
        """Take another round's model, its clip norm included where that adapts."""
        self.model = flat[: parameter_count(self._tree)]
        clipping = self._clipping(self._tree, self._kind, flat)
        self.training = replace(self.training, clipping=clipping)

    def train(self) -> IntVector:
        """Make the round's private vector at ``model``: int64 [d], grid units."""
        release = self._release("train")
        strategy = self._spec.federation.strategy
        if release.engine == "individual":
            return self._individual(release)
        with closing(self._noise(f"{self._context}/train")) as rng:
            if isinstance(strategy, FedAvg):
                return fedavg_round(
                    self.training,
                    self.model,
                    release,
                    local_steps=strategy.local_steps,
                    learning_rate=float(strategy.learning_rate),
                    weight=self._site.weight,
                    update_bound=self._site.update_bound,
                    rng=rng,
                    before_noise=self._before_noise,
                )
            return fedsgd_round(
                self.training,
                self.model,
                release,
                update_bound=self._site.update_bound,
                rng=rng,
                before_noise=self._before_noise,
            )

    def _individual(self, release: Release) -> IntVector:
        ids = self.training.examples.ids
        if self._allowance is None or ids is None:
            raise JobRefused(
                "the plan accounts for patients one by one, and nobody said who has what"
            )
        members = members_of([member(self._split_key, patient) for patient in ids])
        with closing(self._noise(f"{self._context}/train")) as rng:
            return individual_round(
                self.training,
                self.model,
                release,
                members,
                self._allowance,
                update_bound=self._site.update_bound,
                rng=rng,
                before_noise=self._before_noise,
                record_charges=self._record_charges,
            )

    def baseline(self) -> IntVector:
        """Train on this site alone and measure the result: a histogram, int64, grid units."""
        planned = self._spec.privacy.baseline
        if planned is None:
            raise JobRefused("the spec asks for no baseline")
        with closing(self._noise(f"{self._context}/baseline_train")) as rng:
            alone = local_baseline(
                self.training,
                self.model,
                self._release("baseline_train"),
                steps=planned.rounds,
                learning_rate=float(planned.learning_rate or self._spec.learning_rate),
                average=LateAverage(self._spec, planned.rounds),
                rng=rng,
                before_noise=self._before_noise,
            )
        load_flat(self.training.engine, alone)
        return self.measure("baseline_evaluate")

    def measure(self, purpose: Purpose) -> IntVector:
        """Measure the model that the engine holds: a histogram, int64, grid units."""
        examples: Examples = self._test
        with closing(self._noise(f"{self._context}/{purpose}")) as rng:
            return noisy_histogram(
                self.training.engine,
                examples,
                self._spec,
                self._release(purpose),
                declared=self._schema.declared_test,
                rng=rng,
                before_noise=self._before_noise,
            )

    def _fast_engine(self, tree: Sequential, train: Examples, kind: str) -> FastSum | None:
        """Make the fast engine where a release of this round asks for it."""
        asked = [self._release(purpose) for purpose in _PURPOSES[kind]]
        fast = [release for release in asked if release.engine == "fast"]
        if not fast:
            return None
        per_layer = self._spec.privacy.clipping == "per_layer"
        each = rows_each(self._schema)
        limits = site_limits(
            self._site.divisor, training_rows(self._spec, self._schema.declared_rows), each
        )
        for release in fast:
            # Raises here, before any intent.
            clip_norm(tree, release.sensitivity, limits, per_layer)
        read = train.first_rows(training_rows(self._spec, each))
        if isinstance(tree, Network):
            return ComposedSum(tree, self._spec.task, read, limits, per_layer)
        engine = LayerwiseSum if per_layer else DenseSum
        return engine(tree, self._spec.task, read, limits)

    def _unpacked(self, job: Job, tree: Sequential) -> FloatVector:
        """The round's model: parameters, and behind them a clip norm that adapts."""
        if job.kind == "evaluate":
            return unpack_model(job.model, parameter_shapes(tree))
        return unpack_model(job.model, round_shapes(self._spec, tree))

    def _clipping(self, tree: Sequential, kind: str, flat: FloatVector) -> Clipping:
        """How the exact engine clips; the local baseline has no rounds over which a norm adapts."""
        adaptive = self._spec.privacy.adaptive
        if adaptive is not None and kind == "train":
            norm = float(flat[-1])
            if self._release("train").engine != "exact" or not allowed(self._spec, norm):
                raise JobRefused(
                    "a clip norm that adapts needs the exact engine, and stays within a factor of "
                    f"{SPAN:.0f} of the first one; this round states {norm:.6g}"
                )
            return Counting(norm, adaptive.share)
        if self._spec.privacy.clipping != "per_layer":
            return FLAT
        return PerLayer([math.prod(shape) for _, shape in parameter_shapes(tree)])

    def _release(self, purpose: Purpose) -> Release:
        release = self._releases.get(purpose)
        if release is None:
            raise JobRefused(f"the plan has no release for {purpose} at {self._site.dataset}")
        return release


_PURPOSES: dict[str, tuple[Purpose, ...]] = {
    "train": ("train",),
    "evaluate": ("evaluate",),
    "baseline": ("baseline_train", "baseline_evaluate"),
}

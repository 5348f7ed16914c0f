"""The plan: an experiment in integers, release by release and site by site.

Part of ``experiment.proposed``. That it follows from the spec is for ``ledger.experiment``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ledger.entries.operations.datasets import CellCharge
from ledger.entries.operations.purposes import PurposeCode
from ledger.entries.operations.values import BlobRef, Count, Hash, Positive, Slug, Value

Purpose = Literal["train", "evaluate", "baseline_train", "baseline_evaluate"]
Engine = Literal["exact", "fast", "individual"]


class Release(Value):
    """One kind of noisy release that a plan makes from a dataset: ``steps`` identical mechanisms.

    Attributes:
        sensitivity: L2 bound on one patient's contribution, grid units.
        noise_sd: deviation of the rounded Gaussian, grid units.
        sampling: Poisson probability in units of 2^-32; 2^32 is the full batch.
        steps: the most that the plan may run, spare rounds included.
        engine: how the sum before the noise is made: from integer vectors of each patient, or by
            book-keeping, which clips below the sensitivity by what its rounding may add; or, from cells
            of that kind, ``individual``: like exact, each patient clipped to what the patient has left.
        charges: per *step*, for every cell that the release reads; with engine ``individual`` the most
            that any one patient may lose in all steps together.
    """

    purpose: Purpose
    sensitivity: Positive
    noise_sd: Positive
    sampling: Annotated[int, Meta(ge=1, le=2**32)]
    steps: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    engine: Engine
    charges: Annotated[tuple[CellCharge, ...], Meta(min_length=1, max_length=256)]


class SitePlan(Value):
    """What the plan asks of one dataset.

    Attributes:
        registration: entry hash of the dataset's registration the plan was made for.
        weight: the public integer that premultiplies this site's update (1 for FedSGD sums).
        divisor: what this site adds to the public divisor of the sum: its declared size.
        update_bound: L2 bound on a training update, grid units, weight included.
        epsilon_micro: the plan's own epsilon at the cell's delta, metrics included.
    """

    dataset: Slug
    registration: Hash
    weight: Positive
    divisor: Positive
    update_bound: Positive
    epsilon_micro: Positive
    releases: Annotated[tuple[Release, ...], Meta(min_length=1, max_length=4)]


class Plan(Value):
    """An experiment in integers: all that the fold must know of it, implied by the spec.

    Anyone who holds the spec and the datasets' registrations recompiles it and must get these bytes.

    Attributes:
        parameters: values of a round's model and of a training update: the network's parameters, and
            one more where the clip norm adapts.
        secure_aggregation: with masks, so that the coordinator learns sums only: ``local`` where
            each site's noise alone protects it, ``distributed`` where the sites' noises do together;
            null without masks.
        noise_shares: sites over which a release's noise is divided: each adds its part of the
            variance. 1 where each adds all of it.
        purpose: what the experiment is for, as hospitals divide their promises.
    """

    purpose: PurposeCode
    strategy: Literal["fedsgd", "fedavg"]
    parameters: Positive
    metric_size: Count
    rounds: Annotated[int, Meta(ge=1, le=100_000)]
    steps_per_round: Annotated[int, Meta(ge=1, le=10_000)]
    spare_rounds: Annotated[int, Meta(ge=0, le=100)]
    evaluate: bool
    baseline: bool
    quorum: Annotated[int, Meta(ge=1, le=10_000)]
    round_timeout_ms: Annotated[int, Meta(ge=1000, le=30 * 24 * 3600 * 1000)]
    initial_model: BlobRef
    sites: Annotated[tuple[SitePlan, ...], Meta(min_length=1, max_length=1024)]
    secure_aggregation: Literal["local", "distributed"] | None
    noise_shares: Annotated[int, Meta(ge=1, le=64)]

    @property
    def rounds_with_spare(self) -> int:
        """Training rounds that are reserved: the planned ones and those kept for crashes."""
        return self.rounds + self.spare_rounds

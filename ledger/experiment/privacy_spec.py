"""The part of a spec that says what an experiment costs, and how its gradients are clipped."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from ledger.experiment.spec_part import Fraction, Part, Plain, Rate, SpecPart, is_none

TIGHT: Final = Decimal("0.5")
"""The clip norm for which learning rates are meant where none is written."""
ClipNorm = Annotated[Decimal, Field(gt=0, le=1000, max_digits=9), Plain]


class Metrics(SpecPart):
    """Release of quality measures as one noisy score histogram a site.

    Attributes:
        bins: score bins per class.
        noise_sd: least deviation of the noise on each count; one patient moves the counts by at
            most 1. A tight target epsilon raises it.
        share: part of the target that all histograms together may cost where training reads the
            same cell of patients; cells kept for evaluation give all of theirs.
    """

    bins: Annotated[int, Field(ge=4, le=256)] = 16
    noise_sd: Annotated[Decimal, Field(gt=0, le=1000, max_digits=9), Plain] = Decimal("3.8")
    share: Annotated[Decimal, Field(gt=0, lt=1, max_digits=6), Plain] = Decimal("0.2")


class Baseline(SpecPart):
    """A model of each site's own rows alone, measured beside the federated one; charged in full.

    Attributes:
        rounds: steps of the local training.
        learning_rate: of those steps; null for the strategy's own, which ``recipe.resolve`` replaces
            by one for a single site where it chooses the strategy's.
        share: part of the site's training charge that it may cost.
    """

    rounds: Annotated[int, Field(ge=1, le=1000)] = 20
    learning_rate: Rate | None = None
    share: Annotated[Decimal, Field(gt=0, lt=1, max_digits=6), Plain] = Decimal("0.25")


class AdaptiveClipping(SpecPart):
    """A clip norm that follows a quantile of the gradients' norms (Andrew et al. 2021).

    Attributes:
        quantile: the part of the patients whose gradients should be within the norm.
        rate: how fast it follows: in a round the norm changes at most by a factor of about exp(rate).
        share: part of the training's squared sensitivity, and so of its mu^2, that pays for the noisy
            count of who is within.
    """

    kind: Literal["adaptive"]
    quantile: Part = Decimal("0.5")
    rate: Fraction = Decimal("0.2")
    share: Annotated[Decimal, Field(gt=0, le=Decimal("0.5"), max_digits=6), Plain] = Decimal("0.05")


class Augment(SpecPart):
    """Several views of each row, averaged before the clip: the same sensitivity and charge.

    Attributes:
        copies: views of a row, itself included.
        jitter: deviation of the Gaussian by which a view moves each number column, in halves of its
            declared range.
    """

    copies: Annotated[int, Field(ge=2, le=32)]
    jitter: Annotated[Decimal, Field(ge=Decimal("0.001"), le=1, max_digits=6), Plain] = Decimal(
        "0.05"
    )


def _is_flat(value: object) -> bool:
    return value == "flat"


class Privacy(SpecPart):
    """What it costs.

    Attributes:
        epsilon: target of the whole run per dataset, metrics and baseline included, at the
            dataset's own lifetime delta.
        clip_norm: L2 bound on one patient's gradient; ``auto`` until ``recipe.resolve`` has chosen it. Beside
            a learning rate that is a number, ``auto`` is ``TIGHT``.
        clipping: ``flat``, the whole gradient to ``clip_norm``; ``per_layer``, each of the L parameter
            tensors to ``clip_norm / sqrt(L)``, at the same charge; or adaptive, with ``clip_norm`` as
            the first norm. Absent from a canonical spec that does not choose it.
        engine: how clipped sums are made: ``exact``, from integer vectors of each patient; ``fast``,
            by book-keeping in float64, clipped lower by all that rounding may add; ``auto``, fast
            where a node takes several steps in a round, exact where it takes one.
        augment: views of each row, or null for the row alone; absent from a canonical spec without.
        metrics: quality measures to release, or null for none.
        baseline: local-only comparison, or null for none.
        full_rounds: where a hospital accounts for its patients one by one, the rounds that a patient
            can take part in whose gradient is never shorter than the clip norm: the noise is for so many,
            whatever the number of rounds. Null for all rounds; absent from a canonical spec then.
    """

    epsilon: Annotated[Decimal, Field(gt=0, le=100, max_digits=9), Plain]
    clip_norm: Literal["auto"] | ClipNorm = "auto"
    clipping: Literal["flat", "per_layer"] | AdaptiveClipping = Field(
        default="flat", exclude_if=_is_flat
    )
    engine: Literal["auto", "exact", "fast"] = "auto"
    augment: Augment | None = Field(default=None, exclude_if=is_none)
    metrics: Metrics | None = Metrics()
    baseline: Baseline | None = None
    full_rounds: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        default=None, exclude_if=is_none
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.baseline is not None and self.metrics is None:
            raise ValueError("a baseline is measured with metrics: set privacy.metrics")
        if self.adaptive is not None and self.engine == "fast":
            raise ValueError(
                "adaptive clipping counts norms, which the fast engine does not know to the last bit; "
                "use engine exact or auto"
            )
        return self

    @property
    def adaptive(self) -> AdaptiveClipping | None:
        """How the clip norm adapts, or None where it is fixed."""
        return self.clipping if isinstance(self.clipping, AdaptiveClipping) else None

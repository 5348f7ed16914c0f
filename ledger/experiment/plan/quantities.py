"""A spec's own quantities as the plan holds them: integers, and choices among closed sets.

Sensitivities: clip norm times 2^20, rounded down, for a patient's gradient; sampling in units of 2^-32.
"""

from __future__ import annotations

from decimal import Decimal

from ledger.entries.operations.plans import Engine, Purpose
from ledger.errors import PlanRefused
from ledger.experiment.spec import ExperimentSpec, FedAvg
from ledger.rules.experiments import TRAINING
from privacy.events import FULL_BATCH, GRID


def clip_units(spec: ExperimentSpec) -> int:
    """The clip norm in grid units."""
    units = int(spec.clip_norm * GRID)
    if units < 1:
        raise PlanRefused("privacy.clip_norm", "it is below the grid of 2^-20")
    return units


def sampling_units(spec: ExperimentSpec) -> int:
    """The Poisson probability in units of 2^-32; 2^32 for the full batch."""
    rate = spec.federation.sampling
    return FULL_BATCH if rate == "full" else max(1, int(Decimal(rate) * FULL_BATCH))


def steps_per_round(spec: ExperimentSpec) -> int:
    """Noisy sums that one training round uses."""
    strategy = spec.federation.strategy
    return strategy.local_steps if isinstance(strategy, FedAvg) else 1


def training_rows(spec: ExperimentSpec, declared_rows: int) -> int:
    """Declared rows of a dataset with all views of them."""
    views = spec.privacy.augment
    return declared_rows * (1 if views is None else views.copies)


def engine_of(spec: ExperimentSpec, purpose: Purpose) -> Engine:
    """How the sums of a purpose are made; histograms are integers from the start."""
    if purpose not in TRAINING:
        return "exact"
    if spec.privacy.engine != "auto":
        return spec.privacy.engine
    several = purpose == "baseline_train" or isinstance(spec.federation.strategy, FedAvg)
    return "fast" if several else "exact"


def noise_shares(spec: ExperimentSpec) -> int:
    """Sites over which a release's noise is divided: the honest ones in the smallest sum.

    A sum has at least the quorum, which is at least the threshold t of all sites; so t - c of it are
    honest where c collude.
    """
    masked = spec.federation.secure_aggregation
    if masked is None or masked.noise == "local":
        return 1
    return spec.federation.quorum - masked.colluders


def refuse_auto(spec: ExperimentSpec) -> None:
    """What is proposed holds numbers only, so that its hash says what happens."""
    if spec.auto:
        raise PlanRefused(spec.auto[0], "it is `auto`, and a proposed spec gives the number")

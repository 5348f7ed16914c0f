"""How long and how fast to train: one public function of epsilon, sizes and parameters.

Private gradient descent is a walk: its length (rounds times learning rate) buys fit, and noise grows in
proportion to it. ``signal`` is how far the sum of the gradients stands above its noise, from what is
public before any data: declared sizes, the target epsilon in the cells' own lanes, the number of
parameters, and over how many honest hospitals the noise is divided. ``recipe`` walks a length in
proportion to the signal. So a researcher tunes nothing on patients, where each trial would be charged.

``LENGTH_PER_SIGNAL`` was fitted on synthetic tasks alone, by ``benchmarks.utility.fit``: the least multiple
within one standard error of the best. So was ``LOOSE_FROM``, by the same command's ``--clip``: a tight clip
bounds the noise and bends the model, and from that signal on the bend costs more. Noise goes with clip norm times
rate, so the rate is divided by what the clip norm is multiplied with. The limits are round numbers, settled with the
tables of ``benchmarks.utility`` in view. All are for one linear layer with a logistic loss, full batches,
flat clipping and inputs of about unit size, ``NETWORK_LENGTH_PER_SIGNAL`` for a hidden layer of 16 at ``TIGHT``. Everything else gets ``HOUSE``.

Not promised: the best settings for a table. Numbers written in a spec are left as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from ledger.errors import PlanRefused
from ledger.experiment.network_spec import LogisticRegression, Mlp, parameter_count
from ledger.experiment.plan.calibration import target_limit
from ledger.experiment.plan.quantities import noise_shares
from ledger.experiment.plan.shape import network_of
from ledger.experiment.plan.sites import Site, cells_of, narrowed
from ledger.experiment.privacy_spec import TIGHT, Baseline
from ledger.experiment.spec import ExperimentSpec, FedSgd, RegressionTask
from privacy.events import CHARGE_UNIT

LENGTH_PER_SIGNAL: Final = 4.0
NETWORK_LENGTH_PER_SIGNAL: Final = 10.0
"""For networks with hidden layers: of their many parameters few carry the signal."""
LEAST_LENGTH: Final = 10.0
MOST_LENGTH: Final = 1600.0
LEAST_ROUNDS: Final = 20
"""Below that, a spare round would cost more than a twentieth of the noise's budget."""
MOST_ROUNDS: Final = 100
FASTEST: Final = Decimal(16)
"""Learning rate at which logistic gradients of unit-size inputs, clipped to ``TIGHT``, still settle."""
MOST_RATE: Final = 1000.0
"""The greatest that a spec takes."""
LOOSE: Final = Decimal(1)
LOOSE_FROM: Final = 150.0
"""Signal from which ``LOOSE`` is the clip norm."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of private full-batch gradient descent.

    Attributes:
        rounds: noisy sums.
        learning_rate: step for each, on the mean of clipped gradients.
        clip_norm: L2 bound on one patient's gradient.
    """

    rounds: int
    learning_rate: Decimal
    clip_norm: Decimal = TIGHT


HOUSE: Final = Recipe(20, Decimal(2))
"""For models and losses that nothing was fitted for: short and slow, which noise cannot carry off."""


def signal(sizes: Sequence[int], mu2: Sequence[float], parameters: int, shares: int = 1) -> float:
    """Say how far a sum of clipped gradients stands above the noise of the whole run.

    Args:
        sizes: declared training units n of each site.
        mu2: what training may cost each site's patients in lane G.
        parameters: d of the model.
        shares: honest sites over which the noise is divided; 1 where each adds its own.

    Returns:
        sum(n) / sqrt(d * sum(1 / mu2) / shares); no unit, above 0.
    """
    variance = sum(1.0 / one for one in mu2) / shares
    return sum(sizes) / math.sqrt(parameters * variance)


def recipe(
    strength: float,
    rounds: int | None = None,
    rate: Decimal | None = None,
    clip: Decimal | None = None,
    per_signal: float = LENGTH_PER_SIGNAL,
) -> Recipe:
    """Choose rounds, learning rate and clip norm for a signal.

    Args:
        strength: of ``signal``.
        rounds: already decided, or None.
        rate: already decided, or None; for ``TIGHT``, unless the clip norm is decided as well.
        clip: already decided, or None.
        per_signal: length of the walk over the signal.
    """
    if clip is None:
        clip = LOOSE if rate is None and strength >= LOOSE_FROM else TIGHT
    length = min(max(per_signal * strength, LEAST_LENGTH), MOST_LENGTH)
    fastest = float(FASTEST * TIGHT / clip)
    length *= float(TIGHT / clip)
    if rounds is None:
        wanted = math.ceil(length / float(rate or fastest))
        rounds = min(max(wanted, LEAST_ROUNDS), MOST_ROUNDS)
    if rate is None:
        rate = _short(min(fastest, length / rounds, MOST_RATE))
    return Recipe(rounds, rate, clip)


def resolve(spec: ExperimentSpec, sites: Sequence[Site]) -> ExperimentSpec:
    """Put numbers where a spec says ``auto``, for these sites; a spec without ``auto`` stays the same.

    Raises:
        PlanRefused: the spec does not fit the sites.
    """
    if not spec.auto and spec.privacy.clip_norm != "auto":
        return spec
    federation = spec.federation
    rounds = None if federation.rounds == "auto" else federation.rounds
    written = federation.strategy.learning_rate
    rate = None if written == "auto" else written
    clip = None if spec.privacy.clip_norm == "auto" else spec.privacy.clip_norm
    per_signal = _fitted(spec)
    if isinstance(spec.model, Mlp):
        clip = clip or TIGHT
    if per_signal is not None:
        sizes, mu2, parameters = _public(spec, [narrowed(spec, site) for site in sites])
        strength = signal(sizes, mu2, parameters, noise_shares(spec))
        chosen = recipe(strength, rounds, rate, clip, per_signal)
    else:
        chosen = Recipe(
            rounds or HOUSE.rounds, rate or HOUSE.learning_rate, clip or HOUSE.clip_norm
        )
    strategy = federation.strategy.model_copy(update={"learning_rate": chosen.learning_rate})
    federation = federation.model_copy(update={"rounds": chosen.rounds, "strategy": strategy})
    privacy = spec.privacy.model_copy(update={"clip_norm": chosen.clip_norm})
    resolved = spec.model_copy(update={"federation": federation, "privacy": privacy})
    baseline = spec.privacy.baseline
    if (
        per_signal is not None
        and rate is None
        and baseline is not None
        and baseline.learning_rate is None
    ):
        weakest = min(
            signal([size], [one * float(baseline.share)], parameters)
            for size, one in zip(sizes, mu2, strict=True)
        )
        resolved = _with_baseline_rate(
            resolved, baseline, recipe(weakest, baseline.rounds, None, chosen.clip_norm, per_signal)
        )
    return resolved


def is_house(spec: ExperimentSpec) -> bool:
    """Whether what a spec leaves ``auto`` is taken from ``HOUSE``, for want of anything that was fitted."""
    return bool(spec.auto) and _fitted(spec) is None


def _fitted(spec: ExperimentSpec) -> float | None:
    """Length per signal for experiments of that kind; None where nothing was fitted."""
    fitted = (
        isinstance(spec.model, LogisticRegression | Mlp)
        and not (isinstance(spec.model, Mlp) and (spec.model.embeddings or spec.model.series))
        and not isinstance(spec.task, RegressionTask)
        and isinstance(spec.federation.strategy, FedSgd)
        and spec.federation.sampling == "full"
        and spec.privacy.clipping == "flat"
    )
    if not fitted:
        return None
    return NETWORK_LENGTH_PER_SIGNAL if isinstance(spec.model, Mlp) else LENGTH_PER_SIGNAL


def _public(spec: ExperimentSpec, sites: Sequence[Site]) -> tuple[list[int], list[float], int]:
    """Sizes, lane G for training, and parameters, before any noise is chosen."""
    parameters = parameter_count(network_of(spec, sites[0].schema))
    return (
        [site.terms.declared_train for site in sites],
        [_training_mu2(spec, site) for site in sites],
        parameters,
    )


def _training_mu2(spec: ExperimentSpec, site: Site) -> float:
    """The target in the strictest training cell, less the metrics' share where they read it too."""
    cells = cells_of(site, "train")
    if not cells:
        raise PlanRefused(f"dataset {site.terms.dataset}", "it has no cell of patients for train")
    metrics = spec.privacy.metrics
    least = math.inf
    for cell in cells:
        mu2 = target_limit(spec, site.cells[cell]).g_max / CHARGE_UNIT
        if metrics is not None and cell in cells_of(site, "evaluate"):
            mu2 *= 1.0 - float(metrics.share)
        least = min(least, mu2)
    if not least > 0.0:
        raise PlanRefused("privacy.epsilon", "it leaves nothing to train with")
    return least


def _with_baseline_rate(spec: ExperimentSpec, baseline: Baseline, chosen: Recipe) -> ExperimentSpec:
    local = baseline.model_copy(update={"learning_rate": chosen.learning_rate})
    privacy = spec.privacy.model_copy(update={"baseline": local})
    return spec.model_copy(update={"privacy": privacy})


def _short(rate: float) -> Decimal:
    """Three significant digits, so that a spec reads well; plain, as canonical documents ask."""
    return Decimal(format(Decimal(f"{rate:.3g}"), "f")).normalize() + Decimal(0)

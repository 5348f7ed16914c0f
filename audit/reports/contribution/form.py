"""The contribution report's shape: its parts as values, and its fixed words on methods and limits."""

from __future__ import annotations

from audit.reports.data_use_form import Header, Part

METHODS: dict[str, str] = {
    "shapley": (
        "Exact Shapley value of the cosine-alignment game over all coalitions of a round's updates "
        "(Xu et al., NeurIPS 2021, without their normalisation), averaged over training rounds; the "
        "values of a round add up to 1. It rewards pulling in the direction that all took together: "
        "a hospital with unusual patients can score low and be the one that was needed."
    ),
    "leave_one_out": (
        "How far the sum's direction turns without the hospital: one minus the cosine of the others' "
        "sum with the whole, averaged over rounds. Hospitals with alike patients replace one another "
        "and all score low."
    ),
    "alignment": "Cosine of the hospital's update with the sum, averaged over rounds.",
    "norm_share": (
        "The update's length over the sum of all lengths, averaged over rounds. Noise has length "
        "too: see the share of it that is expected to be noise."
    ),
    "noise_share": (
        "Expected share of the update's squared length that is privacy noise: noise variance times "
        "the number of parameters over the squared length. Near 1 the other figures are mostly "
        "noise."
    ),
    "lift": (
        "Measured quality of the federated model on this hospital's test patients, less that of a "
        "model of its own patients alone, both read from noisy histograms that were charged. The "
        "intervals hold sampling and noise at 95 %, to first order; not the width of a bin."
    ),
}
NOT_AVAILABLE = "not available under secure aggregation: only sums over hospitals are known"
LIMITS: tuple[str, ...] = (
    "Contribution to this model, by its direction; not the worth of the data, and not the care that "
    "went into it.",
    "Updates carry privacy noise. The spread over rounds shows how much of a difference is noise; "
    "rounds build on one another, so it is no strict confidence interval.",
    "A hospital that sends a vector of its own making can shape these figures. They describe what "
    "was summed, not how it came about.",
    "No figure here justifies a payment by itself.",
)


class Figure(Part):
    """A value with its spread, or null with the reason.

    Attributes:
        low, high: mean minus and plus 1.96 standard errors over rounds, or a 95 % interval.
        rounds: how many rounds it rests on; 0 for a single measurement.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    rounds: int = 0
    reason: str | None = None


class Quality(Part):
    """Measures of one model on one hospital's test patients, by name."""

    federated: dict[str, Figure] | None
    local: dict[str, Figure] | None
    lift: dict[str, Figure] | None
    reason: str | None


class SiteContribution(Part):
    """One hospital's figures.

    Attributes:
        rounds: that it served, in words, as the spec counts them.
        rounds_trained, rounds_measured: their numbers, training apart from evaluation and baseline.
        times_asked: attempts at rounds of any kind whose cohort named it.
        times_left_out, times_void: answers that did not count.
    """

    dataset: str
    hospital: str
    declared_patients: int
    declared_test: int
    weight: int
    rounds: str
    rounds_trained: int
    rounds_measured: int
    times_asked: int
    times_left_out: int
    times_void: int
    shapley: Figure
    leave_one_out: Figure
    alignment: Figure
    norm_share: Figure
    noise_share: Figure
    shapley_by_round: tuple[tuple[int, float], ...]
    quality: Quality


class ContributionReport(Part):
    """The whole report on one experiment."""

    header: Header
    experiment: str
    name: str
    title: str
    outcome: str
    strategy: str
    rounds: int
    parameters: int
    sites: tuple[SiteContribution, ...]
    pooled_federated: dict[str, Figure] | None
    pooled_local: dict[str, Figure] | None
    pooled_reason: str | None
    methods: dict[str, str]
    limits: tuple[str, ...]

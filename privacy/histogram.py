"""Releasing metrics as noisy score histograms, and reading metrics out of them.

A test set leaves a hospital as one vector of counts. Every patient adds one vector of L2 norm at
most 1 (several rows of a patient are averaged), so the vector is a Gaussian event of sensitivity
``GRID``; AUC, calibration, accuracy and errors are post-processing and cost nothing more. Vectors
of several hospitals add up before they are read.

* **binary**: bins of the score in [0, 1] for each true class; index = class * bins + bin.
* **multiclass**: bins of the winning probability for each (true, predicted) pair;
  index = (true * classes + predicted) * bins + bin.
* **regression**: bins of the signed error over the declared target range, in [-1, 1], with edges at
  signed squares, so that bins are narrow where errors are small.

How many bins: noise in the AUC grows with the square root of the bins, the width of a bin costs
little. Mean error by noise of sd 3.2 patients a bin, with 8 / 16 / 32 bins: 0.033 / 0.047 / 0.061 at
254 patients, 0.011 / 0.015 / 0.024 at 740; sd 1: a third of that. Clamping negative counts or
projecting onto non-negative ones was tried on the same draws: the mean error hardly changes and
becomes a bias of the AUC (by as much as -.26 at small sites), so the interval would be wrong.

Promised: ``encode`` never raises over the values of rows and its result moves by at most ``GRID``
in L2 norm when one patient is replaced by nothing. Noisy counts may be negative: they are used as
they are, because clamping each would bias every sum upwards; only finished measures are clipped to
their range, and a total that the noise drowns gives null with the reason. Intervals cover noise
and sampling at 95 %, to first order; they do not cover the width of a bin (state the bins beside
the figure). Not promised: a floor on how few patients are reported; that is the caller's policy,
on declared counts (``MIN_DECLARED_PATIENTS``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, assert_never

import numpy as np
import numpy.typing as npt

from privacy.errors import InvalidParameter
from privacy.events import GRID

Task = Literal["binary", "multiclass", "regression"]
Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

MIN_DECLARED_PATIENTS: Final = 50
"""Below this many declared test patients a single site's own metric is not shown."""

MAX_CELLS: Final = 65_536
_DROWNED: Final = 3.0
_Z95: Final = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Layout:
    """Which count stands where.

    Attributes:
        task: what the vector describes.
        classes: 2 for binary, k for multiclass, 1 for regression.
        bins: bins of score, confidence or error; even where one half must be told from the other.
    """

    task: Task
    classes: int
    bins: int

    @property
    def size(self) -> int:
        """Length of the vector."""
        groups = {"binary": 2, "multiclass": self.classes**2, "regression": 1}
        return groups[self.task] * self.bins


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure with its 95 % interval, or null with the reason.

    Attributes:
        value: the estimate, or None.
        low: lower end of the interval, or None.
        high: upper end of the interval, or None.
        reason: why there is no value, or None.
    """

    value: float | None
    low: float | None
    high: float | None
    reason: str | None = None


def layout(task: Task, classes: int, bins: int) -> Layout:
    """Lay out a vector.

    Args:
        task: the kind of prediction.
        classes: 2 for binary, at least 2 for multiclass, 1 for regression.
        bins: at least 2, and even for binary (so that 0.5 is an edge) and regression (so is 0).

    Raises:
        InvalidParameter: the combination makes no sense or has more than 65,536 cells.
    """
    expected = {"binary": classes == 2, "multiclass": classes >= 2, "regression": classes == 1}
    if task not in expected or not expected[task]:
        raise InvalidParameter(
            f"task {task!r} with {classes} classes: use 2 for binary, 2 or more for multiclass, "
            "1 for regression"
        )
    if bins < 2 or (task != "multiclass" and bins % 2):
        raise InvalidParameter(
            f"bins = {bins} for {task}: use at least 2, and an even number outside multiclass"
        )
    made = Layout(task, classes, bins)
    if made.size > MAX_CELLS:
        raise InvalidParameter(
            f"{made.size} cells are more than {MAX_CELLS}; use fewer bins or classes"
        )
    return made


def encode(
    layout: Layout,
    scores: Floats,
    targets: npt.NDArray[np.generic],
    groups: npt.NDArray[np.generic] | None = None,
) -> Counts:
    """Sum every patient's vector, in grid units.

    A row whose score is not finite or whose target is no class adds nothing, but still counts
    among its patient's rows: a refusal here would tell something about the rows.

    Args:
        layout: where the counts go.
        scores: probabilities in [0, 1], shape [n, k] for multiclass; [n] or [n, 1] for binary
            (of class 1) and for regression (predictions over the declared target range).
        targets: shape [n]; class numbers 0 .. k-1, or targets over the declared target range.
        groups: patient of each row, shape [n]; None when every row is a patient.

    Returns:
        int64 vector of shape [layout.size]; 1.0 patient is 2^20 units, truncated toward zero.

    Raises:
        InvalidParameter: the shapes do not belong together (shapes follow from the
            declared schema, not from the values of rows).
    """
    rows = int(targets.shape[0]) if targets.ndim == 1 else -1
    wide = layout.classes if layout.task == "multiclass" else 1
    table = np.asarray(scores, dtype=np.float64)
    table = table[:, None] if table.ndim == 1 else table
    if rows < 0 or table.shape != (rows, wide) or (groups is not None and groups.shape != (rows,)):
        raise InvalidParameter(
            f"scores {np.shape(scores)}, targets {targets.shape} and groups "
            f"{None if groups is None else groups.shape} do not fit {layout.task}: "
            f"want scores [n, {wide}], targets [n], groups [n] or None"
        )
    cells = _cells(layout, table, targets.astype(np.float64))
    if groups is None:
        return np.bincount(cells[cells >= 0], minlength=layout.size).astype(np.int64) * GRID
    _, patient, of_patient = np.unique(groups, return_inverse=True, return_counts=True)
    used = cells >= 0
    pairs, times = np.unique(
        np.stack([patient[used], cells[used]], axis=1), axis=0, return_counts=True
    )
    # floor(c * GRID / m) per cell: squares sum to at most (GRID / m)^2 * sum c^2 <= GRID^2.
    shares = times.astype(np.int64) * GRID // of_patient[pairs[:, 0]]
    vector = np.zeros(layout.size, dtype=np.int64)
    np.add.at(vector, pairs[:, 1], shares)
    return vector


def measures(
    layout: Layout, vector: Counts, noise_sd: int, contributors: int
) -> dict[str, Measure]:
    """Read the measures of a task out of a (summed) noisy vector.

    Args:
        layout: where the counts stand.
        vector: int64, shape [layout.size], grid units.
        noise_sd: sd of the noise in each contributor's vector, grid units; 0 for none.
        contributors: how many vectors with independent noise were added up, >= 1.

    Returns:
        binary: ``auc``, ``accuracy`` (threshold 0.5), ``brier``; multiclass: ``accuracy``;
        regression: ``mae``, ``rmse`` and ``bias`` as fractions of the declared target range.

    Raises:
        InvalidParameter: the vector does not fit the layout, or a number is out of range.
    """
    counts, sd = _read(layout, vector, noise_sd, contributors)
    if layout.task == "binary":
        centre = _score_centres(layout.bins)
        right = np.concatenate([centre < 0.5, centre > 0.5]).astype(np.float64)
        squared = np.concatenate([centre**2, (1.0 - centre) ** 2])
        return {
            "auc": _auc(counts[: layout.bins], counts[layout.bins :], sd),
            "accuracy": _mean(counts, right, sd, (0.0, 1.0)),
            "brier": _mean(counts, squared, sd, (0.0, 1.0)),
        }
    if layout.task == "multiclass":
        right = np.repeat(np.eye(layout.classes).ravel(), layout.bins)
        return {"accuracy": _mean(counts, right, sd, (0.0, 1.0))}
    if layout.task == "regression":
        centre, square = _error_moments(layout.bins)
        mse = _mean(counts, square, sd, (0.0, 1.0))
        return {
            "mae": _mean(counts, np.abs(centre), sd, (0.0, 1.0)),
            "rmse": _root(mse),
            "bias": _mean(counts, centre, sd, (-1.0, 1.0)),
        }
    assert_never(layout.task)


def calibration(
    layout: Layout, vector: Counts, noise_sd: int, contributors: int
) -> tuple[Measure, ...]:
    """Read the observed rate of class 1 in each score bin of a binary vector; one per bin.

    Raises:
        InvalidParameter: the task is not binary, or as for ``measures``.
    """
    if layout.task != "binary":
        raise InvalidParameter(f"calibration is read from binary vectors, not {layout.task}")
    counts, sd = _read(layout, vector, noise_sd, contributors)
    negative, positive = counts[: layout.bins], counts[layout.bins :]
    outcome = np.array([0.0, 1.0])
    return tuple(
        _mean(np.array(pair), outcome, sd, (0.0, 1.0))
        for pair in zip(negative, positive, strict=True)
    )


def confusion(
    layout: Layout, vector: Counts, noise_sd: int, contributors: int
) -> tuple[tuple[Measure, ...], ...]:
    """Read the share of each predicted class (column) among each true class (row).

    For binary the prediction is score >= 0.5.

    Raises:
        InvalidParameter: the task is regression, or as for ``measures``.
    """
    if layout.task == "regression":
        raise InvalidParameter("a regression vector has no confusion table")
    counts, sd = _read(layout, vector, noise_sd, contributors)
    k = layout.classes
    cells_each = layout.bins // 2 if layout.task == "binary" else layout.bins
    by_true = counts.reshape(k, k * cells_each)
    chosen = np.repeat(np.eye(k), cells_each, axis=1)
    return tuple(tuple(_mean(row, column, sd, (0.0, 1.0)) for column in chosen) for row in by_true)


def _cells(layout: Layout, scores: Floats, targets: Floats) -> npt.NDArray[np.int64]:
    """Find the cell of each row, -1 for a row that adds nothing."""
    usable = np.isfinite(scores).all(axis=1) & np.isfinite(targets)
    safe = np.where(usable[:, None], scores, 0.0)
    target = np.where(usable, targets, 0.0)
    bins = layout.bins
    if layout.task == "regression":
        with np.errstate(over="ignore"):
            error = np.clip(safe[:, 0] - target, -1.0, 1.0)
        place = np.searchsorted(_error_edges(bins)[1:-1], error, side="right")
        return np.where(usable, place, -1).astype(np.int64)
    usable &= (target >= 0.0) & (target < layout.classes) & (target == np.floor(target))
    true = np.where(usable, target, 0.0).astype(np.int64)
    if layout.task == "binary":
        return np.where(usable, true * bins + _score_bin(safe[:, 0], bins), -1)
    predicted = np.argmax(safe, axis=1)
    confidence = _score_bin(np.max(safe, axis=1), bins)
    return np.where(usable, (true * layout.classes + predicted) * bins + confidence, -1)


def _score_bin(score: Floats, bins: int) -> npt.NDArray[np.int64]:
    return np.minimum((np.clip(score, 0.0, 1.0) * bins).astype(np.int64), bins - 1)


def _score_centres(bins: int) -> Floats:
    return (np.arange(bins, dtype=np.float64) + 0.5) / bins


def _error_edges(bins: int) -> Floats:
    t = np.linspace(-1.0, 1.0, bins + 1)
    return np.sign(t) * t**2


def _error_moments(bins: int) -> tuple[Floats, Floats]:
    """Mean and mean square of an error spread evenly over each bin."""
    edges = _error_edges(bins)
    low, high = edges[:-1], edges[1:]
    return (low + high) / 2.0, (low * low + low * high + high * high) / 3.0


def _read(layout: Layout, vector: Counts, noise_sd: int, contributors: int) -> tuple[Floats, float]:
    """Convert to counts in patients, and the sd of the noise in each of them."""
    if vector.shape != (layout.size,):
        raise InvalidParameter(
            f"a vector of shape {vector.shape} does not fit {layout.task} with {layout.classes} "
            f"classes and {layout.bins} bins: want [{layout.size}]"
        )
    if noise_sd < 0 or contributors < 1:
        raise InvalidParameter(
            f"noise_sd = {noise_sd} must be >= 0 and contributors = {contributors} at least 1"
        )
    return vector.astype(np.float64) / GRID, noise_sd * math.sqrt(contributors) / GRID


def _mean(counts: Floats, values: Floats, sd: float, span: tuple[float, float]) -> Measure:
    """Weighted mean of ``values`` with noisy weights, by the delta method.

    For m = sum(c v) / T: noise variance sd^2 sum((v - m)^2) / T^2, sampling variance
    (sum(c v^2) / T - m^2) / T.
    """
    total = float(counts.sum())
    drowned = _drowned((total,), sd * math.sqrt(counts.size))
    if drowned is not None:
        return drowned
    mean = float(counts @ values) / total
    noise = sd**2 * float(((values - mean) ** 2).sum()) / total**2
    sampling = max(0.0, float(counts @ values**2) / total - mean**2) / total
    return _interval(mean, noise + sampling, span)


def _auc(negative: Floats, positive: Floats, sd: float) -> Measure:
    """Area under the ROC curve; pairs in one bin count half.

    Noise by the delta method over both histograms, sampling by Hanley & McNeil (1982, Radiology
    143), eq. 1 with the exponential model for Q1 and Q2.
    """
    n, p = float(negative.sum()), float(positive.sum())
    drowned = _drowned((n, p), sd * math.sqrt(negative.size))
    if drowned is not None:
        return drowned
    below = np.cumsum(negative) - negative / 2.0
    above = p - np.cumsum(positive) + positive / 2.0
    auc = float(positive @ below) / (n * p)
    by_positive = (below / n - auc) / p
    by_negative = (above / p - auc) / n
    noise = sd**2 * float(by_positive @ by_positive + by_negative @ by_negative)
    a = min(1.0, max(0.0, auc))
    q1, q2 = a / (2.0 - a), 2.0 * a * a / (1.0 + a)
    sampling = (a * (1.0 - a) + (p - 1.0) * (q1 - a * a) + (n - 1.0) * (q2 - a * a)) / (n * p)
    return _interval(auc, noise + max(0.0, sampling), (0.0, 1.0))


def _drowned(totals: Sequence[float], sd: float) -> Measure | None:
    """Null when a total is below one patient or three times the sd of its own noise."""
    least = min(totals)
    if least >= max(1.0, _DROWNED * sd):
        return None
    reason = (
        "no patients counted"
        if sd == 0.0
        else f"too few patients for the noise: a total must exceed {max(1.0, _DROWNED * sd):.0f} "
        "to be read"
    )
    return Measure(None, None, None, reason)


def _interval(value: float, variance: float, span: tuple[float, float]) -> Measure:
    half = _Z95 * math.sqrt(variance)
    low, high = span

    def clip(x: float) -> float:
        return min(high, max(low, x))

    return Measure(clip(value), clip(value - half), clip(value + half))


def _root(square: Measure) -> Measure:
    if square.value is None or square.low is None or square.high is None:
        return square
    return Measure(math.sqrt(square.value), math.sqrt(square.low), math.sqrt(square.high))

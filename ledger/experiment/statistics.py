"""Noisy statistics of a dataset: what is asked, which number stands where, and how to read them.

One vector leaves a hospital. For a number column it holds a histogram of ``bins`` equal bins over the
declared bounds, one count for missing values, and one sum of values mapped to [-1, 1]; for a category
column a count for each declared code and one for missing. Each patient adds the mean of his rows, so a
number column moves by at most sqrt(2) in L2 norm and a category column by 1: with a numbers and c
categories the sensitivity is sqrt(2 a + c). Everything below is post-processing and costs nothing more.

Promised: bounds, bins and codes are declared, never computed from rows. Intervals are of 95 % and cover the
noise alone: neither sampling nor the width of a bin. Noisy counts may be negative and are left so, but
quantiles are read from a cumulative sum made monotone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from ledger.entries.operations.datasets import CellCharge, CellRegistered
from ledger.errors import PlanRefused
from ledger.experiment.schema import CategoryColumn, ColumnName, NumberColumn, Schema
from privacy.calibrate import plan_noise
from privacy.errors import PrivacyError
from privacy.events import GRID, Gaussian
from privacy.filters import part_of_limit, step_charge

MAX_NUMBERS = 65_536
QUANTILES = (Fraction(1, 4), Fraction(1, 2), Fraction(3, 4))
_Z95 = 1.959963984540054
_LAPLACE95 = math.log(20.0) / math.sqrt(2.0)
"""95 % of a Laplace number lie within so many of its deviations, and more of a sum of several."""
_DROWNED = 3.0

Floats = npt.NDArray[np.float64]


class Question(BaseModel):
    """What is counted: a public document.

    Attributes:
        dataset: whose.
        columns: number and category columns, in this order.
        bins: equal bins of each number column.
        mechanism: ``gaussian``; or ``laplace``, pure epsilon, with quantiles of their own, absent from the
            document where it is not chosen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    consilium: Literal[1]
    dataset: str
    columns: Annotated[tuple[ColumnName, ...], Field(min_length=1, max_length=256)]
    bins: Annotated[int, Field(ge=2, le=256)] = 10
    mechanism: Annotated[
        Literal["gaussian", "laplace"], Field(exclude_if=lambda kind: kind == "gaussian")
    ] = "gaussian"


@dataclass(frozen=True, slots=True)
class Part:
    """One column's place in the vector: from ``start``, counts and then, for a number, the sum."""

    column: NumberColumn | CategoryColumn
    start: int
    counts: int

    @property
    def stop(self) -> int:
        """First place after it."""
        return self.start + self.counts + isinstance(self.column, NumberColumn)


@dataclass(frozen=True, slots=True)
class Shape:
    """Which number stands where.

    Attributes:
        parts: by column, in the question's order.
        size: length of the vector that is released: counts, sums and chosen places.
        sensitivity: bound on one patient's contribution to counts and sums, grid units, rounded up: in
            L2 norm, or for the Laplace mechanism in L1 norm.
        chosen: numbers at its end that are places of quantiles among their candidates.
        pure: whether it is released by mechanisms of pure epsilon.
    """

    parts: tuple[Part, ...]
    size: int
    sensitivity: int
    chosen: int = 0
    pure: bool = False

    @property
    def counted(self) -> int:
        """Counts and sums, which come first."""
        return self.size - self.chosen


@dataclass(frozen=True, slots=True)
class Figure:
    """An estimate with its 95 % interval of the noise; None where the noise drowns it."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class ColumnStatistics:
    """What is told of a column.

    Attributes:
        column: its name.
        unit: of its values; empty for a category.
        labels: of the counts: bins, or codes; the last is for missing values.
        counts: patients, each with its interval.
        mean: of patients with a value; None for a category.
        quantiles: quarter, median, three quarters; empty for a category.
    """

    column: str
    unit: str
    labels: tuple[str, ...]
    counts: tuple[Figure, ...]
    mean: Figure | None
    quantiles: tuple[Figure, ...]


def shape_of(question: Question, schema: Schema) -> Shape:
    """Lay out the vector of a question.

    Raises:
        PlanRefused: a column is not one to count, or is asked twice, or the vector is too long.
    """
    if len(set(question.columns)) != len(question.columns):
        raise PlanRefused("columns", "a column is listed twice")
    parts: list[Part] = []
    at = squares = 0
    for name in question.columns:
        column = schema.column(name)
        if not isinstance(column, NumberColumn | CategoryColumn):
            known = [c.name for c in schema.columns if isinstance(c, NumberColumn | CategoryColumn)]
            raise PlanRefused("columns", f"{name} is none of: {', '.join(known)}")
        number = isinstance(column, NumberColumn)
        kinds = question.bins if isinstance(column, NumberColumn) else len(column.values)
        part = Part(column, at, kinds + 1)
        parts.append(part)
        at = part.stop
        squares += 2 if number else 1
    if at > MAX_NUMBERS:
        raise PlanRefused("columns", f"{at} numbers are more than {MAX_NUMBERS}; ask for less")
    if question.mechanism == "laplace":
        numbers = sum(isinstance(part.column, NumberColumn) for part in parts)
        chosen = len(QUANTILES) * numbers
        return Shape(tuple(parts), at + chosen, squares * GRID, chosen, pure=True)
    return Shape(tuple(parts), at, math.isqrt(squares * GRID * GRID) + 1)


def noise_for(epsilon: Decimal, cells: Sequence[CellRegistered], sensitivity: int) -> int:
    """Least noise, grid units, with which one release costs every cell at most epsilon.

    Raises:
        PlanRefused: no noise does.
    """
    noise = 1
    try:
        for cell in cells:
            order = cell.limit.order_centi
            limit = part_of_limit(float(epsilon), cell.delta_e15 / 1e15, order)
            noise = max(noise, plan_noise(limit, (), sensitivity, 1))
    except PrivacyError as error:
        raise PlanRefused("epsilon", str(error)) from None
    return noise


def charges_of(
    cells: Mapping[str, CellRegistered], sensitivity: int, noise_sd: int
) -> tuple[CellCharge, ...]:
    """What one release costs each cell, cells in sorted order."""
    found = []
    for name, terms in sorted(cells.items()):
        charge = step_charge(Gaussian(sensitivity, noise_sd), terms.limit.order_centi)
        found.append(CellCharge(cell=name, g=charge.g, r=charge.r))
    return tuple(found)


def estimates(
    shape: Shape, vector: npt.NDArray[np.int64], noise_sd: int, bins: int
) -> tuple[ColumnStatistics, ...]:
    """Read a released vector.

    Args:
        shape: of the question.
        vector: int64 [shape.size], grid units.
        noise_sd: of each number, grid units.
        bins: of the question.
    """
    values: Floats = vector[: shape.counted].astype(np.float64) / GRID
    if not shape.pure:
        noise = Noise(noise_sd / GRID, _Z95)
        return tuple(_read(p, values[p.start : p.stop], noise, bins, ()) for p in shape.parts)
    noise = Noise(math.sqrt(2.0) * noise_sd / GRID, _LAPLACE95)
    places = iter(vector[shape.counted :])
    found = []
    for part in shape.parts:
        own: tuple[int, ...] = ()
        if isinstance(part.column, NumberColumn):
            own = tuple(min(max(0, int(next(places))), bins) for _ in QUANTILES)
        found.append(_read(part, values[part.start : part.stop], noise, bins, own))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Noise:
    """Deviation of the noise on a count, in patients, and how many of them a 95 % interval has at most."""

    sd: float
    z: float


def _read(
    part: Part, values: Floats, drawn: Noise, bins: int, places: tuple[int, ...]
) -> ColumnStatistics:
    noise, z = drawn.sd, drawn.z
    counts = values[: part.counts]
    told = tuple(Figure(float(c), float(c) - z * noise, float(c) + z * noise) for c in counts)
    column = part.column
    if isinstance(column, CategoryColumn):
        return ColumnStatistics(column.name, "", (*column.values, "missing"), told, None, ())
    low, high = float(column.low), float(column.high)
    edges = np.linspace(low, high, bins + 1)
    labels = tuple(f"{a:g}..{b:g}" for a, b in pairwise(edges))
    present = counts[:-1]
    total, spread = float(present.sum()), noise * math.sqrt(len(present))
    mean = Figure(None, None, None)
    quantiles = tuple(mean for _ in QUANTILES)
    if total > _DROWNED * spread:
        scaled = float(values[-1]) / total
        error = z * math.hypot(noise, scaled * spread) / total
        mean = Figure(*(_within(low, high, scaled + shift) for shift in (0.0, -error, error)))
        quantiles = tuple(_quantile(float(q), present, edges, noise) for q in QUANTILES)
    if places:
        quantiles = tuple(Figure(float(edges[place]), None, None) for place in places)
    return ColumnStatistics(column.name, column.unit, (*labels, "missing"), told, mean, quantiles)


def _quantile(q: float, counts: Floats, edges: Floats, noise: float) -> Figure:
    """Where the noisy cumulative share crosses q, and where it would with its error either way."""
    summed = np.concatenate([[0.0], np.cumsum(counts)])
    share = summed / summed[-1]
    behind = np.arange(len(summed), dtype=np.float64)
    # Of the share S_j / S_k: noise of j counts within and k - j counts after, to first order.
    ahead = len(counts) - behind
    error = _Z95 * noise * np.sqrt(behind * (1 - share) ** 2 + ahead * share**2) / summed[-1]

    def crossing(shares: Floats) -> float:
        rising = np.maximum.accumulate(np.clip(shares, 0.0, 1.0))
        return float(np.interp(q, rising, edges))

    value, low, high = crossing(share), crossing(share + error), crossing(share - error)
    return Figure(value, min(low, value), max(high, value))


def _within(low: float, high: float, scaled: float) -> float:
    return low + (min(1.0, max(-1.0, scaled)) + 1.0) / 2.0 * (high - low)

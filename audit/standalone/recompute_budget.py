"""Recompute what patients' privacy was spent on, with nothing but Python's standard library.

    python3 -I -S recompute_budget.py events.json

Reads a list of privacy events as ``consilium audit events`` writes it and does the arithmetic again,
from parameters to charges, from charges to sums, from sums to epsilon, and from promises to gates:

* lane G of a step is the ceiling of sensitivity^2 * 2^40 / noise^2 (mu-GDP; Dong, Roth & Su 2022);
* lane R of a step is its Renyi divergence at the cell's one order, in units of 2^-40: order * mu^2 / 2
  for a full batch, and by quadrature for a Poisson-sampled one (Mironov, Talwar & Zhang 2019);
* what is of pure epsilon costs what randomized response of that epsilon costs in both lanes;
* a cell's epsilon at its delta is the smaller of the two lanes': the Gaussian mechanism's exact one
  (Balle & Wang 2018, Theorem 8) and that of the Renyi divergence (Canonne, Kamath & Steinke 2020,
  Proposition 12);
* the gates are the largest sums with which half of delta keeps the promise.

Cells whose patients have accounts of their own inside the hospital are named with their promise, and
nothing of them is recomputed: a ledger does not hold what that takes.

It shares no line with the library that made the list. What it cannot tell: whether the list is all
that the ledger holds, and whether the noise was really drawn. The list names the ledger's size and
root; ``consilium audit verify`` answers the first question for them.

Exit codes: 0 all recomputed and kept, 1 something is refuted, 2 the file cannot be read.
"""

from __future__ import annotations

import json
import math
import sys
from statistics import NormalDist
from typing import Any, NoReturn

FORMAT = "consilium-privacy-events-v1"
UNIT = 2**40
FULL = 2**32
TOLERANCE = 1e-6
EPSILON_TOLERANCE = 1e-9
MOST_BYTES = 256 * 2**20
MOST_QUADRATURES = 10_000


class Refused(Exception):
    """The file is not such a list; the message says where."""


def main(arguments: list[str]) -> int:
    """Check one file and print what was found; one line of JSON at the end."""
    if len(arguments) != 1:
        print("usage: recompute_budget.py EVENTS.json", file=sys.stderr)
        return 2
    try:
        with open(arguments[0], "rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise Refused(f"it has more than {MOST_BYTES} bytes")
        document = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
        result = recompute(document)
    except (OSError, UnicodeDecodeError, RecursionError, ValueError, Refused) as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return 2
    for fault in result["faults"][:100]:
        print(f"REFUTED  {fault}")
    for cell in result["cells"]:
        print(
            f"{cell['cell']:<40} epsilon {cell['epsilon']:.9f} of {cell['limit']:g} "
            f"at delta {cell['delta']:.3g}"
        )
    for name, limit, delta in result["not_recomputable"]:
        print(
            f"{name:<40} not recomputable from here: each patient's account is kept inside the hospital; "
            f"promised to each: epsilon {limit:g} at delta {delta:.3g}"
        )
    print(
        json.dumps(
            {
                "events": result["events"],
                "mechanisms": result["mechanisms"],
                "largest_difference": result["largest_difference"],
                "faults": len(result["faults"]),
                "not_recomputable": len(result["not_recomputable"]),
            }
        )
    )
    return 1 if result["faults"] else 0


def recompute(document: Any) -> dict[str, Any]:
    """Recompute a list of privacy events.

    Args:
        document: the parsed JSON.

    Returns:
        ``faults`` (sentences), ``cells`` (name, epsilon, limit, delta), ``not_recomputable`` (name, promised
        epsilon, delta), ``events`` and
        ``mechanisms`` (counts) and ``largest_difference`` between a stated and the recomputed epsilon.

    Raises:
        Refused: it is not such a list.
    """
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise Refused(f"its format is not {FORMAT}")
    cells = [_cell(at, cell) for at, cell in enumerate(_list(document, "cells"))]
    apart = _list(document, "not_recomputable") if "not_recomputable" in document else []
    faults: list[str] = []
    charges: list[tuple[int, int, int]] = []
    kept: dict[tuple[int, ...], int] = {}
    for at, mechanism in enumerate(_list(document, "mechanisms")):
        where = f"mechanism {at}"
        numbers = [
            _whole(mechanism, name, where, most)
            for name, most in (
                ("sensitivity", 2**53 - 1),
                ("noise_sd", 2**53 - 1),
                ("sampling", FULL),
                ("order_centi", 1_000_000),
            )
        ]
        if min(numbers) < 1 or numbers[3] <= 100:
            raise Refused(f"{where}: a parameter is zero, or the order is not above 1")
        g, r = (_whole(mechanism, name, where, 2**300) for name in ("g", "r"))
        sensitivity, noise_sd, sampling, order_centi = numbers
        least_g = -(-(sensitivity**2 * UNIT) // noise_sd**2)
        slack, key = 0, tuple(numbers)
        parts = _pure_parts(mechanism, where)
        if parts:
            key = (*key, *(number for part in parts for number in part))
            least_g, kept[key] = _pure_costs(parts, order_centi / 100)
            slack = max(2, int(least_g * TOLERANCE))
            if sensitivity * 10**6 > parts[0][0] * noise_sd:
                faults.append(f"{where}: its Laplace noise is less than its epsilon needs")
        elif key not in kept:
            if sampling != FULL and len(kept) >= MOST_QUADRATURES:
                raise Refused(f"more than {MOST_QUADRATURES} kinds of mechanism")
            kept[key] = renyi(sensitivity, noise_sd, sampling, order_centi)
        least_r = kept[key]
        if g < least_g - slack:
            faults.append(f"{where} states {g} in lane G a step; its noise costs {least_g}")
        if r < least_r - max(2, least_r * TOLERANCE):
            faults.append(f"{where} states {r} in lane R a step; its noise costs {least_r}")
        charges.append((g, r, order_centi))
    sums = [[0, 0] for _ in cells]
    events = _list(document, "events")
    try:
        for cell, mechanism, steps in events:
            if type(steps) is not int or not 0 <= steps < 2**31 or cell < 0 or mechanism < 0:
                raise Refused(f"an event of {steps!r} steps on cell {cell!r}")
            g, r, order_centi = charges[mechanism]
            if order_centi != cells[cell]["order_centi"]:
                raise Refused(f"mechanism {mechanism} has another order than cell {cell}")
            total = sums[cell]
            total[0] += steps * g
            total[1] += steps * r
    except (TypeError, IndexError):
        raise Refused(
            "an event is [cell, mechanism, steps], by their places in the lists"
        ) from None
    found = []
    largest = 0.0
    for cell, (g, r) in zip(cells, sums, strict=True):
        name, delta, limit = cell["cell"], cell["delta_e15"] / 1e15, cell["epsilon_micro"] / 1e6
        if (g, r) != (cell["g"], cell["r"]):
            faults.append(
                f"cell {name}: its lanes hold {cell['g']}, {cell['r']}; its events sum to {g}, {r}"
            )
        faults += _gates(cell, delta, limit)
        if g > cell["g_max"] and r > cell["r_max"]:
            faults.append(f"cell {name}: {g} and {r} are more than both of its gates")
        epsilon = lanes_epsilon(g, r, cell["order_centi"] / 100, delta)
        largest = max(largest, abs(epsilon - cell["epsilon"]))
        if not abs(epsilon - cell["epsilon"]) <= EPSILON_TOLERANCE:
            faults.append(
                f"cell {name}: epsilon {cell['epsilon']!r} is stated; recomputed: {epsilon!r}"
            )
        if epsilon > limit * (1 + TOLERANCE):
            faults.append(f"cell {name}: epsilon {epsilon:.6f} is more than {limit:g}, as promised")
        found.append({"cell": name, "epsilon": epsilon, "limit": limit, "delta": delta})
    return {
        "faults": faults,
        "cells": found,
        "not_recomputable": [_promise(at, cell) for at, cell in enumerate(apart)],
        "events": len(events),
        "mechanisms": len(charges),
        "largest_difference": largest,
    }


def renyi(sensitivity: int, noise_sd: int, sampling: int, order_centi: int) -> int:
    """Lane R of one step: its Renyi divergence in units of 2^-40, not above the true one + 1 unit."""
    full = -(-(order_centi * sensitivity**2 * UNIT) // (200 * noise_sd**2))
    if sampling == FULL:
        return full
    mu, q, order = sensitivity / noise_sd, sampling / FULL, order_centi / 100
    # E[(mixture/normal)^order] - 1 by the trapezoidal rule: for an analytic integrand its error falls
    # exponentially with the step (Trefethen & Weideman 2014, Theorem 5.1); 40 nats are kept.
    strip = min(0.99 * math.pi / mu, 6.0)
    step = 2 * math.pi * strip / (strip * strip / 2 + 40)
    first, last = math.floor(-12 / step), math.ceil((12 + order * mu) / step)
    if last - first > 200_000:
        return full
    logs, small = [], []
    for k in range(first, last + 1):
        t = k * step
        weight = -t * t / 2 + math.log(step / math.sqrt(2 * math.pi))
        ratio = mu * t - mu * mu / 2
        top = max(math.log1p(-q), math.log(q) + ratio)
        mixed = top + math.log(math.exp(math.log1p(-q) - top) + math.exp(math.log(q) + ratio - top))
        logs.append(weight + order * mixed)
        if abs(ratio) < 0.5:
            u = q * math.expm1(ratio)
            small.append(math.exp(weight) * (math.expm1(order * math.log1p(u)) - order * u))
        elif weight + order * mixed < 700 and weight + ratio < 700:
            small.append(
                math.exp(weight + order * mixed)
                - math.exp(weight) * (1 - order * q)
                - order * q * math.exp(weight + ratio)
            )
    peak = max(logs)
    log_moment = peak + math.log(math.fsum(math.exp(value - peak) for value in logs))
    if log_moment < 1:
        log_moment = math.log1p(max(0.0, math.fsum(small)))
    return min(full, math.ceil(log_moment / (order - 1) * UNIT))


def _pure_parts(mechanism: Any, where: str) -> list[tuple[int, int]]:
    """Epsilon in millionths and number of each part of a release of pure epsilon; none for a Gaussian."""
    stated = mechanism.get("pure", [])
    if not isinstance(stated, list) or len(stated) > 2:
        raise Refused(f"{where}: its pure parts are no list of at most two")
    for part in stated:
        if not (isinstance(part, list) and len(part) == 2 and all(type(n) is int for n in part)):
            raise Refused(f"{where}: a pure part is [epsilon in millionths, number]")
        if not (1 <= part[0] <= 10**7 and 1 <= part[1] <= 1024):
            raise Refused(f"{where}: a pure part is out of range")
    return [(part[0], part[1]) for part in stated]


def _pure_costs(parts: list[tuple[int, int]], order: float) -> tuple[int, int]:
    """Both lanes of randomized response, which is as bad as pure epsilon can be.

    mu = 2 Phi^-1(e^epsilon / (1 + e^epsilon)); the Renyi divergence of order a is
    log(p^a (1-p)^(1-a) + (1-p)^a p^(1-a)) / (a - 1) with p = e^epsilon / (1 + e^epsilon).
    """
    g = r = 0
    for micro, count in parts:
        epsilon, less = micro / 10**6, order - 1
        mu = -2 * NormalDist().inv_cdf(1 / (1 + math.exp(epsilon)))
        over = math.expm1(less * epsilon) if order * epsilon < 1 else 0.0
        if order * epsilon < 1:
            over *= math.exp(-less * epsilon) * math.expm1(order * epsilon)
            moment = math.log1p(over / (1 + math.exp(epsilon)))
        else:
            tail = math.log1p(math.exp(-(order + less) * epsilon))
            moment = less * epsilon + tail - math.log1p(math.exp(-epsilon))
        g += count * math.ceil(mu * mu * UNIT)
        r += count * math.ceil(min(epsilon, moment / less) * UNIT)
    return g, r


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Delta of the Gaussian mechanism: Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu)."""
    near, far = epsilon / mu - mu / 2, epsilon / mu + mu / 2
    if near < 0:
        return _tail(near) - math.exp(-near * near / 2) * _scaled_tail(far)
    # e^epsilon phi(far) = phi(near): the difference is taken before the small common factor.
    return math.exp(-near * near / 2) * (_scaled_tail(near) - _scaled_tail(far))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Smallest epsilon at which mu-GDP implies (epsilon, delta)."""
    if mu == 0 or math.erf(mu / math.sqrt(8)) <= delta:
        return 0.0
    low, high = 0.0, mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta))
    while True:
        middle = (low + high) / 2
        if not low < middle < high:
            return high
        low, high = (low, middle) if gaussian_delta(mu, middle) <= delta else (middle, high)


def lanes_epsilon(g: int, r: int, order: float, delta: float) -> float:
    """Epsilon of a cell's sums: the smaller of the two lanes'."""
    if g == 0 and r == 0:
        return 0.0
    by_g = gaussian_epsilon(math.sqrt(g / UNIT), delta) if g else math.inf
    by_r = max(0.0, r / UNIT + _conversion(order, delta)) if r else math.inf
    return min(by_g, by_r)


def _gates(cell: dict[str, Any], delta: float, limit: float) -> list[str]:
    """The gates must not admit more than half of delta keeps."""
    if not (0 < delta < 1 and limit > 0):
        return [f"cell {cell['cell']}: its promise ({limit}, {delta}) is none"]
    half, order = delta / 2, cell["order_centi"] / 100
    faults = []
    if gaussian_delta(math.sqrt(cell["g_max"] / UNIT), limit) > half * (1 + TOLERANCE):
        faults.append(f"cell {cell['cell']}: its gate in lane G admits more than its promise")
    if cell["r_max"] / UNIT + _conversion(order, half) > limit * (1 + TOLERANCE):
        faults.append(f"cell {cell['cell']}: its gate in lane R admits more than its promise")
    return faults


def _conversion(order: float, delta: float) -> float:
    return math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)


def _tail(x: float) -> float:
    return math.erfc(x / math.sqrt(2)) / 2


def _scaled_tail(x: float) -> float:
    """e^(x^2/2) Phi(-x) for x >= 0, without underflow: a continued fraction where x is large."""
    if x < 5:
        return math.exp(x * x / 2) * _tail(x)
    fraction = x
    for k in range(120, 0, -1):
        fraction = x + k / fraction
    return 1 / (fraction * math.sqrt(2 * math.pi))


def _cell(at: int, cell: Any) -> dict[str, Any]:
    where = f"cell {at}"
    if not isinstance(cell, dict) or not isinstance(cell.get("cell"), str):
        raise Refused(f"{where}: it has no name")
    if not isinstance(cell.get("epsilon"), (int, float)):
        raise Refused(f"{where}: it states no epsilon")
    fields = {
        "epsilon_micro": 10**12,
        "delta_e15": 10**15,
        "order_centi": 1_000_000,
        "g_max": 2**300,
        "r_max": 2**300,
        "g": 2**300,
        "r": 2**300,
    }
    read = {name: _whole(cell, name, where, most) for name, most in fields.items()}
    if read["order_centi"] <= 100 or read["g_max"] < 1:
        raise Refused(f"{where}: its order is not above 1, or its gate is zero")
    return {**read, "cell": cell["cell"], "epsilon": float(cell["epsilon"])}


def _promise(at: int, cell: Any) -> tuple[str, float, float]:
    """A cell of which the list holds the promise alone."""
    where = f"cell {at} that is not recomputable"
    if not isinstance(cell, dict) or not isinstance(cell.get("cell"), str):
        raise Refused(f"{where}: it has no name")
    epsilon_micro = _whole(cell, "epsilon_micro", where, 10**12)
    return cell["cell"], epsilon_micro / 1e6, _whole(cell, "delta_e15", where, 10**15) / 1e15


def _whole(record: Any, name: str, where: str, most: int) -> int:
    """A whole number of a record; above 2^53 - 1 it is written as a string of digits."""
    value = record.get(name) if isinstance(record, dict) else None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 100:
        value = int(value)
    if type(value) is not int or not 0 <= value <= most:
        raise Refused(f"{where}: {name} must be a whole number of 0 .. {most}")
    return value


def _list(document: dict[str, Any], name: str) -> list[Any]:
    found = document.get(name)
    if not isinstance(found, list):
        raise Refused(f"it has no list of {name}")
    return found


def _no_constant(name: str) -> NoReturn:
    raise Refused(f"{name} is no number")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

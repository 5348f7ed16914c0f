"""Second opinions: other people's accountants on the same events.

* ``pld_epsilon``: privacy loss distributions (dp_accounting). An upper bound on any grid, the
  tightest number there is for a fixed list of events; an audit judges by it beside the closed form.
* ``rdp_epsilon_dp_accounting`` and ``opacus_epsilons``: shown, never judged. dp_accounting's RDP
  drops orders 1.1 to 1.7 of sampled events and is up to 10 % loose at 1.8; Opacus' GDP accountant
  is a central limit approximation that can under-estimate, and its PRV fails on some inputs.

None of these may gate adaptive requests (see ``filters``). All use the zero-out relation
(REPLACE_SPECIAL) where they know it; REPLACE_ONE would be another unit.

Nothing here is imported until it is called: dp_accounting takes a second, and Opacus brings torch,
so it runs in a process of its own.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from privacy.errors import CrossCheckFailed, InvalidParameter
from privacy.events import FULL_BATCH
from privacy.pure import Mechanism, PureEpsilon

WIDEST_INTERVAL: Final = 1e-3
FINEST_INTERVAL: Final = 1e-5
"""A finer grid costs seconds and memory; a coarser one than the rule asks only inflates epsilon."""

_OPACUS_ACCOUNTANTS: Final = ("rdp", "gdp", "prv")


def pld_epsilon(
    events: Sequence[Mechanism],
    delta: float,
    interval: float | None = None,
    *,
    replace_one: bool = False,
) -> float:
    """Epsilon of all events together at ``delta`` by privacy loss distributions.

    Args:
        events: any number; none gives 0.
        delta: in (0, 1).
        interval: grid of the privacy loss in nats; None chooses ``grid_interval``.
        replace_one: neighbours differ by one patient's rows replaced by any other's, instead of
            by nothing; a Gaussian release then costs as if its sensitivity were twice as large.

    Returns:
        An upper bound on epsilon; may be infinite.

    Raises:
        CrossCheckFailed: the accountant refused the events or gave no number.
        InvalidParameter: delta is out of range.
    """
    from dp_accounting.pld import PLDAccountant
    from dp_accounting.privacy_accountant import NeighboringRelation, UnsupportedEventError

    _require_delta(delta)
    steps = _merge(events)
    if not steps:
        return 0.0
    if any(isinstance(event, PureEpsilon) for event in events) and not replace_one:
        return _number("dp_accounting's PLD", _pld_with_pure(events, delta, interval))
    try:
        relation = (
            NeighboringRelation.REPLACE_ONE if replace_one else NeighboringRelation.REPLACE_SPECIAL
        )
        accountant = PLDAccountant(relation, interval or grid_interval(events))
        for event in _dp_events(steps):
            accountant.compose(event)
        epsilon = float(accountant.get_epsilon(delta))
    except (UnsupportedEventError, ValueError, ArithmeticError, MemoryError) as error:
        raise CrossCheckFailed(f"dp_accounting's PLD accountant failed: {error}") from error
    return _number("dp_accounting's PLD accountant", epsilon)


def _pld_with_pure(events: Sequence[Mechanism], delta: float, interval: float | None) -> float:
    """PLD of Gaussians beside mechanisms of pure epsilon, each as its randomized response."""
    from dp_accounting.pld.common import DifferentialPrivacyParameters
    from dp_accounting.pld.privacy_loss_distribution import (
        from_gaussian_mechanism,
        from_privacy_parameters,
    )

    grid = interval or grid_interval(events)
    total = None
    try:
        for event in events:
            if isinstance(event, PureEpsilon) and event.steps:
                promise = DifferentialPrivacyParameters(event.epsilon, 0.0)
                one = from_privacy_parameters(promise, value_discretization_interval=grid)
                more = one.self_compose(event.steps)
                total = more if total is None else total.compose(more)
        for (multiplier, q), count in _merge([e for e in events if not isinstance(e, PureEpsilon)]):
            whole = q == 1.0
            more = from_gaussian_mechanism(
                multiplier / math.sqrt(count) if whole else multiplier,
                value_discretization_interval=grid,
                sampling_prob=q,
            )
            more = more if whole else more.self_compose(count)
            total = more if total is None else total.compose(more)
    except (ValueError, ArithmeticError, MemoryError) as error:
        raise CrossCheckFailed(f"dp_accounting's PLD failed: {error}") from error
    return 0.0 if total is None else float(total.get_epsilon_for_delta(delta))


def grid_interval(events: Sequence[Mechanism]) -> float:
    """Choose a loss grid: at most 1e-3 and a tenth of the smallest event's loss sd, floor 1e-5.

    Full-batch steps of one kind compose exactly before they meet the grid, so their sd is that
    of all steps together; sampled steps meet it one by one.
    """
    smallest = min(
        (_loss_sd(noise_multiplier, q, count) for (noise_multiplier, q), count in _merge(events)),
        default=math.inf,
    )
    return max(FINEST_INTERVAL, min(WIDEST_INTERVAL, smallest / 10.0))


def rdp_epsilon_dp_accounting(events: Sequence[Mechanism], delta: float) -> float:
    """Epsilon of all events together at ``delta`` by dp_accounting's Renyi accountant.

    Raises:
        CrossCheckFailed: the accountant refused the events or gave no number.
        InvalidParameter: delta is out of range.
    """
    from dp_accounting.privacy_accountant import NeighboringRelation, UnsupportedEventError
    from dp_accounting.rdp import RdpAccountant
    from dp_accounting.rdp.rdp_privacy_accountant import DEFAULT_RDP_ORDERS

    _require_delta(delta)
    steps = _merge(events)
    if not steps:
        return 0.0
    sampled = any(q < 1.0 for (_, q), _ in steps)
    # Orders below 1.8 of sampled events "fail to converge" there and are dropped with a warning.
    orders = [order for order in DEFAULT_RDP_ORDERS if order >= 1.8 or not sampled]
    try:
        accountant = RdpAccountant(orders, neighboring_relation=NeighboringRelation.REPLACE_SPECIAL)
        for event in _dp_events(steps):
            accountant.compose(event)
        epsilon = float(accountant.get_epsilon(delta))
    except (UnsupportedEventError, ValueError, ArithmeticError) as error:
        raise CrossCheckFailed(f"dp_accounting's RDP accountant failed: {error}") from error
    return _number("dp_accounting's RDP accountant", epsilon)


def opacus_epsilons(
    events: Sequence[Mechanism], delta: float, timeout_s: float = 120.0
) -> dict[str, float | str]:
    """Epsilons by Opacus' three accountants, computed in a separate process.

    Args:
        events: any number; none gives 0.
        delta: in (0, 1).
        timeout_s: after how long to give up; PRV takes seconds per kind of event.

    Returns:
        For each of ``rdp``, ``gdp`` and ``prv`` a number, or the reason why there is none
        (a string): Opacus is not installed, the accountant cannot take these events, ...

    Raises:
        InvalidParameter: delta is out of range.
    """
    _require_delta(delta)
    steps = _merge(events)
    if not steps:
        return dict.fromkeys(_OPACUS_ACCOUNTANTS, 0.0)
    request = {
        "delta": delta,
        "steps": [[noise_multiplier, q, count] for (noise_multiplier, q), count in steps],
    }
    try:
        probe = subprocess.run(
            [sys.executable, "-m", "privacy.opacus_probe"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=True,
            cwd=Path(__file__).resolve().parent.parent,
        )
        answer = json.loads(probe.stdout)
    except subprocess.TimeoutExpired:
        return dict.fromkeys(_OPACUS_ACCOUNTANTS, f"no answer within {timeout_s:g} s")
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["no message"]
        return dict.fromkeys(_OPACUS_ACCOUNTANTS, f"the probe failed: {lines[-1][:200]}")
    except (OSError, ValueError) as error:
        return dict.fromkeys(_OPACUS_ACCOUNTANTS, f"the probe could not be read: {error}")
    return {
        name: answer[name] if isinstance(answer.get(name), float | str) else "no answer"
        for name in _OPACUS_ACCOUNTANTS
    }


_Step = tuple[tuple[float, float], int]
"""((noise multiplier, q), how many)."""


def _merge(events: Sequence[Mechanism]) -> list[_Step]:
    """Add up the steps of equal mechanisms; events without steps vanish."""
    count: Counter[tuple[float, float]] = Counter()
    for event in events:
        if event.steps:
            kind = (event.noise_sd / event.sensitivity, event.sampling / FULL_BATCH)
            count[kind] += event.steps
    return list(count.items())


def _dp_events(steps: Sequence[_Step]) -> list[object]:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent

    return [
        SelfComposedDpEvent(
            GaussianDpEvent(noise_multiplier)
            if q == 1.0
            else PoissonSampledDpEvent(q, GaussianDpEvent(noise_multiplier)),
            count,
        )
        for (noise_multiplier, q), count in steps
    ]


def _loss_sd(noise_multiplier: float, q: float, count: int) -> float:
    mu = 1.0 / noise_multiplier
    if q == 1.0:
        return mu * math.sqrt(count)
    t = np.linspace(-8.0, 8.0, 1601)
    weight = np.exp(-0.5 * t * t)
    weight /= weight.sum()
    loss = np.logaddexp(math.log1p(-q), math.log(q) + mu * t - 0.5 * mu * mu)
    return float(np.sqrt(weight @ (loss - weight @ loss) ** 2))


def _number(who: str, epsilon: float) -> float:
    if math.isnan(epsilon):
        raise CrossCheckFailed(f"{who} answered NaN; check the events' noise multipliers")
    return epsilon


def _require_delta(delta: float) -> None:
    if not 0.0 < delta < 1.0:
        raise InvalidParameter(f"delta = {delta} must lie in (0, 1)")

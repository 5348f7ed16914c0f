"""What a node tells its own hospital about itself: federation, log, datasets, budgets, work.

Declared sizes only, never counted ones; nothing depends on rows. `render_metrics` writes the same in
Prometheus' text format (version 0.0.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ledger.rules.individual import is_individual
from ledger.rules.state import State
from node.register.accounts import PrivateCell, PrivateView
from privacy.calibrate import epsilon_of


class DatasetStatus(BaseModel):
    """A dataset as the log has it.

    ``usable_here``: this home registered it last, and a file lies where it was then; whether it has the
    same bytes is seen when it is read.
    """

    model_config = ConfigDict(frozen=True)

    dataset: str
    declared_train: int
    declared_test: int
    cells: tuple[str, ...]
    withdrawn: bool
    usable_here: bool


class CellStatus(BaseModel):
    """A cell's promise and what was reserved or spent of it; ``refresh_days`` where it renews."""

    model_config = ConfigDict(frozen=True)

    cell: str
    epsilon_promised: float
    delta: float
    epsilon_spent: float
    refresh_days: int | None = None


class NodeStatus(BaseModel):
    """Everything at a glance. ``healthy`` is false when work has stopped for good."""

    model_config = ConfigDict(frozen=True)

    handle: str
    organisation: str
    federation: str
    federation_name: str
    healthy: bool
    coordinator_reached: bool
    problem: str | None
    fork: str | None
    broken_promise: str | None
    self_test_failed: str | None
    size: int
    final_size: int
    witnesses: tuple[str, ...]
    independently_witnessed: bool
    quorum_trouble: str | None
    vouched_since_restart: bool
    paused: bool
    working_on: tuple[str, ...]
    waiting: tuple[str, ...]
    datasets: tuple[DatasetStatus, ...]
    cells: tuple[CellStatus, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """Counters since the service started."""

    rounds_done: int
    train_seconds: float


INDEPENDENT = 3
"""Witnesses below which a rewritten log might go unnoticed."""


def datasets_of(state: State, view: PrivateView, me: str) -> tuple[DatasetStatus, ...]:
    """The datasets that this node registered."""
    return tuple(
        DatasetStatus(
            dataset=name,
            declared_train=dataset.terms.declared_train,
            declared_test=dataset.terms.declared_test,
            cells=tuple(use.cell for use in dataset.terms.cells),
            withdrawn=dataset.withdrawn_at is not None,
            usable_here=name in view.datasets
            and view.datasets[name].registration == dataset.registration
            and Path(view.datasets[name].path).is_file(),
        )
        for name, dataset in sorted(state.datasets.items())
        if dataset.node == me
    )


def cells_of(view: PrivateView, now_ms: int) -> tuple[CellStatus, ...]:
    """The hospital's cells, by name; where a promise renews, in the period of this hospital's clock."""
    return tuple(_cell(cell.now(now_ms)) for _, cell in sorted(view.cells.items()))


def render_metrics(status: NodeStatus, work: Work) -> str:
    """Prometheus' text format."""
    lines = [
        *_metric("consilium_node_healthy", "gauge", "1 while the node can work", status.healthy),
        *_metric(
            "consilium_node_coordinator_reached",
            "gauge",
            "1 while the coordinator answers",
            status.coordinator_reached,
        ),
        *_metric("consilium_node_log_size", "gauge", "entries in the own copy", status.size),
        *_metric(
            "consilium_node_log_final_size",
            "gauge",
            "entries under the newest final checkpoint",
            status.final_size,
        ),
        *_metric("consilium_node_paused", "gauge", "1 while paused", status.paused),
        *_metric(
            "consilium_node_rounds_total",
            "counter",
            "updates handed over since start",
            work.rounds_done,
        ),
    ]
    for name, help_text in (("promised", "lifetime promise"), ("spent", "reserved or spent")):
        metric = f"consilium_node_cell_epsilon_{name}"
        lines += [f"# HELP {metric} epsilon of a cell: {help_text}", f"# TYPE {metric} gauge"]
        for cell in status.cells:
            value = cell.epsilon_promised if name == "promised" else cell.epsilon_spent
            lines.append(f'{metric}{{cell="{cell.cell}"}} {value:.6f}')
    return "\n".join(lines) + "\n"


def _cell(cell: PrivateCell) -> CellStatus:
    terms, spend = cell.terms, cell.spend
    delta = terms.delta_e15 / 10**15
    spent = 0.0
    if spend.g or spend.r:
        spent = epsilon_of(spend.g, spend.r, terms.limit.order_centi, delta)
    if is_individual(terms):
        spent = (
            terms.epsilon_micro / 10**6
        )  # the most of any patient; who has what left is told to nobody
    return CellStatus(
        cell=terms.cell,
        epsilon_promised=terms.epsilon_micro / 10**6,
        delta=delta,
        epsilon_spent=round(spent, 6),
        refresh_days=None if cell.periods is None else cell.periods.days,
    )


def _metric(name: str, kind: str, help_text: str, value: bool | int | float) -> tuple[str, ...]:
    number = int(value) if isinstance(value, bool) else value
    return (f"# HELP {name} {help_text}", f"# TYPE {name} {kind}", f"{name} {number}")

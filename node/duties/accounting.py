"""What a node does to its accounts, in the register first and then in words: reserve, adopt, settle, close.

Promise: what must be durable before it is said is durable when a function returns: the charge before the
reservation, the closed intents before the settlement.
"""

from __future__ import annotations

import structlog
from immutables import Map

from ledger.entries.operations.budgets import BudgetReserved, BudgetSettled
from ledger.entries.operations.datasets import CellCharge
from ledger.entries.operations.plans import Purpose, SitePlan
from ledger.exchange.home import Membership
from ledger.rules.budget import refunds
from ledger.rules.experiments import site_of
from node.duties.duty import Adopt, CloseAccount, Reserve, Settle
from node.duties.individual import steps_of_patients
from node.register.accounts import stated
from node.register.private import PrivateRegister
from privacy.errors import BudgetExceeded

_log = structlog.get_logger("node")


class Accounting:
    """One hospital's accounts over its register and its copy of the log."""

    def __init__(self, membership: Membership, private: PrivateRegister) -> None:
        self._replica = membership.replica
        self._private = private

    def reserve(self, duty: Reserve) -> BudgetReserved | None:
        """Charge the register; what to say of it, or None where a cell cannot pay any more."""
        site = site_of(self._replica.state.experiments[duty.experiment].plan, duty.dataset)
        try:
            self._private.reserve(
                self._replica.federation,
                duty.experiment,
                duty.dataset,
                duty.charges,
                {} if site is None else steps_of_patients(site),
            )
        except BudgetExceeded:
            return None  # another dataset of the same cell has just taken it
        return BudgetReserved(
            type="budget.reserved",
            experiment=duty.experiment,
            dataset=duty.dataset,
            charges=duty.charges,
        )

    def adopt(self, duty: Adopt) -> None:
        """Count what the log has and the register cannot account for."""
        experiment = duty.experiment[:12]
        _log.error("reservation.unaccounted", experiment=experiment, dataset=duty.dataset)
        experiments = self._replica.state.experiments
        plan = experiments[duty.experiment].plan if duty.experiment in experiments else None
        site = None if plan is None else site_of(plan, duty.dataset)
        given: tuple[CellCharge, ...] | None = ()  # of statistics nothing is given back
        if plan is not None:
            given = None if duty.used is None or site is None else _given_back(site, duty.used)
        self._private.adopt(
            self._replica.federation, duty.experiment, duty.dataset, duty.charges, given
        )

    def settle(self, duty: Settle) -> BudgetSettled:
        """Close the intents; what to say of them."""
        key = (duty.experiment, duty.dataset)
        lost = self._private.view.charges.get(key) == "lost"
        self._private.close_intents(*key)
        used = duty.used if lost else self._private.view.used_by(key)
        return BudgetSettled(
            type="budget.settled",
            experiment=duty.experiment,
            dataset=duty.dataset,
            used=stated(used),
            intents=self._private.intents_root(*key),
        )

    def close(self, duty: CloseAccount) -> None:
        """Give back here, too, what the log gave back: of statistics nothing."""
        key = (duty.experiment, duty.dataset)
        experiment = self._replica.state.experiments.get(duty.experiment)
        if experiment is None:
            self._private.settle(*key, ())
            return
        site = site_of(experiment.plan, duty.dataset)
        if site is not None:
            self._private.settle(*key, _given_back(site, duty.used), duty.used)


def _given_back(site: SitePlan, used: Map[Purpose, int]) -> tuple[CellCharge, ...]:
    return refunds(site, Map(list(used.items())))

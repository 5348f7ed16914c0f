"""Statistics that the log has and a restored register has forgotten: their charge counts here again.

What ``dataset describe`` released is paid for ever, like noise that an experiment used. A register that was
restored from a backup, or made anew, does not know of it; the log does. So a node counts every release of
its datasets that its register cannot account for, in full, before the register is asked to pay for
anything more. A permission that is not answered yet is counted when it is answered.
"""

from __future__ import annotations

from collections.abc import Iterator

from ledger.rules.state import State, Statistics
from node.duties.renewing import to_close
from node.register.accounts import PrivateView
from node.register.private import PrivateRegister


def unaccounted(state: State, me: str, view: PrivateView) -> Iterator[tuple[str, Statistics]]:
    """Released statistics of a node's datasets that its register does not know, by identity."""
    for identity, held in sorted(state.statistics.items(), key=lambda item: item[1].index):
        dataset = held.terms.dataset
        if (
            held.result is not None
            and (identity, dataset) not in view.charges
            and state.datasets[dataset].node == me
        ):
            yield identity, held


def account_for_told(state: State, me: str, register: PrivateRegister) -> None:
    """Count them. Nothing of statistics is ever given back, so each account is closed at once.

    So are those that this register counts as open and the log as told.
    """
    for identity, held in tuple(unaccounted(state, me, register.view)):
        terms = held.terms
        register.adopt(state.federation, identity, terms.dataset, terms.charges, ())
    for key in tuple(to_close(state, me, register.view)):
        register.settle(*key, ())

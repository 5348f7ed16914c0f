"""What a node judges by, beside the log and its register: local policy, witnesses, its own memory."""

from __future__ import annotations

from dataclasses import dataclass

from immutables import Map

from ledger.entries.operations.budgets import BudgetRefusal
from node.register.accounts import Key


@dataclass(frozen=True, slots=True)
class LocalPolicy:
    """What this hospital's own administrators allow, beside their steward's approvals.

    Attributes:
        epsilon_max_micro: most that one experiment may cost a dataset, or None.
        unsound: the training code failed its self-test; use no data until the node is restarted.
        paused: take on nothing new, and use no data, for now.
        working: whether it is within the hours in which data may be used.
    """

    epsilon_max_micro: int | None = None
    paused: bool = False
    unsound: bool = False
    working: bool = True


@dataclass(frozen=True, slots=True)
class Standing:
    """How well this node's copy of the log is witnessed.

    Attributes:
        final_size: entries under the newest final checkpoint.
        fresh: whether its cosignatures are young enough to give permission.
        vouched: whether others vouched for the log since this node's last restart.
        cosigned_s: by entry index of an approval, the POSIX seconds by which a quorum of hospitals
            had cosigned a log that holds it; absent while none has.
    """

    final_size: int
    fresh: bool
    vouched: bool = True
    cosigned_s: Map[int, int] = Map()


@dataclass(frozen=True, slots=True)
class Memory:
    """What this process found out since it started; lost without harm.

    Attributes:
        plans: experiments whose plan was checked, and whether it is what the spec implies.
        refuse: datasets that cannot take part, and why.
        answered: updates handed in, by experiment, dataset, round and attempt.
        busy: rounds under way in the training process, whose intents are recorded already.
        abandoned: contexts of masked rounds in which something was refused to the log's members.
    """

    plans: Map[str, bool] = Map()
    refuse: Map[Key, BudgetRefusal] = Map()
    answered: frozenset[tuple[str, str, int, int]] = frozenset()
    busy: frozenset[tuple[str, str, int]] = frozenset()
    abandoned: frozenset[str] = frozenset()

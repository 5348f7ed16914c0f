"""From what a person types to the thing that is meant: names, ids and unique beginnings of ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from consilium.errors import UnknownName
from ledger.rules.experiment_state import Experiment
from ledger.rules.state import Cell, Dataset, State

SHORT = 8
"""Characters of an id that tables show."""

SHORTEST = 4
"""Characters that a beginning of an id must have: an empty variable of a script names nothing."""

T = TypeVar("T")


def the_experiment(state: State, name: str) -> Experiment:
    """An experiment by id, by a unique beginning of its id, or by its name.

    Of several experiments with one name only the id tells which.

    Raises:
        UnknownName: none, or several.
    """
    exact = state.experiments.get(name)
    if exact is not None:
        return exact
    everyone = list(state.experiments.values())
    named = [e for e in everyone if e.name == name]
    if not named:
        named = [e for e in everyone if _begins(e.id, name)]
    if len(named) == 1:
        return named[0]
    listed = sorted(f"{e.name} ({e.id[:SHORT]})" for e in (named or everyone))
    raise UnknownName("experiment", name, listed, several=len(named) > 1)


def the_dataset(state: State, name: str) -> Dataset:
    """A dataset by its name.

    Raises:
        UnknownName: there is none.
    """
    return _look_up("dataset", state.datasets, name)


def the_cell(state: State, name: str) -> Cell:
    """A cell of patients by its name.

    Raises:
        UnknownName: there is none.
    """
    return _look_up("cell", state.cells, name)


def the_change(state: State, name: str) -> str:
    """The id of a proposed change, from a unique beginning of it.

    Raises:
        UnknownName: none, or several.
    """
    fitting = sorted(c for c in state.changes if _begins(c, name))
    if len(fitting) == 1:
        return fitting[0]
    several = len(fitting) > 1
    known = fitting if several else sorted(state.changes)
    raise UnknownName("change", name, [c[:SHORT] for c in known], several=several)


def the_organisation(state: State, name: str) -> str:
    """An organisation with a member that was not expelled, the coordinator's left out.

    Raises:
        UnknownName: there is none.
    """
    hub = state.members[state.coordinator].organisation
    known = {m.organisation for m in state.members.values() if m.expelled_at is None} - {hub}
    if name not in known:
        raise UnknownName("organisation", name, sorted(known))
    return name


def the_invitation(state: State, name: str) -> str:
    """The id of an invitation with a free seat, from a unique beginning of it or one of its handles.

    Raises:
        UnknownName: none, or several.
    """
    free = {kid: held for kid, held in state.invitations.items() if held.free}
    fitting = sorted(k for k, held in free.items() if _begins(k, name) or name in held.free)
    if len(fitting) == 1:
        return fitting[0]
    several = len(fitting) > 1
    known = [
        f"{k[:SHORT]} ({free[k].invitation.organisation}: {', '.join(sorted(free[k].free))})"
        for k in (fitting if several else sorted(free))
    ]
    raise UnknownName("open invitation", name, known, several=several)


def _begins(identity: str, name: str) -> bool:
    return len(name) >= SHORTEST and identity.startswith(name)


def _look_up(kind: str, things: Mapping[str, T], name: str) -> T:
    found = things.get(name)
    if found is None:
        raise UnknownName(kind, name, sorted(things))
    return found

"""Which home a command works in.

``--home`` names a member's home, or a directory with several of them beside one another, as joining
with a hospital's invitation makes it (``node/`` and ``steward/``). A command knows which role it
needs, and so finds the right one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from consilium.errors import InputError
from ledger.exchange.home import MEMBER, MemberHome

ANYBODY = ("researcher", "steward", "auditor", "node")
"""Every role that has a home; a node comes last, since its service may be using it."""

MOST_BLOBS = ("node", "researcher", "auditor", "steward")
"""The same, by how much of what the log names they keep."""


def member_homes(directory: Path) -> tuple[MemberHome, ...]:
    """The home that a directory is, or those that lie in it, by name."""
    if (directory / MEMBER).is_file():
        return (MemberHome(directory),)
    try:
        inside = sorted(directory.iterdir())
    except OSError:
        return ()
    return tuple(MemberHome(path) for path in inside if (path / MEMBER).is_file())


def find_home(directory: Path, roles: Sequence[str] = ANYBODY) -> MemberHome:
    """The one home for a member in one of these roles.

    Args:
        directory: as ``--home`` gives it.
        roles: those that may do what is asked, the most fitting first.

    Raises:
        InputError: there is none, or more than one in the same role.
    """
    homes = member_homes(directory)
    if not homes:
        raise InputError(
            f"{directory} is no member's home; make one with "
            "`consilium member join INVITATION --home DIR`, or name another with --home"
        )
    for role in roles:
        fitting = [home for home in homes if home.config.role == role]
        if len(fitting) > 1:
            names = ", ".join(str(home.path) for home in fitting)
            raise InputError(f"several homes could be meant; name one with --home: {names}")
        if fitting:
            return fitting[0]
    there = ", ".join(f"{home.config.handle} ({home.config.role})" for home in homes)
    raise InputError(
        f"this needs {_with_article(' or '.join(roles))}, but {directory} is the home of {there}"
    )


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"

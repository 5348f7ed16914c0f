"""Which nodes have not asked for news for a while: their hospitals are silent, whatever their keys say.

A node that runs holds a question open all the time (``GET /v1/log``). The log does not know who is merely
away; this does, in memory, from the start of the process on. Owned by the event loop's thread.

Not promised: more than the coordinator's own word. It decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ledger.rules.state import State

SILENT_S = 300.0
"""After so long without a question a node counts as silent; a held one lasts half a minute."""


class Presence:
    """See the module's first lines.

    Args:
        now_s: a steady clock.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._began_s = now_s()
        self._asked_s: dict[str, float] = {}

    def note(self, handle: str) -> None:
        """Somebody asks for news."""
        self._asked_s[handle] = self._now_s()

    def silent(self, state: State) -> tuple[str, ...]:
        """Nodes that witness, and have asked nothing for `SILENT_S`."""
        now_s = self._now_s()
        return tuple(
            sorted(
                member.handle
                for member in state.members.values()
                if member.ready
                and member.revoked_at is None
                and now_s - self._asked_s.get(member.handle, self._began_s) > SILENT_S
            )
        )

"""A node that asks for nothing any more is named, and one whose keys ended is not."""

from __future__ import annotations

from coordinator.http.presence import SILENT_S, Presence
from ledger.entries.operations.members import KeyRevoked
from tests.federation import RESEARCHER, Federation, node_of, steward_of


def test_nodes_that_ask_for_nothing_are_silent_after_a_while() -> None:
    federation = Federation.found(("basel", "bern", "chur"))
    now_s = [0.0]
    presence = Presence(lambda: now_s[0])
    now_s[0] = SILENT_S
    assert presence.silent(federation.state) == (), "the process has not run for so long"
    presence.note(node_of("bern"))
    presence.note(RESEARCHER)
    now_s[0] += 1
    assert presence.silent(federation.state) == (node_of("basel"), node_of("chur"))
    op = KeyRevoked(type="key.revoked", member=node_of("chur"), compromised_since_ms=None)
    federation.say(steward_of("chur"), op)
    presence.note(node_of("basel"))
    assert presence.silent(federation.state) == ()
    now_s[0] += SILENT_S + 1
    assert presence.silent(federation.state) == (node_of("basel"), node_of("bern"))

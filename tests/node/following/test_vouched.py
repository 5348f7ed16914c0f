"""A restarted node, once others vouched for the log, is not stopped by how a later checkpoint became final."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ledger.formats.keys import SigningKey
from node.following.cosigning import Cosigning

EVERYBODY = frozenset({"basel", "bern", "chur", "davos"})


def final(size: int, *signed: str) -> Any:
    quorum = SimpleNamespace(
        needed=3, signed=dict.fromkeys(signed, 0), missing=EVERYBODY - set(signed)
    )
    return SimpleNamespace(size=size, quorum=quorum)


def test_a_node_that_others_vouched_for_stays_so_when_its_own_cosignature_is_among_the_next() -> (
    None
):
    replica: Any = SimpleNamespace(origin="a log", final=final(7, "bern", "chur", "davos"))
    client: Any = None
    cosigning = Cosigning(SigningKey.generate(), "basel-node", "basel", replica, client, 1.0)
    cosigning.restarted()
    cosigning.resumed(7)
    assert not cosigning.vouched  # the final checkpoint does not cover the restart
    replica.final = final(8, "basel", "bern", "chur")
    assert not cosigning.vouched  # two others are too few
    replica.final = final(9, "bern", "chur", "davos")
    assert cosigning.vouched
    replica.final = final(10, "basel", "bern", "chur")
    assert cosigning.vouched

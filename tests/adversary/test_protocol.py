"""A coordinator moves the log to rules that hospitals cannot read, to act where nobody judges."""

from __future__ import annotations

from ledger.entries.operations.log import NodeReady, ProtocolActivated
from tests.adversary.registry import attack
from tests.adversary.world import World
from tests.federation import COORDINATOR


@attack(
    name="coordinator activates rules that too few hospitals know",
    exposed_by="everybody's fold",
    evidence="the entry, void, with the hospitals that were not ready",
)
def test_rules_do_not_change_before_a_quorum_of_hospitals_can_read_them(world: World) -> None:
    for name in ("basel", "bern"):
        world.hospital(name).say(NodeReady(type="node.ready", protocol=2))
    world.settle()
    world.attack_begins()
    op = ProtocolActivated(type="protocol.activated", version=2)
    world.federation.say(COORDINATOR, op, void="not_ready")  # the lie
    for hospital in world.hospitals.values():
        hospital.follow()
        assert hospital.replica.newer_protocol is None
        assert hospital.replica.state.protocol == 1
    world.exposed("everybody's fold")

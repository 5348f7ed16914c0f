"""What a node says on its own account: that it is ready, that it restarted, what it found.

Said again after any crash until the log has it (``duties.actor``). Nothing here decides whether data is used.
"""

from __future__ import annotations

from collections.abc import Callable

from ledger.entries.entry import parse_leaf
from ledger.entries.operations.log import ForkReported, NodeReady, NodeResumed
from ledger.entries.operations.values import BlobRef
from ledger.errors import ForkDetected
from ledger.exchange.home import Membership
from ledger.formats.strict import decode_b64
from ledger.rules.fold import PROTOCOLS
from ledger.rules.state import State
from node.data.registration import finish_registrations
from node.duties.actor import Actor
from node.duties.audited import residuals_audited
from node.duties.predecessors import account_for_predecessors
from node.errors import ServiceError
from node.following.cosigning import Cosigning
from node.register.private import PrivateRegister
from privacy.selfaudit.checks import Report


class Statements:
    """A life's own statements, each said once in it. One thread uses it.

    Attributes:
        greeted: whether this life has said that it is here.
        nonce: of this life's ``node.resumed``; None where it said ``node.ready`` or nothing yet.
    """

    def __init__(
        self,
        membership: Membership,
        private: PrivateRegister,
        actor: Actor,
        cosigning: Cosigning,
        now_ms: Callable[[], int],
    ) -> None:
        self._membership = membership
        self._private = private
        self._actor = actor
        self._cosigning = cosigning
        self._now_ms = now_ms
        self._me = membership.config.handle
        self.greeted = False
        self.nonce: str | None = None
        self._fork_reported = False
        self._selftest: Report | None = None

    def tested(self, report: Report) -> None:
        """Have a self-test's result said."""
        self._selftest = report

    def greet(self) -> None:
        """Be ready from the first start on; say after every other one that this is a restart."""
        state = self._membership.replica.state
        member = state.members.get(self._me)
        if member is None or member.revoked_at is not None:
            raise ServiceError(
                f"{self._me} has not joined, or its keys were revoked; "
                "run consilium member join, or ask a steward"
            )
        self._membership.author.resend()
        home = self._membership.home.path
        account_for_predecessors(home, state, self._me, self._private, self._now_ms())
        finish_registrations(self._private, state)
        if state.succession is not None and not member.ready:
            self._bring_documents(state)
        if member.ready and member.protocol < max(PROTOCOLS):
            self._actor.say(_ready())
        if member.ready:
            self._cosigning.restarted()
            if self.nonce is None:
                self.nonce = self._private.note_restart(self._now_ms())
            self._actor.say(NodeResumed(type="node.resumed", nonce=self.nonce))
        else:
            self._actor.say(_ready())
        self.greeted = True

    def report_conflicts(self) -> None:
        """End keys that signed two entries for one place; their evidence is in the own copy.

        Not the own key: whoever has it besides will not be stopped by an entry that it signs itself.
        """
        own = self._membership.author.key
        for op in self._membership.replica.unsettled():
            if parse_leaf(decode_b64(op.first)).body.key != own:
                self._actor.say(op)

    def tell_selftest(self) -> None:
        """Say what the training code did on synthetic rows, if that is new."""
        if self._selftest is not None:
            self._actor.say(residuals_audited(self._selftest))
            self._selftest = None

    def report_fork(self, fork: ForkDetected) -> None:
        """Publish both notes, once in a life."""
        if self._fork_reported:
            return
        ours, theirs = map(self._membership.publish, fork.statements)
        self._actor.say(ForkReported(type="fork.reported", ours=ours, theirs=theirs))
        self._fork_reported = True

    def _bring_documents(self, state: State) -> None:
        """A log that took over names this node's schemas and cards; its coordinator may lack them."""
        blobs = self._membership.blobs
        own = [each.terms for each in state.datasets.values() if each.node == self._me]
        for name in [name for terms in own for name in (terms.schema_.sha256, terms.card)]:
            size = None if name is None else blobs.size(name)
            if name is not None and size is not None:
                data = blobs.get(BlobRef(sha256=name, bytes=size))
                self._membership.client.put_blob(data)


def _ready() -> NodeReady:
    """What this node says when it starts: that it witnesses, and the newest rules that it knows."""
    return NodeReady(type="node.ready", protocol=max(PROTOCOLS))

"""One log in every kind of place that a command may read: for tests of what is taken from there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from consilium.cli import main
from ledger.entries.operations.audits import LedgerReviewed
from ledger.exchange.home import MemberConfig
from ledger.formats.checkpoint import log_verifier
from ledger.formats.key_file import save_keyring
from ledger.formats.note import VerifierKey
from ledger.formats.strict import canonical
from tests.coordinator.serving import Serving
from tests.federation import COORDINATOR, Federation, node_of, steward_of

HOSPITALS = ("basel", "bern", "chur")
REVIEWED = LedgerReviewed(type="ledger.reviewed", size=0, root="0" * 64, finding="in_order")
MEMBER = steward_of("basel")


@dataclass(frozen=True)
class Places:
    """One log, in every kind of place."""

    federation: Federation
    home: Path
    bundle: Path
    tiles: Path
    url: str
    member: Path
    passphrase: Path

    @property
    def edge(self) -> str:
        """Name of the last, partial tile of a level."""
        return f"001.p/{self.federation.log.size - 256}"

    @property
    def log(self) -> VerifierKey:
        key = self.federation.rings[COORDINATOR].log
        assert key is not None
        return log_verifier(self.federation.origin, key.public)

    def at(self, kind: str) -> tuple[object, ...]:
        """Options that name a place."""
        keys = ("--home", self.member, "--passphrase-file", self.passphrase)
        return {
            "home": ("--at", self.home),
            "outside": ("--at", self.home.parent),
            "bundle": ("--at", self.bundle),
            "tiles": ("--at", self.tiles),
            "member": ("--at", self.url, *keys),
            "stranger": ("--at", self.url, "--home", self.home.parent / "nobody"),
        }[kind]


EVERYWHERE = ("home", "outside", "bundle", "tiles", "member", "stranger")
WITH_ENTRIES = EVERYWHERE[:-1]


@contextmanager
def made_places(base: Path) -> Iterator[Places]:
    """A log of more than a bundle's entries, all of them under a final checkpoint."""
    federation = Federation.found(HOSPITALS, now_ms=time.time_ns() // 1_000_000 - 120_000)
    while federation.log.size < 300:
        federation.say(MEMBER, REVIEWED)
    with Serving(federation, base / "out" / "hub") as serving:
        # The coordinator notes the time at its start, since what is there is not final yet.
        serving.until(lambda: federation.log.size > 300)
        serving.cosign(*map(node_of, HOSPITALS))
        serving.until(lambda: serving.coordinator.sequencer.view.final_size == federation.log.size)
        member, passphrase = base / "member", base / "passphrase"
        member.mkdir()
        passphrase.write_text("open sesame\n")
        ring = federation.rings[MEMBER]
        save_keyring(member / "keyring.json", ring, b"open sesame", strength="interactive")
        config = MemberConfig(
            consilium=1,
            federation=federation.id,
            url=serving.url,
            handle=MEMBER,
            role="steward",
            organisation="basel",
        )
        (member / "member.json").write_bytes(canonical(config))
        bundle, tiles = base / "log.consilium", base / "tiles"
        home = base / "out" / "hub"
        assert main(["ledger", "export", "--at", str(home), "--out", str(bundle)]) == 0
        assert main(["ledger", "tiles", "--at", str(home), "--out", str(tiles)]) == 0
        yield Places(federation, home, bundle, tiles, serving.url, member, passphrase)

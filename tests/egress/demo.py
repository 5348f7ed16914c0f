"""The demo with a tap before every node: ``python -m tests.egress.demo --json``.

The real demo (``consilium demo``): processes, commands, HTTP on loopback. After a hospital has joined, its node's home
is told that the coordinator answers at the tap's port, so that registration and the node service send
everything through it. Beside the account, the sockets of each node's processes are looked at while they run: none
may be connected to anything but the tap.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from consilium.demo.data import DemoSite, breast_cancer, demo_spec
from consilium.demo.processes import Service, Services
from consilium.demo.run import RESEARCHER, _Demo
from ledger.copies.replica import Replica
from ledger.entries.entry import Entry, parse_entry
from ledger.exchange.home import MEMBER, MemberConfig, MemberHome, Membership
from ledger.formats.strict import canonical, parse_canonical
from tests.egress.account import Account, Books, account
from tests.journeys.tap import Tap

CLAIM = "Every byte that left the tapped connections is matched. This does not prove that there is no other channel."


@dataclass
class Tapped(_Demo):
    """The demo, tapped."""

    taps: dict[str, Tap] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)
    _over: threading.Event = field(default_factory=threading.Event)

    def _join(self, site: DemoSite, services: Services) -> Service:
        done = super()._do

        def tapped(*arguments: str) -> str:
            said = done(*arguments)
            if arguments[:2] == ("member", "join"):
                self._tap(site.hospital)
            return said

        self._do = tapped  # type: ignore[method-assign]
        try:
            service = super()._join(site, services)
        finally:
            del self._do
        watch = threading.Thread(target=self._look, args=(service, site.hospital), daemon=True)
        watch.start()
        return service

    def _tap(self, hospital: str) -> None:
        home = self.folder / hospital / "node" / MEMBER
        config = parse_canonical(home.read_bytes(), MemberConfig, limit=2**16)
        tap = self.taps[hospital] = Tap(int(config.url.rpartition(":")[2]))
        url = f"http://127.0.0.1:{tap.port}"
        home.write_bytes(canonical(config.model_copy(update={"url": url})))

    def _look(self, service: Service, hospital: str) -> None:
        """Note every peer of the node's processes that is not its tap."""
        while not self._over.is_set() and service.process.poll() is None:
            for pid in _family(service.process.pid):
                for peer in _peers(pid):
                    if peer != f"127.0.0.1:{self.taps[hospital].port}":
                        self.elsewhere.add(f"{hospital}: {peer}")
            time.sleep(0.2)


def play(folder: Path, *, hospitals: int, rounds: int) -> tuple[dict[str, Account], Tapped]:
    """Run the demo in a folder and account for every node; by hospital."""
    data = breast_cancer(folder / "data", hospitals)
    spec = demo_spec(data, epsilon=8.0, rounds=rounds, secure_aggregation=False)
    demo = Tapped(folder, data, spec, 8.0, time.monotonic())
    with demo.settings():
        demo.run(keep_running=False)
    demo._over.set()
    with _copy(demo) as member:
        rows = member.replica.store.rows()
        entries = [parse_entry(row.body, row.signature) for row in rows]
        found = {
            site.hospital: _account(demo, site, entries, member.replica) for site in data.sites
        }
    return found, demo


def _account(demo: Tapped, site: DemoSite, entries: list[Entry], log: Replica) -> Account:
    home = demo.folder / site.hospital / "node" / MEMBER
    config = parse_canonical(home.read_bytes(), MemberConfig, limit=2**16)
    tap = demo.taps[site.hospital]
    tap.close()
    books = Books(entries, log.state, config.handle, log.root)
    return account(tap.sent(), books, config.federation, len(entries))


@contextmanager
def _copy(demo: Tapped) -> Iterator[Membership]:
    """The researcher's own verified copy of the log."""
    passphrase = (demo.folder / "passphrase").read_text().strip().encode()
    member = MemberHome(demo.folder / RESEARCHER).open(passphrase)
    try:
        yield member
    finally:
        member.close()


def _family(pid: int) -> list[int]:
    """A process and its children."""
    found = [pid]
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _peers(pid: int) -> set[str]:
    """Remote ends of a process's connections that it opened itself, and any datagram socket."""
    inodes = set()
    peers = set()
    with suppress(OSError):
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                inodes.add(str(handle.readlink()).removeprefix("socket:[").removesuffix("]"))
        for kind in ("tcp", "tcp6", "udp", "udp6"):
            rows = [
                line.split() for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()
            ]
            listening = {row[1].rpartition(":")[2] for row in rows[1:] if row[3] == "0A"}
            for row in rows[1:]:
                own_end = row[1].rpartition(":")[2] in listening
                if row[9] in inodes and row[3] != "0A" and not own_end:
                    peers.add(kind if kind.startswith("udp") else _address(row[2]))
    return peers


def _address(text: str) -> str:
    host, _, port = text.partition(":")
    digits = bytes.fromhex(host)[::-1]
    shown = ".".join(map(str, digits)) if len(digits) == 4 else host
    return f"{shown}:{int(port, 16)}"


def main() -> int:
    """Print the account; 0 if nothing is unmatched."""
    arguments = argparse.ArgumentParser(prog="tests.egress.demo", description=__doc__)
    arguments.add_argument("--hospitals", type=int, default=4)
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("--json", action="store_true")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found, demo = play(Path(folder), hospitals=chosen.hospitals, rounds=chosen.rounds)
    summary: dict[str, Any] = {
        "nodes": {
            name: dict(one.heads)
            | {"total": one.total, "charged_vectors": len(one.charged_vectors)}
            for name, one in found.items()
        },
        "unmatched": sum(one.heads["unmatched"] for one in found.values()),
        "what": [line for one in found.values() for line in one.unmatched],
        "sockets_elsewhere": sorted(demo.elsewhere),
        "claim": CLAIM,
    }
    sys.stdout.write(json.dumps(summary, indent=None if chosen.json else 1) + "\n")
    return 1 if summary["unmatched"] or summary["sockets_elsewhere"] else 0


if __name__ == "__main__":
    sys.exit(main())

"""Running a witness that belongs to no member, for ``consilium ledger witness``."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from audit.verification.sources import parse_trust
from audit.verification.tile_copy import open_tiles
from audit.witness.outside import KEYRING, Looked, OutsideWitness, add_log
from audit.witness.serve import Health, Listening, follow, look_once, make_app
from consilium.errors import InputError, RunFailed
from consilium.passphrase import read_passphrase
from consilium.settings import Settings
from consilium.terminal import note
from ledger.errors import CoordinatorUnreachable, LedgerError
from ledger.exchange.client import CoordinatorClient
from ledger.formats.note import parse_vkey
from ledger.formats.tlog_policy import Log


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked of the witness.

    Attributes:
        directory: its own.
        name: its key name; needed the first time.
        follow: address of a log to witness from now on.
        trust: genesis file or federation id of that log, or None to take its word for it.
        log: vkey of a log to witness on request, of whatever kind.
        listen: HOST:PORT for requests, or None.
    """

    directory: Path
    name: str | None
    follow: str | None
    trust: str | None
    log: str | None
    listen: str | None


def run_witness(wanted: Wanted, settings: Settings, *, every_s: float, once: bool) -> None:
    """Look at the logs and answer requests, until SIGTERM or, with ``once``, one look.

    Raises:
        RunFailed: a log forked, or does not continue what was cosigned.
        CoordinatorUnreachable: with ``once``, a log cannot be asked.
        InputError, WitnessUnusable: it cannot begin.
    """
    passphrase = _prepare(wanted, settings)
    with ExitStack() as stack:
        witness = OutsideWitness(wanted.directory, passphrase, lambda: int(time.time()))
        stack.callback(witness.close)
        if not witness.logs:
            raise InputError(
                f"{wanted.directory} knows no log yet; name one with --follow or --log"
            )
        health = Health()
        url = None
        if wanted.listen is not None and not once:
            listening = Listening(make_app(witness, health), *_address(wanted.listen))
            stack.callback(listening.close)
            url = listening.url
        ready = {
            "witness": str(witness.vkey),
            "logs": [log.key.name for log in witness.logs],
            "listening": url,
        }
        stop = threading.Event()
        if not once:
            # Before anybody reads that it is ready, and may tell it to stop.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: stop.set())
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        if once:
            failed: list[LedgerError] = []

            def report(log: Log, found: Looked | LedgerError) -> None:
                _say(log, found)
                if isinstance(found, CoordinatorUnreachable):
                    failed.append(found)

            look_once(witness, health, report, logs=witness.logs)
            if failed and not witness.forks:
                raise failed[0]
        else:
            follow(
                witness,
                health,
                _say,
                every_s=every_s,
                wait=stop.wait,
                stop_at_fork=url is None,
            )
        _conclude(witness, health if once else Health())


def _prepare(wanted: Wanted, settings: Settings) -> bytes:
    """Make the directory the first time, and let it know the log; returns the passphrase."""
    new = not (wanted.directory / KEYRING).exists()
    if new and wanted.name is None:
        raise InputError(
            f"{wanted.directory} holds no witness yet; give it a --name, "
            "such as auditor.example.org/witness"
        )
    passphrase = read_passphrase(
        settings.passphrase_file, of=f"the witness in {wanted.directory}", new=new
    )
    if new and wanted.name is not None:
        OutsideWitness.create(
            wanted.directory, wanted.name, passphrase, strength=settings.key_strength
        )
    if wanted.log is not None:
        add_log(wanted.directory, parse_vkey(wanted.log), None)
    if wanted.follow is not None:
        _follow_new(wanted.directory, wanted.follow, wanted.trust)
    return passphrase


def _follow_new(directory: Path, url: str, trust: str | None) -> None:
    anchor = None if trust is None else parse_trust(trust)
    with CoordinatorClient(url, federation="") as client:
        opened = open_tiles(url, client.tile, client.find_genesis())
    if anchor is None:
        note(
            f"taking {url}'s word that it is federation {opened.federation}; --trust would check it"
        )
    elif anchor != opened.federation:
        raise InputError(f"{url} is federation {opened.federation}, and you trust {anchor}")
    add_log(directory, opened.log, url)


def _say(log: Log, found: Looked | LedgerError) -> None:
    if isinstance(found, Looked) and found.problem is None:
        done = "cosigned" if found.cosigned else "a later one was cosigned meanwhile"
        note(f"{found.origin}: {found.size} entries, {done}")
    else:
        problem = found.problem if isinstance(found, Looked) else found
        note(f"{log.key.name}: NOT cosigned: {problem}")


def _conclude(witness: OutsideWitness, health: Health) -> None:
    if witness.forks:
        places = ", ".join(str(place) for place in witness.forks)
        raise RunFailed(f"REFUTED: a log has signed two histories; both notes are in {places}")
    if health.problems:
        said = "; ".join(f"{origin}: {why}" for origin, why in sorted(health.problems.items()))
        raise RunFailed(said)


def _address(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InputError(f"--listen {listen!r} is not HOST:PORT, such as 127.0.0.1:8464")
    return host.removeprefix("[").removesuffix("]"), int(port)

"""Keeping a copy verified: in this process, again whenever the copy grows, never by hearsay.

`Watch.current` is the newest complete verification; pages are built from it alone, so that what is
shown and what was checked are the same entries. A copy that is found changed is read a second time
before it is called so: a writer may have been at work.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from audit.errors import SourceUnusable
from audit.verification.findings import Report, Verdicts
from audit.verification.sources import close_copies, find_places, open_copies
from audit.verification.verify import Verification, unreadable, verify_all

URL_INTERVAL_S = 60.0
"""How often a database by URL is verified anew: it has no file whose change would tell."""

_REST = 4.0
"""A verification is followed by this many times its length of rest, however fast the log grows."""

Fingerprint = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Checked:
    """One complete verification.

    Attributes:
        verdicts: of all copies at the place.
        found: the longest copy, or None when none could be opened.
        others: the other copies.
        checked_at_ms: when it ended, POSIX ms of this machine.
        took_ms: how long it took.
        number: rises with each verification, and from one console to the next; a page asks whether
            there is a newer one.
    """

    verdicts: Verdicts
    found: Verification | None
    others: tuple[Verification, ...]
    checked_at_ms: int
    took_ms: int
    number: int

    @property
    def report(self) -> Report:
        """The report on the copy that pages show."""
        return self.found.report if self.found else self.verdicts.reports[0]


class Watch:
    """Verifies a place, and again in the background.

    Args:
        at: what the person pointed at.
        trust: federation id from outside, or None.
        interval_s: seconds between looks at the files.
    """

    def __init__(self, at: str, *, trust: str | None = None, interval_s: float = 2.0) -> None:
        self.at = at
        self._trust = trust
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._retired: tuple[Verification, ...] = ()
        self._fingerprint: Fingerprint = ()
        self._looked_at = 0.0
        self._number = time.time_ns() // 1_000_000
        self.current = self._check()

    def start(self) -> None:
        """Watch in a background thread until `close`."""
        self._thread = threading.Thread(target=self._run, name="audit-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching and let go of all copies."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        close_copies(each.copy for each in (*self._retired, *self._all(self.current)))

    @property
    def stopped(self) -> bool:
        """Whether it was to watch and does not any more: its thread has died."""
        thread = self._thread
        return thread is not None and not thread.is_alive() and not self._stop.is_set()

    def look(self) -> bool:
        """Verify anew if the copy has changed; says whether it had."""
        fingerprint = self._read_fingerprint()
        due = not fingerprint and time.monotonic() - self._looked_at > URL_INTERVAL_S
        if fingerprint == self._fingerprint and not due:
            return False
        before = self.current
        self.current = self._check()
        # Requests under way may still read from the copies before: they are closed one turn later.
        close_copies(each.copy for each in self._retired)
        self._retired = self._all(before)
        return True

    def _run(self) -> None:
        while not self._stop.wait(max(self._interval_s, _REST * self.current.took_ms / 1000)):
            self.look()

    def _check(self) -> Checked:
        started = time.monotonic()
        self._fingerprint = self._read_fingerprint()
        verdicts, found = self._verify()
        if verdicts.exit_code and self._read_fingerprint() != self._fingerprint:
            close_copies(each.copy for each in found)
            self._fingerprint = self._read_fingerprint()
            verdicts, found = self._verify()
        self._looked_at = time.monotonic()
        self._number += 1
        best = verdicts.best
        chosen = next((each for each in found if each.report is best and each.replay.size), None)
        return Checked(
            verdicts=verdicts,
            found=chosen,
            others=tuple(each for each in found if each is not chosen),
            checked_at_ms=time.time_ns() // 1_000_000,
            took_ms=round((time.monotonic() - started) * 1000),
            number=self._number,
        )

    def _verify(self) -> tuple[Verdicts, tuple[Verification, ...]]:
        try:
            copies = open_copies(self.at)
        except SourceUnusable as error:
            return Verdicts((unreadable(error),)), ()
        return verify_all(copies, trust=self._trust)

    def _read_fingerprint(self) -> Fingerprint:
        found = []
        for path in find_places(self.at):
            try:
                status = Path(path).stat()
            except OSError:
                continue
            found.append((str(path), status.st_size, status.st_mtime_ns))
        return tuple(found)

    @staticmethod
    def _all(checked: Checked) -> tuple[Verification, ...]:
        chosen = () if checked.found is None else (checked.found,)
        return (*chosen, *checked.others)

"""Waking requests that wait for news, from the sequencer's thread into the event loop's."""

from __future__ import annotations

import asyncio


class Waker:
    """One event for everybody who waits, replaced each time it fires."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wanted = False
        self.closing = False

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say in which loop people wait."""
        self._loop = loop

    def wake(self) -> None:
        """Wake everybody; from any thread."""
        loop = self._loop
        # Whoever takes a ticket after this look sees the news that we were called for.
        if self._wanted and loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._fire)

    def close(self) -> None:
        """Let nobody wait any more; from the loop's thread."""
        self.closing = True
        self._fire()

    def ticket(self) -> asyncio.Event:
        """What to wait for. Take it before looking whether there is news, or a wake is missed."""
        self._wanted = True
        return self._event

    def _fire(self) -> None:
        self._wanted = False
        event, self._event = self._event, asyncio.Event()
        event.set()


async def wait_for(ticket: asyncio.Event, timeout_s: float) -> bool:
    """Wait for a ticket's event; False when the time ran out."""
    try:
        async with asyncio.timeout(timeout_s):
            await ticket.wait()
    except TimeoutError:
        return False
    return True

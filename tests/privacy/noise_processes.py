"""Processes that draw noise, for tests: started and ready, and others that end or lie when they are told to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from privacy import noise_ahead
from privacy.noise import TestRng
from privacy.noise_ahead import Drawer
from tests.patience import PATIENCE_S

LEAST = 2**18
"""What these tests have drawn by a process at least."""

LIAR = """
import mmap, os, struct, sys, time
import numpy as np
room = np.frombuffer(mmap.mmap(int(sys.argv[1]), 0), dtype=np.int64)
def tell(number, drawn):
    os.write(1, struct.pack("<2Q", number, drawn))
def hear():
    order = os.read(0, 56)
    return struct.unpack("<32s3Q", order)[1:] if order else sys.exit()
"""
"""What a process that lies begins with."""


@contextmanager
def drawing(
    monkeypatch: pytest.MonkeyPatch, size: int, liar: str | None = None
) -> Iterator[Drawer]:
    """A process of its own, ready for vectors up to this size; the test's machine has two cores.

    Args:
        monkeypatch: puts everything back.
        size: at least LEAST.
        liar: Python that follows ``LIAR`` and takes the true process' place.
    """
    drawer = Drawer()
    with monkeypatch.context() as changed:
        changed.setattr(noise_ahead, "_drawer", drawer)
        changed.setattr(noise_ahead, "_cores", lambda: 2)
        if liar is not None:
            changed.setattr(noise_ahead, "_COMMAND", ("-c", LIAR + liar))
        try:
            with TestRng(0) as first:
                first.expect(1, max(size, LEAST))
            wait_until_ready(drawer)
            yield drawer
        finally:
            drawer.end()


def wait_until_ready(drawer: Drawer) -> None:
    """Return when the process has said that it is, or has ended."""
    end = time.monotonic() + PATIENCE_S
    while not drawer._is_ready() and drawer._process is not None:
        assert time.monotonic() < end
        time.sleep(0.001)


def pid_of(drawer: Drawer) -> int:
    """Its number."""
    assert drawer._process is not None
    return drawer._process.pid


def is_gone(pid: int) -> bool:
    """Say whether there is no such process, or only what an init has not yet taken note of."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in ("Z", "X")


def wait_until_gone(pid: int) -> None:
    """Return when a process that is not ours to wait for has ended."""
    end = time.monotonic() + PATIENCE_S
    while not is_gone(pid):
        assert time.monotonic() < end
        time.sleep(0.001)

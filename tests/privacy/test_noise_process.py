"""The process that draws noise: killed, lied for, orphaned, forked and refused. Never zeros, never another's noise."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privacy import noise_ahead
from privacy.errors import NoiseLost
from privacy.noise import TestRng
from privacy.noise_ahead import Drawer
from privacy.noise_process import PIECE
from tests.privacy.noise_processes import (
    LEAST,
    drawing,
    is_gone,
    pid_of,
    wait_until_gone,
    wait_until_ready,
)

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("shorter")]

ROOT = Path(__file__).parents[2]
SIZE = LEAST + 12_345
WIDE = 2**30
FEW = 100
"""More pairs of equal draws than two of these vectors have by chance: some forty."""

KILLED = """
import signal
from privacy import noise_process
true, said = os.write, [0]
def write(where, what):
    said[0] += 1
    if said[0] == {} + 2:  # one is for being ready
        os.kill(os.getpid(), signal.SIGKILL)
    return true(where, what)
os.write = write
sys.exit(noise_process.main())
"""


@pytest.fixture(scope="module")
def shorter() -> Iterator[None]:
    """Vectors that are drawn sooner than those that the process is worth."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("privacy.noise.LEAST", LEAST)
        yield


def in_line(seed: int, vectors: int = 1) -> list[Any]:
    """What a generator gives where there is one core."""
    with pytest.MonkeyPatch.context() as patch, TestRng(seed) as rng:
        patch.setattr(noise_ahead, "_cores", lambda: 1)
        found = []
        for _ in range(vectors):
            rng.expect(WIDE, SIZE)
            found.append(rng.gaussian_integers(WIDE, SIZE))
        return found


@pytest.mark.parametrize("pieces", [0, 3, SIZE // PIECE])
def test_a_process_killed_after_some_pieces_gives_those_and_an_error_for_the_rest(
    pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, after = in_line(5, 2)
    with drawing(monkeypatch, SIZE, KILLED.format(pieces)) as drawer, TestRng(5) as rng:
        pid = pid_of(drawer)
        rng.expect(WIDE, SIZE)
        for piece in range(pieces):
            low = piece * PIECE
            np.testing.assert_array_equal(
                rng.gaussian_integers(WIDE, PIECE), wanted[low : low + PIECE]
            )
        with pytest.raises(NoiseLost, match=r"in the middle of a vector \(it ended\)"):
            rng.gaussian_integers(WIDE, 1)
        assert is_gone(pid)
        assert drawer._process is None
        other = rng.gaussian_integers(WIDE, SIZE - pieces * PIECE)  # nobody announced these
        assert np.isin(other, wanted).sum() < FEW
        rng.expect(WIDE, SIZE)  # drawn here from now on
        np.testing.assert_array_equal(rng.gaussian_integers(WIDE, SIZE), after)
        assert drawer._process is None


def test_a_process_killed_at_any_time_never_gives_what_is_not_its_vectors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for taken in (0, 1, 3):
        wanted = in_line(taken)[0]
        with drawing(monkeypatch, SIZE) as drawer, TestRng(taken) as rng:
            rng.expect(WIDE, SIZE)
            found = [rng.gaussian_integers(WIDE, PIECE) for _ in range(taken)]
            os.kill(pid_of(drawer), signal.SIGKILL)
            try:
                found.append(rng.gaussian_integers(WIDE, SIZE - taken * PIECE))
            except NoiseLost:
                assert drawer._process is None
            found.append(np.empty(0, dtype=np.int64))
            given = np.concatenate(found)
            np.testing.assert_array_equal(given, wanted[: len(given)])


def test_a_process_killed_between_two_vectors_is_started_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second, third = in_line(8, 3)
    with drawing(monkeypatch, SIZE) as drawer, TestRng(8) as rng:
        rng.expect(WIDE, SIZE)
        np.testing.assert_array_equal(rng.gaussian_integers(WIDE, SIZE), first)
        process = drawer._process
        assert process is not None
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        rng.expect(WIDE, SIZE)  # drawn here: it was gone before anything of it was asked for
        np.testing.assert_array_equal(rng.gaussian_integers(WIDE, SIZE), second)
        wait_until_ready(drawer)
        assert pid_of(drawer) != process.pid
        orders = drawer._number
        rng.expect(WIDE, SIZE)
        np.testing.assert_array_equal(rng.gaussian_integers(WIDE, SIZE), third)
        assert drawer._number == orders + 1


LIES = {
    "a vector before": ("tell(hear()[0] - 1, 32768)", "draw 32768 of vector 0, which was not next"),
    "one still to come": ("tell(hear()[0] + 1, 32768)", "of vector 2, which was not next"),
    "too much at once": ("tell(hear()[0], 65536)", "draw 65536 of vector 1, which was not next"),
    "nothing": ("tell(hear()[0], 0)", "draw 0 of vector 1"),
    "more than all": ("n = hear(); tell(n[0], 2**63)", "draw 9223372036854775808"),
    "nothing was drawn": ("tell(hear()[0], 32768)", "draw 32768, which is not there"),
    "the second piece was not drawn": (
        "n, _, size = hear(); room[:32768] = 7; tell(n, 32768); tell(n, 65536)",
        "draw 65536, which is not there",
    ),
    "half a message": ("hear(); os.write(1, b'12345678')", "a part of a message"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_process_that_lies_is_ended_and_nothing_more_is_given(
    lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, message = LIES[lie]
    liar = f"tell(0, 0)\n{code}\ntime.sleep(1000)"
    with drawing(monkeypatch, SIZE, liar) as drawer, TestRng(1) as rng:
        pid = pid_of(drawer)
        rng.expect(WIDE, SIZE)
        with pytest.raises(NoiseLost, match=message):
            rng.gaussian_integers(WIDE, SIZE)
        assert is_gone(pid)


@pytest.mark.parametrize(
    "liar", ["sys.exit(1)", "tell(1, 32768); hear()", "os.write(1, b'hello'); hear()"]
)
def test_a_process_that_never_is_ready_is_not_tried_twice(
    liar: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = in_line(3)[0]
    with drawing(monkeypatch, SIZE, liar) as drawer, TestRng(3) as rng:
        assert drawer._process is None
        rng.expect(WIDE, SIZE)
        assert drawer._process is None
        np.testing.assert_array_equal(rng.gaussian_integers(WIDE, SIZE), wanted)


@pytest.mark.parametrize("missing", ["memfd_create", "pidfd_open", "Popen"])
def test_where_no_process_can_be_started_the_noise_is_drawn_here(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object, **named: object) -> None:
        raise OSError("there is none to be had")

    monkeypatch.setattr(noise_ahead, "_drawer", Drawer())
    monkeypatch.setattr(noise_ahead, "_cores", lambda: 2)
    monkeypatch.setattr(subprocess if missing == "Popen" else os, missing, fails)
    opened = sorted(os.listdir("/proc/self/fd"))
    with TestRng(3) as rng:
        for wanted in in_line(3, 2):
            rng.expect(WIDE, SIZE)
            np.testing.assert_array_equal(rng.gaussian_integers(WIDE, SIZE), wanted)
    assert sorted(os.listdir("/proc/self/fd")) == opened


def test_a_vector_dropped_in_its_middle_is_drawn_no_further_and_the_next_is_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dropped, second, third = in_line(6, 3)
    with drawing(monkeypatch, SIZE) as drawer, TestRng(6) as rng:
        pid = pid_of(drawer)
        rng.expect(WIDE, SIZE)
        np.testing.assert_array_equal(rng.gaussian_integers(WIDE, 40_000), dropped[:40_000])
        rng.expect(WIDE, SIZE)
        assert is_gone(pid)
        np.testing.assert_array_equal(rng.gaussian_integers(WIDE, SIZE), second)
        wait_until_ready(drawer)
        rng.expect(WIDE, SIZE)
        assert drawer._holder is not None
        np.testing.assert_array_equal(rng.gaussian_integers(WIDE, SIZE), third)


def test_a_generator_forgotten_in_the_middle_of_a_vector_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = in_line(9, 2)
    with drawing(monkeypatch, SIZE) as drawer, TestRng(9) as rng:
        pid = pid_of(drawer)
        forgotten = TestRng(10)
        forgotten.expect(WIDE, SIZE)
        del forgotten
        rng.expect(WIDE, SIZE)
        assert is_gone(pid)
        np.testing.assert_array_equal(rng.gaussian_integers(WIDE, SIZE), first)
        wait_until_ready(drawer)
        rng.expect(WIDE, SIZE)
        np.testing.assert_array_equal(rng.gaussian_integers(WIDE, SIZE), second)


def test_a_larger_vector_gets_a_larger_room(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = in_line(4)[0]
    with drawing(monkeypatch, LEAST) as drawer, TestRng(4) as rng:
        rng.expect(WIDE, SIZE)
        np.testing.assert_array_equal(rng.gaussian_integers(WIDE, SIZE), wanted)
        wait_until_ready(drawer)
        assert len(drawer._room) == SIZE


def test_a_fork_has_no_part_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = in_line(7)[0]
    with drawing(monkeypatch, SIZE) as drawer, TestRng(7) as rng:
        rng.expect(WIDE, SIZE)
        fork = os.fork()
        if not fork:
            mine = noise_ahead._drawer
            rng.close()
            os._exit(0 if mine is not drawer and mine._process is None else 1)
        assert os.waitpid(fork, 0)[1] == 0
        np.testing.assert_array_equal(rng.gaussian_integers(WIDE, SIZE), wanted)


def test_it_has_two_descriptors_more_no_core_dump_no_ctrl_c_and_three_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    with drawing(monkeypatch, SIZE) as drawer, TestRng(2) as rng:
        pid = pid_of(drawer)
        assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
        proc = Path(f"/proc/{pid}")
        names = {entry.split(b"=")[0] for entry in (proc / "environ").read_bytes().split(b"\0")}
        assert names - {b""} == {b"PYTHONPATH", b"OMP_NUM_THREADS", b"OPENBLAS_NUM_THREADS"}
        opened = [os.readlink(link) for link in (proc / "fd").iterdir()]
        assert len(opened) == 5, opened  # its three, its room and its parent
        assert "/dev/null" in opened
        os.kill(pid, signal.SIGINT)
        rng.expect(WIDE, SIZE)
        np.testing.assert_array_equal(rng.gaussian_integers(WIDE, SIZE), in_line(2)[0])
        assert pid_of(drawer) == pid


@pytest.mark.parametrize("end", ["returns", "raises", "os._exit", "SIGKILL", "SIGKILL with a fork"])
def test_it_ends_with_its_parent_however_that_ends(end: str, tmp_path: Path) -> None:
    """Also where a fork of the parent lives on, which has the pipe."""
    script = textwrap.dedent(
        f"""
        import os, signal, sys, time
        import privacy.noise
        from privacy import noise_ahead
        from privacy.noise import SecureRandom
        privacy.noise.LEAST = 1
        from tests.privacy.noise_processes import pid_of, wait_until_ready
        noise_ahead._cores = lambda: 2
        rng = SecureRandom()
        rng.expect(1, {SIZE})
        wait_until_ready(noise_ahead._drawer)
        rng.expect(1, {SIZE})
        fork = 0
        if {"fork" in end}:
            fork = os.fork()
            if not fork:
                time.sleep(1000)
        os.write(1, b"%d %d" % (pid_of(noise_ahead._drawer), fork))
        if "SIGKILL" in {end!r}:
            os.kill(os.getpid(), signal.SIGKILL)
        if {end!r} == "os._exit":
            os._exit(0)
        if {end!r} == "raises":
            sys.exit("on its way")
        """
    )
    with (tmp_path / "said").open("w+b") as said:
        parent = subprocess.Popen(
            [sys.executable, "-c", script], stdout=said, stderr=subprocess.DEVNULL, cwd=ROOT
        )
        parent.wait()
        said.seek(0)
        child, fork = map(int, said.read().split())
    if fork:
        assert not is_gone(fork)
    wait_until_gone(child)
    if fork:
        os.kill(fork, signal.SIGKILL)

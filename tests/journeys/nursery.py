"""Real processes to kill, started in milliseconds: forked from one that has imported everything.

`Nursery` runs one helper process, single-threaded and without any open file of ours, which forks a
child for each `start`. A child is a process like any other: it opens its files itself, serves, and
dies by SIGKILL without a chance to do anything about it. Only its imports were done before it was
born, so that a thousand deaths take minutes.

Not promised: a power cut. What a killed process had written stays in the machine's page cache;
lost and torn writes are ``tests.stateful``'s.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.patience import PATIENCE_S

REPOSITORY = Path(__file__).parents[2]


@dataclass
class Child:
    """A process of the nursery."""

    nursery: Nursery
    pid: int
    born_s: float

    def kill(self) -> int:
        """SIGKILL; returns the exit status, negative for the signal that ended it."""
        return self.end(signal.SIGKILL)

    def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; it may have ended before."""
        os.kill(self.pid, number)  # a child that ended by itself is there until it is waited for
        return self.wait()

    def wait(self) -> int:
        """Wait for the end."""
        status: int = self.nursery.ask({"wait": self.pid})
        return status

    def ended(self) -> bool:
        """Whether it has ended by itself; `wait` says how."""
        ended: bool = self.nursery.ask({"ended": self.pid})
        return ended

    @property
    def age_s(self) -> float:
        """Seconds since its birth."""
        return time.monotonic() - self.born_s


class Nursery:
    """See the module's first lines. Use as a context manager; one thread asks at a time.

    Args:
        target: ``module:function``, called in the child with the arguments of `start`.
        log: what children print, in order.
    """

    def __init__(self, target: str, log: Path) -> None:
        self._target = target
        self._log = log

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.journeys.nursery", self._target, str(self._log)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ask({"ready": True})
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate(timeout=PATIENCE_S)

    def start(self, *arguments: str) -> Child:
        """Fork a child that calls the target with these arguments."""
        pid: int = self.ask({"start": list(arguments)})
        return Child(self, pid, time.monotonic())

    def ask(self, what: dict[str, object]) -> Any:
        """Say one line to the helper, and hear one."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the nursery of {self._target} has died; see {self._log}")
        return json.loads(answer)


def _serve(function: Callable[..., object], log: Path) -> None:
    """The helper's loop: fork and wait as told, until its input ends."""
    for line in sys.stdin:
        told = json.loads(line)
        answer: object = True
        if "start" in told:
            answer = _fork(function, told["start"], log)
        elif "ended" in told:  # leaves it to be waited for
            answer = os.waitid(os.P_PID, told["ended"], os.WEXITED | os.WNOHANG | os.WNOWAIT)
            answer = answer is not None
        elif "wait" in told:
            answer = os.waitstatus_to_exitcode(os.waitpid(told["wait"], 0)[1])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _fork(function: Callable[..., object], arguments: list[str], log: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        function(*arguments)
        status = 0
    except BaseException:  # noqa: BLE001 - the child's outermost shell
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    module, _, name = sys.argv[1].partition(":")
    _serve(getattr(importlib.import_module(module), name), Path(sys.argv[2]))

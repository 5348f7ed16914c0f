"""The paths of the README, run as they stand, line by line, in a directory of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.docs import pages
from tests.patience import PATIENCE_S

PASSPHRASE = "--passphrase-file passphrase.txt"
PORT = 8460
_BLOCK = re.compile(r"^<!-- path: (\w+) -->\n```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def path(name: str) -> list[str]:
    """The lines of a path."""
    return dict(_BLOCK.findall(pages.read("README.md")))[name].splitlines()


@dataclass
class Shell:
    """A person at a terminal; lines that end in ``&`` go on in the background."""

    directory: Path
    environment: dict[str, str]
    background: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, line: str) -> str:
        """Run one line; returns what it printed."""
        done = subprocess.run(
            ["bash", "-c", f"set -euo pipefail; {line}"],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, line: str, until: str) -> None:
        """Start a line that goes on, and wait for a word that it says."""
        log = self.directory / f"{len(self.background)}.log"
        with log.open("wb") as file:
            command = ["bash", "-c", "exec " + line.removesuffix("&")]
            self.background.append(
                subprocess.Popen(
                    command, cwd=self.directory, env=self.environment, stdout=file, stderr=file
                )
            )
        while until not in log.read_text():
            assert self.background[-1].poll() is None, f"{line}\n{log.read_text()}"
            time.sleep(0.05)

    def walk(self, lines: list[str], until: str = "") -> None:
        """Run the lines of a path."""
        for line in lines:
            if line.endswith("&"):
                self.start(line, until)
            else:
                self.run(line)

    def status(self) -> object:
        """Where the experiment stands, as the researcher sees it."""
        return self.ask("consilium experiment list --home ada")[0]["status"]

    def until_a_round_is_open(self) -> None:
        """Wait until hospitals train."""
        while self.status() != "running":
            time.sleep(0.05)

    def write_gamma(self) -> None:
        """Files of a third hospital: alpha's rows under its own name."""
        first = self.directory / "examples" / "first-steps"
        for suffix in (".csv", ".yaml"):
            text = (first / f"alpha{suffix}").read_text().replace("alpha", "gamma")
            (self.directory / f"gamma{suffix}").write_text(text)

    def ask(self, line: str) -> list[dict[str, object]]:
        """Run a line that prints JSON."""
        answer: list[dict[str, object]] = json.loads(self.run(f"{line} --json {PASSPHRASE}"))
        return answer


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", PORT)) == 0:
            pytest.skip(f"port {PORT}, which the README uses, is taken on this machine")
    (tmp_path / "examples").symlink_to(pages.REPOSITORY / "examples")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "consilium"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m consilium "$@"\n')
    program.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CONSILIUM_")}
    environment["PATH"] = f"{tmp_path / 'bin'}:{environment['PATH']}"
    environment["PYTHONPATH"] = str(pages.REPOSITORY)
    made = Shell(tmp_path, environment)
    yield made
    for process in made.background:
        process.terminate()
    for process in made.background:
        process.wait(PATIENCE_S)


@pytest.mark.process
def test_the_readme_s_paths_lead_from_nothing_to_a_verified_model(shell: Shell) -> None:
    hospital = path("hospital")
    assert len(hospital) + 1 <= 4, "a hospital needs more than install and three commands"
    researcher = len(path("researcher")) + len(path("model"))
    assert researcher + 1 <= 4, "a researcher needs more than install and three commands"

    shell.walk(path("federation"), until='"ready"')
    shell.walk(hospital, until="node.ready")
    shell.walk([line.replace("alpha", "beta") for line in hospital], until="node.ready")
    shell.walk(path("researcher"))
    shell.walk(path("steward"))

    # Another hospital comes in while the experiment runs; nobody restarts anything. One node is held
    # still meanwhile, so that the open round cannot end before.
    beta = shell.background[2]
    beta.send_signal(signal.SIGSTOP)
    try:
        shell.walk([line.replace("alpha", "beta") for line in path("steward")])
        shell.until_a_round_is_open()
        shell.run(f"consilium member invite gamma --out gamma.invitation --home alpha {PASSPHRASE}")
        waiting = shell.run(f"consilium member list --home beta/steward --json {PASSPHRASE}")
        change = json.loads(waiting)["changes"][0]["change"]
        shell.run(f"consilium member endorse {change} --home beta {PASSPHRASE}")
        shell.write_gamma()
        gamma = [line.replace("hub/invitations/alpha", "gamma") for line in hospital]
        gamma = [line.replace("examples/first-steps/alpha", "gamma") for line in gamma]
        shell.walk([line.replace("alpha", "gamma") for line in gamma], until="node.ready")
        assert shell.status() == "running"
    finally:
        beta.send_signal(signal.SIGCONT)
    shell.walk(path("model"))
    shell.walk(path("audit"))

    assert (shell.directory / "model.safetensors").stat().st_size > 0
    assert [row["status"] for row in shell.ask("consilium experiment list --home ada")] == [
        "released"
    ]
    members = json.loads(shell.run("consilium member list --at hub --json"))["members"]
    assert {"gamma-node", "gamma-steward"} <= {member["handle"] for member in members}
    assert len(json.loads(shell.run("consilium dataset list --at hub --json"))) == 3


def test_private_keys_are_in_no_file_that_a_path_hands_over() -> None:
    for name in ("hospital", "researcher", "steward", "model"):
        handed = [word for line in path(name) for word in line.split() if word.startswith("hub/")]
        assert all(word.startswith("hub/invitations/") for word in handed), name


def test_the_first_steps_say_that_their_rows_are_made_up() -> None:
    spec = pages.read("examples/first-steps/experiment.yaml")
    assert "made up" in spec
    for name in ("alpha", "beta"):
        assert "made up" in pages.read(f"examples/first-steps/{name}.yaml")

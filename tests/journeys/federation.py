"""A federation of real processes, driven by the commands that people type.

Small generated tables, so that a run takes seconds; everything else is as in production: HTTP on
loopback, encrypted key files, one process a service. Services may be killed and started again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from consilium.demo.processes import Service, Services, free_port

SCHEMA = {
    "consilium": 1,
    "title": "Generated patients",
    "declared_rows": 200,
    "test_percent": 30,
    "columns": [
        {"name": "age", "type": "number", "low": 20, "high": 90, "unit": "years"},
        {"name": "pressure", "type": "number", "low": 80, "high": 200, "unit": "mmHg"},
        {"name": "sex", "type": "category", "values": ["f", "m"]},
        {"name": "ill", "type": "category", "values": ["0", "1"]},
    ],
}
SPEC = {
    "consilium": 1,
    "name": "trial",
    "title": "Whether the machinery holds",
    "purpose": "Learn who is ill in generated rows.",
    "lawful_basis": "No persons are concerned",
    "until": "2099-12-31",
    "task": {"kind": "binary", "target": "ill", "positive": ["1"]},
    "features": ["age", "pressure", "sex"],
    "model": {"preset": "logistic-regression"},
}


@dataclass
class Command:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its standard output as JSON."""
        return json.loads(self.out)


@dataclass
class RealFederation:
    """Homes, services and commands in one folder."""

    folder: Path
    hospitals: tuple[str, ...]
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        (self.folder / "logs").mkdir(parents=True)
        secret = self.folder / "passphrase"
        secret.touch(mode=0o600)
        secret.write_text("only for this test\n")
        self.environment = {
            "CONSILIUM_PASSPHRASE_FILE": str(secret),
            "CONSILIUM_KEY_STRENGTH": "interactive",
        }
        self.services = Services(self.folder / "logs", self.environment)

    def run(self, *arguments: str, expect: int = 0, **environment: str) -> Command:
        """Run a command; fails the test when its exit status is another than expected."""
        done = subprocess.run(
            [sys.executable, "-m", "consilium", *arguments],
            capture_output=True,
            text=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            env=os.environ | self.environment | environment,
            check=False,
        )
        assert done.returncode == expect, f"{arguments}: {done.returncode}\n{done.stderr}"
        return Command(done.returncode, done.stdout, done.stderr)

    def found(self) -> None:
        """Found the federation; every hospital and a researcher are invited."""
        self.run(
            "federation", "create", "trial", "--organisation=operator",
            f"--url=http://127.0.0.1:{self.port}",
            *(f"--hospital={name}" for name in self.hospitals),
            "--researcher=institute=ada", "--home=coordinator",
        )  # fmt: skip

    def start_coordinator(self) -> Service:
        """Start the coordinator's process and wait until it serves."""
        return self._start(
            "coordinator", "coordinator", "run", f"--port={self.port}", "--home=coordinator"
        )

    def join(self, hospital: str, *, epsilon: float = 8.0) -> None:
        """Take a hospital's seats and register its table."""
        self.run("member", "join", f"coordinator/invitations/{hospital}.invitation",
                 f"--home={hospital}")  # fmt: skip
        table, schema = self.write_table(hospital)
        self.run("dataset", "register", f"--data={table}", f"--schema={schema}",
                 f"--epsilon={epsilon}", f"--home={hospital}")  # fmt: skip

    def start_node(self, hospital: str) -> Service:
        """Start a hospital's node and wait until it serves."""
        return self._start(hospital, "node", "run", f"--home={hospital}")

    def join_researcher(self) -> None:
        """Take the researcher's seat."""
        self.run("member", "join", "coordinator/invitations/institute.invitation",
                 "--home=researcher")  # fmt: skip

    def propose(self, *, rounds: int, quorum: int, epsilon: float = 4.0, **more: object) -> str:
        """Propose an experiment on all hospitals' datasets; returns its id."""
        federation = {
            "datasets": [f"{name}-ward" for name in self.hospitals],
            "rounds": rounds,
            "quorum": quorum,
        }
        spec = SPEC | {"federation": federation | more, "privacy": {"epsilon": epsilon}}
        (self.folder / "trial.yaml").write_text(yaml.safe_dump(spec))
        said = self.run("experiment", "propose", "trial.yaml", "--home=researcher", "--json")
        proposed: str = said.json["id"]
        return proposed

    def approve(self, hospital: str) -> None:
        """Let a hospital's steward approve."""
        self.run("experiment", "approve", "trial", "--yes", f"--home={hospital}")

    def show(self) -> Mapping[str, Any]:
        """The experiment as the researcher sees it now."""
        shown: Mapping[str, Any] = self.run(
            "experiment", "show", "trial", "--home=researcher", "--json"
        ).json
        return shown

    def kill(self, service: Service) -> None:
        """SIGKILL, as a power cut would."""
        service.process.send_signal(signal.SIGKILL)
        service.process.wait()
        self.services.running.remove(service)
        if service.process.stdout is not None:
            service.process.stdout.close()

    def write_table(self, hospital: str) -> tuple[Path, Path]:
        """A generated table and its schema."""
        draw = np.random.default_rng(sum(hospital.encode()))
        age, pressure = draw.integers(20, 91, 200), draw.integers(80, 201, 200)
        ill = (age - 55) / 20 + (pressure - 140) / 40 + draw.normal(size=200) > 0
        sex = np.where(draw.random(200) < 0.5, "f", "m")
        lines = ["age,pressure,sex,ill"]
        lines += [
            f"{a},{p},{s},{int(i)}" for a, p, s, i in zip(age, pressure, sex, ill, strict=True)
        ]
        table = self.folder / f"{hospital}.csv"
        table.write_text("\n".join(lines) + "\n")
        schema = self.folder / f"{hospital}.yaml"
        schema.write_text(yaml.safe_dump(SCHEMA | {"dataset": f"{hospital}-ward"}))
        return table, schema

    def _start(self, name: str, *arguments: str) -> Service:
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            service = self.services.start(name, arguments)
        finally:
            os.chdir(before)
        service.ready()
        return service

"""The nightly backup: the service is stopped for the copy, and started again whatever happens."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "systemd" / "consilium-backup"


class Machine:
    """A folder with a node's home, and a ``systemctl`` that writes down what it was told."""

    def __init__(self, root: Path, *, running: bool = True) -> None:
        self.homes, self.backups, self.told = root / "lib", root / "cache", root / "told"
        (self.homes / "consilium-node" / "home").mkdir(parents=True)
        (self.homes / "consilium-node" / "home" / "private.db").write_bytes(b"what was charged")
        self.backups.mkdir()
        self._tools = root / "bin"
        self._tools.mkdir()
        self.tool(
            "systemctl",
            f'echo "$1" >> {self.told}; [ "$1" != is-active ] || exit {0 if running else 3}',
        )

    def tool(self, name: str, body: str) -> None:
        path = self._tools / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def back_up(self, **more: str) -> subprocess.CompletedProcess[str]:
        places = {"CACHE_DIRECTORY": str(self.backups), "CONSILIUM_BACKUP_HOMES": str(self.homes)}
        path = f"{self._tools}:{os.environ['PATH']}"
        return subprocess.run(
            [SCRIPT, "node"],
            env={"PATH": path, **places, **more},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def made(self) -> list[str]:
        return sorted(path.name for path in self.backups.iterdir())


def test_home_is_copied_whole_while_the_service_is_stopped(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    done = machine.back_up()
    assert (done.returncode, done.stderr) == (0, "")
    assert machine.told.read_text().split() == ["is-active", "stop", "start"]
    [archive] = machine.backups.iterdir()
    assert archive.suffixes == [".tar", ".gz"]
    assert archive.stat().st_mode & 0o077 == 0
    with tarfile.open(archive) as copy:
        inside = copy.extractfile("consilium-node/home/private.db")
        assert inside is not None
        assert inside.read() == b"what was charged"


def test_a_service_that_somebody_stopped_stays_so(tmp_path: Path) -> None:
    machine = Machine(tmp_path, running=False)
    done = machine.back_up()
    assert done.returncode == 0
    assert "does not run; nothing was copied" in done.stderr
    assert machine.told.read_text().split() == ["is-active"]
    assert machine.made == []


@pytest.mark.parametrize("broken", ["tar", "pg_dump"])
def test_a_copy_that_fails_leaves_no_half_and_starts_the_service(
    tmp_path: Path, broken: str
) -> None:
    machine = Machine(tmp_path)
    machine.tool("pg_dump", "echo rows > $3")
    machine.tool(broken, f"echo {broken}: no space left on device >&2; exit 2")
    done = machine.back_up(CONSILIUM_BACKUP_DATABASE="postgresql://u@h/d")
    assert done.returncode == 2
    assert "no space left" in done.stderr
    assert machine.told.read_text().split()[-1] == "start"
    assert [name for name in machine.made if "tar" in name or name.endswith(".part")] == []


def test_old_backups_go_and_those_of_other_roles_stay(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    for name in ("node-20200101T000000Z.tar.gz", "coordinator-20200101T000000Z.tar.gz"):
        (machine.backups / name).touch()
        os.utime(machine.backups / name, (0, 0))
    machine.back_up()
    assert [name.split("-")[0] for name in machine.made] == ["coordinator", "node"]
    assert "node-20200101T000000Z.tar.gz" not in machine.made

"""A PostgreSQL of one's own for a benchmark: a server on a socket in a folder, durable as usual."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

BINARIES = Path(os.environ.get("CONSILIUM_POSTGRES", "/usr/lib/postgresql/15/bin"))


@dataclass(frozen=True)
class Server:
    """A server that runs, by the folder of its socket."""

    folder: Path

    def database(self, name: str, *, fresh: bool = False) -> str:
        """The URL of a database, made where it is not there, or made anew."""
        with psycopg.connect(f"host={self.folder} user=postgres", autocommit=True) as admin:
            if fresh:
                admin.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
            known = admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if known.fetchone() is None:
                admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return f"postgresql+psycopg://postgres@/{name}?host={self.folder}"


@contextmanager
def postgresql(parent: Path) -> Iterator[Server | None]:
    """Start a server, or give None where there is no PostgreSQL.

    Args:
        parent: on the disk that is to be measured. The server's folder is ``postgresql`` in it, made
            where it is not there, and left as it is when the server has stopped.
    """
    if not (BINARIES / "initdb").is_file():
        yield None
        return
    owner = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    folder = parent / "postgresql"
    folder.mkdir(mode=0o700, exist_ok=True)
    if owner is not None:
        for above in folder.parents:
            if above.owner() == "root" and above.name.startswith("consilium-bench"):
                above.chmod(0o711)
        shutil.chown(folder, user=owner)

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [str(BINARIES / program), *arguments],
            check=True,
            user=owner,
            group=owner,
            extra_groups=() if owner else None,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=120,
        )

    data, log = folder / "data", str(folder / "log")
    if not data.exists():
        run("initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "--locale=C.UTF-8")
    options = f"-k {folder} -c listen_addresses=''"
    run("pg_ctl", "-D", str(data), "-l", log, "-o", options, "-w", "start")
    try:
        yield Server(folder)
    finally:
        run("pg_ctl", "-D", str(data), "-m", "fast", "-w", "stop")

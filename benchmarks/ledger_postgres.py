"""A PostgreSQL of one's own for a benchmark: a server on a socket in a folder, durable as usual."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

BINARIES = Path(os.environ.get("CONSILIUM_POSTGRES", "/usr/lib/postgresql/15/bin"))


@contextmanager
def postgresql(parent: Path) -> Iterator[str | None]:
    """Start a server and give the URL of an empty database, or None where there is no PostgreSQL.

    Args:
        parent: on the disk that is to be measured; the server's folder is made below it.
    """
    as_root = os.geteuid() == 0  # the server refuses to run as root
    if not (BINARIES / "initdb").is_file() or (as_root and shutil.which("runuser") is None):
        yield None
        return
    owner = ["runuser", "-u", "postgres", "--"] if as_root else []
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir=parent))
    if as_root:
        for above in (folder, *folder.parents):
            if above.owner() == "root" and above.name.startswith(("consilium-bench", "pg-")):
                above.chmod(0o711)
        shutil.chown(folder, user="postgres")

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [*owner, str(BINARIES / program), *arguments],
            check=True,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=120,
        )

    data, log = str(folder / "data"), str(folder / "log")
    run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "--locale=C.UTF-8")
    options = f"-k {folder} -c listen_addresses=''"
    run("pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start")
    try:
        with psycopg.connect(f"host={folder} user=postgres", autocommit=True) as admin:
            admin.execute("CREATE DATABASE ledger")
        yield f"postgresql+psycopg://postgres@/ledger?host={folder}"
    finally:
        run("pg_ctl", "-D", data, "-m", "fast", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)

"""Programs that others wrote and tests let judge our files; absent, the test skips with a reason.

With ``CONSILIUM_NO_SKIP`` set, as CI sets it, a checker that is not there is a failure instead.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import NoReturn

import pytest

GO_PATHS = ("/usr/share/gocode",)  # where Debian's golang-golang-x-mod-dev puts its source
NO_SKIP = "CONSILIUM_NO_SKIP"


def absent(reason: str) -> NoReturn:
    """Skip the test, or fail it where nothing may be skipped."""
    if os.environ.get(NO_SKIP):
        pytest.fail(f"{reason}; {NO_SKIP} is set, so this may not be skipped")
    pytest.skip(reason)


@cache
def go_program(source: Path) -> Path:
    """Build a program over Debian's golang.org/x/mod, once a session.

    Args:
        source: its ``main.go``.
    """
    go = shutil.which("go")
    if go is None:
        absent("no Go toolchain; Debian: apt-get install golang-go golang-golang-x-mod-dev")
    gopath = next((p for p in GO_PATHS if Path(p, "src/golang.org/x/mod/sumdb").is_dir()), None)
    if gopath is None:
        absent("no golang.org/x/mod source; Debian: apt-get install golang-golang-x-mod-dev")
    folder = Path(_folder("consilium-go-"))
    environment = os.environ | {
        "GO111MODULE": "off",
        "GOPROXY": "off",
        "GOPATH": gopath,
        "GOCACHE": _cache(),
    }
    program = folder / source.parent.name
    subprocess.run(
        [go, "build", "-o", str(program), str(source)], check=True, env=environment, timeout=300
    )
    return program


@cache
def _cache() -> str:
    """One build cache for all programs: x/mod is compiled once."""
    return _folder("consilium-go-cache-")


def _folder(prefix: str) -> str:
    made = mkdtemp(prefix=prefix)
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made

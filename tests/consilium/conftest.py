"""Fixtures: the command as a function, a finished federation on disk, a real coordinator."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from consilium.cli import main
from consilium.demo.processes import Services, free_port
from tests.consilium.places import Places, made_places
from tests.federation import Federation


@dataclass(frozen=True)
class Said:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process, without this machine's own settings."""
    for name in ("HOME", "CONFIG", "PASSPHRASE_FILE", "KEY_STRENGTH"):
        monkeypatch.delenv(f"CONSILIUM_{name}", raising=False)
    monkeypatch.setenv("CONSILIUM_CONFIG", os.devnull)
    monkeypatch.setenv("CONSILIUM_KEY_STRENGTH", "interactive")

    def command(*arguments: object) -> Said:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return command


@dataclass(frozen=True)
class Finished:
    """A federation that ran one experiment to its released model, as a coordinator's home."""

    federation: Federation
    experiment: str
    home: Path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A played federation on disk."""
    federation = Federation.found()
    experiment = federation.start()
    federation.play(experiment)
    home = tmp_path_factory.mktemp("finished")
    federation.persist(home).close()
    return Finished(federation, experiment, home)


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """One log in every kind of place; nobody changes it."""
    with made_places(tmp_path_factory.mktemp("places")) as made:
        yield made


@dataclass(frozen=True)
class Live:
    """A real coordinator on loopback."""

    home: Path
    passphrase: Path
    url: str

    def invitation(self, organisation: str) -> Path:
        """The founders' invitation file."""
        return self.home / "invitations" / f"{organisation}.invitation"


@pytest.fixture
def live(run: Run, tmp_path: Path) -> Iterator[Live]:
    """A federation of three hospitals and a researcher, nobody joined yet; its coordinator runs."""
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("open sesame\n")
    home, port = tmp_path / "hub", free_port()
    url = f"http://127.0.0.1:{port}"
    said = run(
        "federation", "create", "test", "--organisation", "operator", "--url", url,
        "--hospital", "basel", "--hospital", "bern", "--hospital", "chur",
        "--researcher", "institute=ada", "--home", home, "--passphrase-file", passphrase,
    )  # fmt: skip
    assert said.code == 0, said.err
    assert f"next: consilium coordinator run --home {home}\n" in said.out
    with Services(tmp_path, {"CONSILIUM_PASSPHRASE_FILE": str(passphrase)}) as services:
        arguments = ["coordinator", "run", "--home", str(home), "--port", str(port)]
        assert services.start("coordinator", arguments).ready()["url"] == url
        yield Live(home, passphrase, url)

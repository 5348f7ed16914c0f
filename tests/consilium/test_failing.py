"""How commands fail: one clear line, JSON where JSON was asked for, and nothing left half made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from consilium.cli import explain_failure
from consilium.errors import UnknownName
from consilium.naming import the_change, the_experiment
from tests.consilium.conftest import Finished, Run, Said

BAD_NAME = "must be small letters, digits and hyphens, at most 40 of them"


def create(run: Run, home: Path, secret: Path, **flags: str) -> Said:
    """Found a federation of one hospital; ``flags`` say what is wrong with it."""
    given = {"name": "test", "url": "http://127.0.0.1:1", "hospital": "basel"} | flags
    return run(
        "federation", "create", given["name"], "--organisation", "operator", "--url", given["url"],
        "--hospital", given["hospital"], "--home", home, "--passphrase-file", secret,
    )  # fmt: skip


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A passphrase file."""
    path = tmp_path / "passphrase"
    path.write_text("open sesame\n")
    return path


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (("dataset", "show", "geneva", "--at", "HOME"), 2, "there is no dataset 'geneva'"),
        (("dataset", "show", "--at", "HOME"), 2, "Missing argument"),
        (("dataset", "list", "--at", "nowhere"), 2, "nowhere: is not there"),
        (("coordinator", "status", "--url", "http://127.0.0.1:9"), 3, "does not answer"),
    ],
)
def test_an_error_is_json_where_json_was_asked_for(
    words: tuple[str, ...], code: int, part: str, run: Run, finished: Finished
) -> None:
    said = run(*(finished.home if word == "HOME" else word for word in words), "--json")
    assert said.code == code
    error = json.loads(said.out)["error"]
    assert error["code"] == code
    assert part in error["message"]
    assert said.err.endswith(f"consilium: {error['message']}\n")


def test_ctrl_c_is_said_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("consilium.settings.load_settings", interrupt)
    said = run("dataset", "list", "--json")
    assert said.code == 130
    assert said.err == "consilium: stopped\n"
    assert json.loads(said.out) == {"error": {"code": 130, "message": "stopped"}}


def test_ctrl_c_in_code_made_of_text_gives_its_exit_code_too(tmp_path: Path) -> None:
    # As where it comes while a module with a dataclass is imported.
    (tmp_path / "sitecustomize.py").write_text(
        "import consilium.cli\n"
        "def main():\n"
        "    try:\n"
        "        exec('raise KeyboardInterrupt')\n"
        "    except KeyboardInterrupt:\n"
        "        return 130\n"
        "consilium.cli.main = main\n"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "consilium", "--help"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=False,
    )
    assert ended.returncode == 130


def test_a_message_cannot_move_the_cursor(run: Run) -> None:
    said = run("dataset", "list", "--at", "a\x1b[2Jb")
    assert "\x1b" not in said.err
    assert "a\\u001b[2Jb" in said.err


def test_a_name_that_is_no_text_is_bad_input(
    run: Run, finished: Finished, tmp_path: Path, secret: Path
) -> None:
    said = create(run, tmp_path / "hub\udcff", secret)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "not UTF-8 text" in said.err
    use = ("audit", "report", "budget", finished.home, "--out", tmp_path / "budget.json")
    said = run(*use, "--by", "\udcff")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert not list(tmp_path.glob("budget*"))


def test_a_terminal_of_another_character_set_shows_all_of_it(
    finished: Finished, tmp_path: Path
) -> None:
    (tmp_path / "h\u00fcb").symlink_to(finished.home)
    verify = [sys.executable, "-m", "consilium", "audit", "verify", "h\u00fcb"]
    done = subprocess.run(
        verify,
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert b"h\\xfcb: complete to size" in done.stdout
    assert done.stderr == b""


def test_a_machine_that_refuses_is_no_mistake_of_ours() -> None:
    code, message = explain_failure(OSError(28, "No space left on device", "/var/log"))
    assert (code, message) == (1, "/var/log: No space left on device")


@pytest.mark.parametrize(
    "command",
    [
        ("ledger", "export"),
        ("audit", "events"),
        ("audit", "report", "all"),
        ("ledger", "tiles"),
        ("ledger", "policy"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_written_is_said_and_leaves_nothing(
    command: tuple[str, ...], run: Run, finished: Finished, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("there before")
    said = run(*command, "--at", finished.home, "--out", file / "out.json")
    assert said.code in (1, 2), said
    assert str(file) in said.err
    assert said.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_in_place_of_a_folder_leaves_nothing_beside_it(
    run: Run, finished: Finished, tmp_path: Path
) -> None:
    taken = tmp_path / "out.json"
    taken.mkdir()
    for command in (("ledger", "export"), ("audit", "events"), ("ledger", "policy")):
        said = run(*command, "--at", finished.home, "--out", taken)
        assert said.code in (1, 2), said
        assert "Is a directory" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ({"url": "coordinator.example.org"}, "url: must begin with http:// or https://"),
        ({"name": "My Federation"}, BAD_NAME),
        ({"hospital": "St. Mary"}, BAD_NAME),
    ],
)
def test_a_federation_with_a_bad_name_leaves_no_home(
    flags: dict[str, str], part: str, run: Run, tmp_path: Path, secret: Path
) -> None:
    said = create(run, tmp_path / "hub", secret, **flags)
    assert said.code == 2
    assert part in said.err
    assert not (tmp_path / "hub").exists()
    assert create(run, tmp_path / "hub", secret).code == 0


def test_a_founding_that_stops_halfway_leaves_its_home_empty(
    run: Run, tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "hub"
    home.mkdir()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("consilium.actions.federation.founding.save_invitation", full)
        said = create(run, home, secret)
    assert said.code == 2
    assert said.err == f"consilium: {home} cannot be written: No space left on device\n"
    assert list(home.iterdir()) == []
    assert create(run, home, secret).code == 0
    said = create(run, home, secret)
    assert "it is not empty" in said.err
    assert (home / "keyring.json").exists()


def test_an_empty_variable_of_a_script_names_nothing(finished: Finished) -> None:
    state = finished.federation.state
    identity = finished.experiment
    assert the_experiment(state, identity[:4]).id == identity
    for name in ("", identity[:3]):
        with pytest.raises(UnknownName, match=identity[:8]):
            the_experiment(state, name)
    asked = SimpleNamespace(changes={identity: None})
    assert the_change(asked, identity[:4]) == identity  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match=identity[:8]):
        the_change(asked, "")  # type: ignore[arg-type]


def test_a_spec_is_told_in_words_what_a_name_is(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("consilium: 1\nname: First Steps\n")
    said = run("experiment", "check", path)
    assert said.code == 2
    assert f"name: {BAD_NAME}" in said.err
    assert "pattern" not in said.err


def test_a_file_that_is_no_invitation_is_named(run: Run, tmp_path: Path, secret: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    said = run("member", "join", picture, "--home", tmp_path / "a", "--passphrase-file", secret)
    assert said.code == 2
    assert f"{picture} is no invitation" in said.err
    assert not (tmp_path / "a").exists()


def test_a_table_too_wide_for_its_terminal_is_shown_row_by_row(
    run: Run, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    said = run("dataset", "list", "--at", finished.home)
    assert len(said.out.splitlines()) == 1 + 4  # headings, and a line each
    monkeypatch.setenv("COLUMNS", "40")
    said = run("dataset", "list", "--at", finished.home)
    assert "\ndataset           bern-heart\n" in said.out
    assert max(map(len, said.out.splitlines())) <= 40

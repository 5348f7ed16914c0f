"""Settings and passphrases: where they may come from, in which order, and where they may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from consilium.errors import InputError
from consilium.passphrase import read_passphrase
from consilium.settings import load_settings


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of this machine."""
    for name in ("HOME", "CONFIG", "PASSPHRASE_FILE", "KEY_STRENGTH"):
        monkeypatch.delenv(f"CONSILIUM_{name}", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.chdir(tmp_path)


def test_a_flag_beats_the_environment_and_that_beats_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().key_strength == "moderate"
    (tmp_path / "consilium.toml").write_text('home = "from-file"\nkey_strength = "sensitive"\n')
    assert load_settings().home == Path("from-file")
    monkeypatch.setenv("CONSILIUM_HOME", "from-environment")
    found = load_settings()
    assert (found.home, found.key_strength) == (Path("from-environment"), "sensitive")
    assert load_settings(home=Path("from-flag")).home == Path("from-flag")
    assert load_settings(home=None).home == Path("from-environment")


def test_an_empty_variable_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "consilium.toml").write_text('home = "from-file"\n')
    for name in ("HOME", "PASSPHRASE_FILE", "KEY_STRENGTH", "CONFIG"):
        monkeypatch.setenv(f"CONSILIUM_{name}", "")
    found = load_settings()
    assert (found.home, found.passphrase_file) == (Path("from-file"), None)
    assert found.key_strength == "moderate"


def test_an_unknown_setting_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "consilium.toml").write_text('hoem = "x"\n')
    with pytest.raises(InputError, match="settings: hoem"):
        load_settings()


def test_a_broken_settings_file_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "consilium.toml").write_text("home = \n")
    with pytest.raises(InputError, match=r"consilium\.toml"):
        load_settings()


def test_a_passphrase_comes_from_the_first_line_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes("schöne Grüße\r\nsecond line\n".encode())
    assert read_passphrase(path, of="basel") == "schöne Grüße".encode()


def test_a_systemd_credential_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "passphrase").write_text("from systemd\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_passphrase(None, of="basel") == b"from systemd"


@pytest.mark.parametrize(
    ("content", "words"), [("\nsecond", "it is empty"), ("x" * 2000, "longer than 1024 bytes")]
)
def test_an_empty_or_endless_passphrase_is_refused(
    content: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    path.write_text(content)
    with pytest.raises(InputError, match=words):
        read_passphrase(path, of="basel")


def test_without_file_and_terminal_there_is_advice() -> None:
    with pytest.raises(InputError, match="--passphrase-file or CONSILIUM_PASSPHRASE_FILE"):
        read_passphrase(None, of="basel")


def test_a_new_passphrase_is_asked_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["first", "second"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda _: next(answers))
    with pytest.raises(InputError, match="two passphrases differ"):
        read_passphrase(None, of="basel", new=True)


def test_a_settings_file_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSILIUM_CONFIG", "nowhere.toml")
    with pytest.raises(InputError, match=r"nowhere\.toml, which is not there"):
        load_settings()


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"home", "settings file"),
        (b"\xff", "settings file"),
        (b'home = "~nobody-here"', "nobody's"),
    ],
)
def test_a_file_that_cannot_be_followed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, match: str
) -> None:
    (tmp_path / "own.toml").write_bytes(data)
    monkeypatch.setenv("CONSILIUM_CONFIG", str(tmp_path / "own.toml"))
    with pytest.raises(InputError, match=match):
        load_settings()

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from node.errors import ServiceError
from node.service.settings import SETTINGS_FILE, load_settings


def test_flags_come_before_environment_and_environment_before_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / SETTINGS_FILE).write_text(
        'epsilon_max = 1\nlisten = "127.0.0.1:1111"\nhours_from = 7\nhours_to = 8\n'
    )
    monkeypatch.setenv("CONSILIUM_NODE_LISTEN", "127.0.0.1:2222")
    monkeypatch.setenv("CONSILIUM_NODE_HOURS_FROM", "5")
    settings = load_settings(tmp_path, listen=None, hours_from=6)
    assert settings.epsilon_max == Decimal(1)
    assert settings.port == 2222
    assert (settings.hours_from, settings.hours_to) == (6, 8)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"listen": "0.0.0.0:80"}, "set allow_remote"),
        ({"listen": "nowhere"}, "is not host:port"),
        ({"epsilon_max": -1}, "epsilon_max"),
        ({"colour": "blue"}, "colour"),
        ({"training": "noop"}, "is for test federations"),
    ],
)
def test_a_setting_that_cannot_be_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, object], message: str
) -> None:
    monkeypatch.delenv("CONSILIUM_TEST_FEDERATION", raising=False)
    with pytest.raises(ServiceError, match=message):
        load_settings(tmp_path, **flags)


def test_an_unknown_setting_in_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / SETTINGS_FILE).write_text("epsilon_maximum = 1\n")
    with pytest.raises(ServiceError, match="epsilon_maximum"):
        load_settings(tmp_path)


def test_noop_training_is_allowed_in_a_test_federation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSILIUM_TEST_FEDERATION", "1")
    assert load_settings(tmp_path, training="noop").training == "noop"


@pytest.mark.parametrize(
    ("begin", "end", "working"),
    [(0, 0, range(24)), (8, 10, (8, 9)), (22, 2, (22, 23, 0, 1)), (0, 24, range(24))],
)
def test_working_hours_may_span_midnight(
    tmp_path: Path, begin: int, end: int, working: tuple[int, ...]
) -> None:
    settings = load_settings(tmp_path, hours_from=begin, hours_to=end)
    assert [hour for hour in range(24) if settings.works_at(hour)] == sorted(working)


@pytest.mark.parametrize("data", [b"listen", b"\xff = 1", b"a = " + b"[" * 5000])
def test_a_settings_file_that_is_no_toml_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "node.toml").write_bytes(data)
    with pytest.raises(ServiceError, match=r"node\.toml cannot be read"):
        load_settings(tmp_path)

"""What an error that nothing foresees leaves in the coordinator's log."""

from __future__ import annotations

import logging
import secrets

import pytest
import structlog

from coordinator.service import log_to_stderr


def test_an_error_is_logged_with_its_frames_and_without_what_their_variables_hold(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a request's frames are its bytes, and sessions; in the sequencer's the log key."""
    session = secrets.token_hex(16)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    before = structlog.get_config()
    log_to_stderr()
    try:
        raise OSError(28, "No space left on device")
    except OSError as error:
        structlog.get_logger("coordinator").error("request failed", exc_info=error)
    finally:
        structlog.configure(**before)
    logged = capsys.readouterr().err
    assert "No space left on device" in logged
    assert "test_logs.py" in logged
    assert session not in logged

"""What an error that nothing foresees leaves in a node's log."""

from __future__ import annotations

import secrets
from typing import Literal

import pytest
import structlog

from node.service.logs import configure_logging


@pytest.mark.parametrize("form", ["json", "text"])
def test_an_error_is_logged_with_its_frames_and_without_what_their_variables_hold(
    form: Literal["json", "text"], capsys: pytest.CaptureFixture[str]
) -> None:
    """In a round's frames are the hospital key and what each patient has spent."""
    hospital_key = secrets.token_hex(16)
    before = structlog.get_config()
    configure_logging(form)
    try:
        raise OSError(28, "No space left on device")
    except OSError:
        structlog.get_logger("node").exception("round.crashed")
    finally:
        structlog.configure(**before)
    logged = capsys.readouterr().err
    assert "No space left on device" in logged
    assert "test_logs.py" in logged
    assert hospital_key not in logged

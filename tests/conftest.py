"""What the whole suite shares: its options, and key files that cost nothing to open."""

from __future__ import annotations

import pytest
from nacl.pwhash import argon2id

from ledger.formats import key_file


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--attack-table",
        action="store_true",
        default=False,
        help="print, at the end, what tests/adversary tried, who exposed it and with what evidence",
    )


@pytest.fixture
def quick_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passphrases cost as little as libsodium lets them: some tests open a hundred key files."""
    weakest = (argon2id.OPSLIMIT_MIN, argon2id.MEMLIMIT_MIN)
    monkeypatch.setitem(key_file._STRENGTHS, "interactive", weakest)

"""What the whole suite shares: its options, how properties are tried, and key files that cost nothing to open."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from nacl.pwhash import argon2id

from ledger.formats import key_file

# An example that takes long shows a busy machine, not a mistake. The suite tries the same examples
# each time, so that it fails where something was changed; ``search`` looks for ones that nobody has tried.
settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "search", settings.get_profile("suite"), derandomize=False, print_blob=True
)
settings.load_profile("suite")


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

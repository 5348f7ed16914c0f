"""What a text must look like, for the people who typed it: a declared pattern in words.

Patterns that only programs write (hashes, keys) are shown as they are.
"""

from __future__ import annotations

_NAME = (
    "must be small letters, digits and hyphens, at most {} of them, none of the hyphens at an end"
)
_LINE = "must be one line of printable characters"
_WORDS = {
    r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$": _NAME.format(40),
    r"^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$": _NAME.format(32),
    r"^[A-Za-z][A-Za-z0-9_]{0,62}$": "must be a letter (A-Z, a-z), then at most 62 letters, digits or _",
    r"^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]*$": _LINE,
    r"^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+$": _LINE,
    r"^(?:[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]|\n)*$": "must be printable characters and line ends",
    r"^(?:[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]|\n)+$": "must be printable characters and line ends",
    r"^https?://[!-~]{1,400}$": "must begin with http:// or https:// and hold no spaces",
}


def pattern_in_words(pattern: str) -> str:
    """What a text that does not match a pattern should have been."""
    return _WORDS.get(pattern, f"should match pattern '{pattern}'")

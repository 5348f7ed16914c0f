"""Tests of what is said, signed and sent again."""

"""Tests of a hospital's tables: reading, encoding, registering, describing."""

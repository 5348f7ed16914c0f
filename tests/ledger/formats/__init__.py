"""Tests of bytes of the field and of ours."""

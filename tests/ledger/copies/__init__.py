"""Tests of durable copies of a log."""

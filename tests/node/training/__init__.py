"""Tests of the private mechanism and of the process that runs it."""

"""Tests of the node as a process."""
